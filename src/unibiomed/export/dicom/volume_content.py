"""What a SEG and an SR say of the findings in a volume."""

from __future__ import annotations

from unibiomed import __version__
from unibiomed.findings.volume import VolumeFinding, VolumeResult

from .content import Algorithm, Contents, LookedFor, Measurement, Quantity, Segment, coded_name

__all__ = ["contents_of_volume"]


def contents_of_volume(result: VolumeResult) -> Contents:
    """What a SEG and SR say of a volume.

    Parameters
    ----------
    result : VolumeResult

    Returns
    -------
    Contents
        A segment for each present finding, with its volume, longest diameter and the perpendicular of that. The other
        findings, and what was searched, are looked for.
    """
    segments: list[Segment] = []
    looked_for: dict[str, LookedFor] = {}
    for number, finding in enumerate(result.findings):
        name = coded_name(finding.label, finding.target)
        if finding.mask is None or not finding.present:
            looked_for[name.lower()] = LookedFor(name, finding.presence, False, finding.searched)
            continue
        segments.append(
            Segment(
                name,
                finding.mask,
                probability=finding.presence,
                measurements=_measurements(finding),
                sentences=tuple(one.text for one in result.sentences if number in one.findings),
                tracking_id=f"{finding.label} {number + 1}",
            )
        )
    found = {segment.label.lower() for segment in segments}
    for target in result.searched:
        if target.label.lower() not in found:
            looked_for.setdefault(target.label.lower(), LookedFor(target.label, target.presence))
    model = result.provenance.get("model", "")
    return Contents(
        tuple(segments),
        tuple(looked_for.values()),
        result.text,
        Algorithm(f"unibiomed {model}".strip(), __version__),
    )


def _measurements(finding: VolumeFinding) -> tuple[Measurement, ...]:
    values: tuple[tuple[Quantity, float | None], ...] = (
        ("volume", finding.volume_mm3),
        ("long axis", finding.longest_diameter_mm),
        ("short axis", finding.perpendicular_diameter_mm),
    )
    return tuple(Measurement(quantity, value) for quantity, value in values if value is not None)
