"""Output of findings: overlays, mask files, JSON, and a table for the terminal."""

from __future__ import annotations

from unibiomed.export.masks import holds_other_image, write_interpretation
from unibiomed.export.overlay import draw_overlay, paint_findings
from unibiomed.export.table import findings_table

__all__ = ["draw_overlay", "findings_table", "holds_other_image", "paint_findings", "write_interpretation"]
