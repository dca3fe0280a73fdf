"""Findings for people and other programs: pictures, mask files, JSON and a table for the terminal."""

from __future__ import annotations

from unibiomed.export.masks import holds_another, write_interpretation
from unibiomed.export.overlay import draw_overlay, paint_findings
from unibiomed.export.table import findings_table

__all__ = ["draw_overlay", "findings_table", "holds_another", "paint_findings", "write_interpretation"]
