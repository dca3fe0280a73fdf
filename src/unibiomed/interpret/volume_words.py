"""Sentences about findings in a volume, written from their measurements."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unibiomed.export.formatting import percent
from unibiomed.findings.volume import Instance, VolumeFinding, VolumeGrid, VolumeSentence

__all__ = ["place_words", "volume_sentences"]

NO_FINDINGS = "No findings."
MAX_LISTED = 5
"""Instances of a finding that a report lists, the largest first."""
CENTRAL = 0.1
"""Share of half the volume's extent up to which a centroid is on neither side."""
OUTER = 1 / 3
"""The same for front and back, head and feet."""
_WAYS = (("left", "right", CENTRAL), ("posterior", "anterior", OUTER), ("superior", "inferior", OUTER))


def volume_sentences(task: str, findings: Sequence[VolumeFinding], grid: VolumeGrid) -> tuple[VolumeSentence, ...]:
    """Put findings in words.

    Parameters
    ----------
    task : str
        ``report`` also lists the instances of findings that have several.
    findings : sequence of VolumeFinding
    grid : VolumeGrid

    Returns
    -------
    tuple of VolumeSentence
        One for each finding, in their order; for ``recognize`` and ``report``, "No findings." where there are none.
    """
    sentences: list[VolumeSentence] = []
    for index, finding in enumerate(findings):
        sentences.append(VolumeSentence(_sentence(finding, grid), (index,), finding.present))
        if task == "report" and finding.present and len(finding.instances) > 1:
            sentences += [
                VolumeSentence(_instance_sentence(finding, one, grid), (index,), True)
                for one in finding.instances[:MAX_LISTED]
            ]
    if not findings and task != "segment":
        return (VolumeSentence(NO_FINDINGS),)
    return tuple(sentences)


def place_words(centroid: Sequence[float] | None, grid: VolumeGrid) -> str:
    """Where a position lies in the imaged volume, such as ``"left posterior"``.

    Parameters
    ----------
    centroid : sequence of float or None
        In mm (LPS).
    grid : VolumeGrid

    Returns
    -------
    str
        ``"central"`` where it is in the middle; empty where the orientation or the voxel sizes are not known.
    """
    if centroid is None or not (grid.orientation_known and grid.sizes_known):
        return ""
    middle = grid.to_lps([(n - 1) / 2 for n in grid.shape])
    half = (np.abs(grid.affine[:3, :3]) @ np.array(grid.shape)) / 2
    words = []
    for (high, low, limit), at, center, extent in zip(_WAYS, centroid, middle, half, strict=True):
        relative = (at - center) / extent
        words += [high] if relative > limit else [low] if relative < -limit else []
    return " ".join(words) or "central"


def _sentence(finding: VolumeFinding, grid: VolumeGrid) -> str:
    label = finding.label[:1].upper() + finding.label[1:]
    if not finding.searched:
        return f"{label}: not searched."
    if not finding.present or finding.slice_range is None:
        return f"{label}: not found (presence {percent(finding.presence)})."
    one = finding.instance_count == 1
    count = "one region" if one else f"{finding.instance_count} regions"
    volume = "" if finding.volume_mm3 is None else f" of {_cubic(finding.volume_mm3)}{'' if one else ' in total'}"
    parts = [f"{label}: {count}{volume} on {_slices(finding.slice_range)} (key slice {finding.key_slice})"]
    largest = finding.instances[0]
    place = place_words(largest.centroid_lps, grid)
    if place:
        subject = "in the" if one else f"the largest, {_cubic(largest.volume_mm3 or 0.0)}, in the"
        parts.append(f"{subject} {place} part of the volume")
    parts += _diameters(finding.longest_diameter_mm, finding.perpendicular_diameter_mm, finding.diameter_slice, grid)
    parts.append(f"presence {percent(finding.presence)}")
    return "; ".join(parts) + "."


def _instance_sentence(finding: VolumeFinding, instance: Instance, grid: VolumeGrid) -> str:
    label = finding.label[:1].upper() + finding.label[1:]
    volume = "" if instance.volume_mm3 is None else f": {_cubic(instance.volume_mm3)}"
    parts = [f"{label}, region {instance.number}{volume} on {_slices(instance.slice_range)}"]
    if place := place_words(instance.centroid_lps, grid):
        parts.append(f"in the {place} part of the volume")
    parts += _diameters(instance.longest_diameter_mm, instance.perpendicular_diameter_mm, instance.diameter_slice, grid)
    return "; ".join(parts) + "."


def _diameters(longest: float | None, across: float | None, where: int | None, grid: VolumeGrid) -> list[str]:
    if longest is None or across is None:
        return []
    return [f"longest {grid.plane} diameter {longest:.1f} mm, perpendicular {across:.1f} mm (slice {where})"]


def _slices(ends: tuple[int, int]) -> str:
    return f"slice {ends[0]}" if ends[0] == ends[1] else f"slices {ends[0]} to {ends[1]}"


def _cubic(volume: float) -> str:
    return f"{volume:,.0f} mm³" if volume >= 100 else f"{volume:.1f} mm³"
