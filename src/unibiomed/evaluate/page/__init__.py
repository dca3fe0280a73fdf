"""The page of an evaluation: plain HTML files that open anywhere, without a server, a network or others' scripts.

Labels, answers and file names come from models and data: everything is escaped, and the pages forbid themselves, by
their content security policy, to load or run what is not in them.
"""

from __future__ import annotations

from .index import remove_page, write_page
from .samples import PICTURES

__all__ = ["PICTURES", "remove_page", "write_page"]
