"""The main job: ask questions about an image, get findings in words and pixels."""

from __future__ import annotations

from .interpreter import Interpreter, load
from .result import Result

__all__ = ["Interpreter", "Result", "load"]
