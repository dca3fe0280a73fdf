"""The HTML page of an evaluation: files that open without a server, a network connection or external scripts.

Labels, answers and file names come from models and data sets. They are escaped, and the content security policy of the
pages forbids to load or run anything that is not part of them.
"""

from __future__ import annotations

from .index import remove_page, write_page
from .samples import PICTURES

__all__ = ["PICTURES", "remove_page", "write_page"]
