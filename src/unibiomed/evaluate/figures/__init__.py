"""Figures of an evaluation as SVG and PNG: `draw_figures` and `draw_ablation`."""

from __future__ import annotations

from .bars import draw_ablation
from .draw import draw_figures

__all__ = ["draw_ablation", "draw_figures"]
