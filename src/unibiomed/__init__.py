"""Grounded interpretation of biomedical images: findings in words, each with a segmentation mask.

>>> import unibiomed
>>> model = unibiomed.load()
>>> result = model.interpret("scan.png", task="recognize")
>>> result.text, [finding.label for finding in result.findings]

Not for clinical use without validation.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .interpret import Interpreter, Result, load

try:
    __version__ = version("unibiomed")
except PackageNotFoundError:  # the source tree is not installed
    __version__ = "0+unknown"

__all__ = ["Interpreter", "Result", "__version__", "load"]


def __getattr__(name: str) -> Any:
    # torch is imported only when a model is loaded, so that `import unibiomed` is fast.
    if name in ("Interpreter", "Result", "load"):
        from . import interpret

        return getattr(interpret, name)
    raise AttributeError(f"module 'unibiomed' has no attribute '{name}'")
