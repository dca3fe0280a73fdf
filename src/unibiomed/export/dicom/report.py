"""Findings as a DICOM Structured Report: TID 1500, Measurement Report, of PS3.16."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from .codes import PRIVATE_SCHEME, CodedLabel, code_label
from .content import Algorithm, Contents, Measurement, Segment
from .saving import save_datasets
from .segmentation import WrittenSegmentation
from .source import DicomSource
from .toolkit import SERIES_NUMBERS, coding_schemes, device_uid, serial_number, writing

if TYPE_CHECKING:
    from highdicom.sr import ContainerContentItem, ContentItem, FindingSite, SourceImageForSegmentation

__all__ = ["WrittenReport", "make_report", "write_report"]

_QUANTITIES = {
    "volume": (Code("118565006", "SCT", "Volume"), Code("mm3", "UCUM", "cubic millimeter")),
    "area": (Code("42798000", "SCT", "Area"), Code("mm2", "UCUM", "square millimeter")),
    "long axis": (Code("103339001", "SCT", "Long axis"), Code("mm", "UCUM", "millimeter")),
    "short axis": (Code("103340004", "SCT", "Short axis"), Code("mm", "UCUM", "millimeter")),
}
_CERTAINTY = (Code("111012", "DCM", "Certainty of Finding"), Code("%", "UCUM", "percent"))
_COUNTED_VOXELS = Code("126030", "DCM", "Sum of segmented voxel method for volume")
_PRESENT = Code("52101004", "SCT", "Present")
_ABSENT = Code("272519000", "SCT", "Absent")
_NOT_DONE = Code("385660001", "SCT", "Not done")
_TITLE = Code("126000", "DCM", "Imaging Measurement Report")
_PROCEDURE = Code("363679005", "SCT", "Imaging procedure")
_COMMENT = Code("121106", "DCM", "Comment")
_QUALITATIVE = Code("C0034375", "UMLS", "Qualitative Evaluations")
_MEASUREMENTS = Code("126010", "DCM", "Imaging Measurements")
_LIBRARY = Code("111028", "DCM", "Image Library")
_LIBRARY_GROUP = Code("126200", "DCM", "Image Library Group")
_SOURCE = Code("260753009", "SCT", "Source")


@dataclass(frozen=True, eq=False)
class WrittenReport:
    """An SR and notes on it."""

    dataset: Dataset = field(repr=False)
    """The SR."""

    notes: tuple[str, ...] = ()
    """What the user should know, such as labels without a standard code."""


def write_report(
    path: str | os.PathLike[str],
    source: DicomSource,
    contents: Contents,
    segmentation: WrittenSegmentation | None = None,
) -> WrittenReport:
    """Write findings as a DICOM SR.

    Parameters
    ----------
    path : path
        The file to write; its folder has to be there.
    source : DicomSource
        The images that were interpreted.
    contents : Contents
        What the report says: a measurement group for each segment, and what was looked for.
    segmentation : WrittenSegmentation, optional
        Made of the segments of the contents, in their order; needed where there are any.

    Returns
    -------
    WrittenReport

    Raises
    ------
    InputError
        highdicom is not installed, or the header of the source does not allow an SR.
    OutputError
        The file cannot be written.
    """
    written = make_report(source, contents, segmentation)
    save_datasets({Path(path): written.dataset})
    return written


def make_report(
    source: DicomSource, contents: Contents, segmentation: WrittenSegmentation | None = None
) -> WrittenReport:
    """Make a DICOM SR; parameters, result and errors are those of `write_report`."""
    assert not contents.segments or segmentation is not None
    coded = [code_label(segment.label, segment.side) for segment in contents.segments]
    others = [code_label(target.label) for target in contents.looked_for]
    with writing(source.name, "SR"):
        from highdicom.sr import ComprehensiveSR

        root = _root(source, contents, coded, others, segmentation)
        evidence = [*source.datasets, *([segmentation.dataset] if contents.segments and segmentation else [])]
        dataset: Dataset = ComprehensiveSR(
            evidence=evidence,
            content=root,
            series_instance_uid=generate_uid(),
            series_number=SERIES_NUMBERS["SR"],
            sop_instance_uid=generate_uid(),
            instance_number=1,
            manufacturer="unibiomed",
            manufacturer_model_name=contents.algorithm.name[:64],
            software_versions=contents.algorithm.version[:64],
            device_serial_number=serial_number(contents.algorithm),
            series_description="Findings (report)",
            specific_character_set="ISO_IR 192",
            is_complete=True,
        )
        if any(one.type.scheme_designator == PRIVATE_SCHEME for one in (*coded, *others)):
            dataset.CodingSchemeIdentificationSequence = coding_schemes()
    notes = tuple(dict.fromkeys(one.note for one in (*coded, *others) if one.note))
    return WrittenReport(dataset, notes)


def _root(
    source: DicomSource,
    contents: Contents,
    coded: Sequence[CodedLabel],
    others: Sequence[CodedLabel],
    segmentation: WrittenSegmentation | None,
) -> ContainerContentItem:
    """The content tree."""
    from highdicom.sr import CodeContentItem, CodedConcept, ContainerContentItem, ContentSequence
    from highdicom.sr import LanguageOfContentItemAndDescendants as Language

    root = ContainerContentItem(name=_TITLE, template_id="1500")
    root.ContentSequence = ContentSequence()
    root.ContentSequence.extend(Language(CodedConcept("en-US", "RFC5646", "English (United States)")))
    root.ContentSequence.extend(_observer(contents.algorithm))
    root.ContentSequence.append(
        CodeContentItem(
            name=Code("121058", "DCM", "Procedure reported"), value=_PROCEDURE, relationship_type="HAS CONCEPT MOD"
        )
    )
    root.ContentSequence.append(_library(source))
    groups: list[Any] = []
    for number, (segment, codes) in enumerate(zip(contents.segments, coded, strict=True), start=1):
        assert segmentation is not None
        groups.append(_group(source, segment, codes, contents.algorithm, segmentation, number))
    if groups:
        root.ContentSequence.append(_container(_MEASUREMENTS, [item for group in groups for item in group]))
    evaluations = _evaluations(contents, others)
    if evaluations:
        root.ContentSequence.append(_container(_QUALITATIVE, evaluations))
    return root


def _observer(algorithm: Algorithm) -> Any:
    from highdicom.sr import CodedConcept, DeviceObserverIdentifyingAttributes, ObservationContext, ObserverContext

    device = DeviceObserverIdentifyingAttributes(
        uid=device_uid(algorithm),
        name=algorithm.name,
        manufacturer_name="unibiomed",
        model_name=algorithm.name,
        serial_number=serial_number(algorithm),
    )
    context = ObserverContext(
        observer_type=CodedConcept("121007", "DCM", "Device"), observer_identifying_attributes=device
    )
    return ObservationContext(observer_device_context=context)


def _container(name: Code, items: Sequence[Any]) -> ContainerContentItem:
    from highdicom.sr import ContainerContentItem, ContentSequence

    container = ContainerContentItem(name=name, relationship_type="CONTAINS")
    container.ContentSequence = ContentSequence(items)
    return container


def _library(source: DicomSource) -> ContainerContentItem:
    """The images that were interpreted (TID 1600)."""
    from highdicom.sr import ImageContentItem

    images = [
        ImageContentItem(
            name=_SOURCE,
            referenced_sop_class_uid=dataset.SOPClassUID,
            referenced_sop_instance_uid=dataset.SOPInstanceUID,
            referenced_frame_numbers=None if source.frame is None else source.frame + 1,
            relationship_type="CONTAINS",
        )
        for dataset in source.datasets
    ]
    return _container(_LIBRARY, [_container(_LIBRARY_GROUP, images)])


def _group(
    source: DicomSource,
    segment: Segment,
    codes: CodedLabel,
    algorithm: Algorithm,
    segmentation: WrittenSegmentation,
    number: int,
) -> Any:
    """Measurement group of a segment: TID 1410 of one frame, TID 1411 of several."""
    from highdicom.sr import (
        PlanarROIMeasurementsAndQualitativeEvaluations,
        ReferencedSegment,
        ReferencedSegmentationFrame,
        TrackingIdentifier,
        VolumetricROIMeasurementsAndQualitativeEvaluations,
    )

    images = _images(source, segmentation.source_frames[number - 1])
    seg = segmentation.dataset
    common: dict[str, Any] = {
        "tracking_identifier": TrackingIdentifier(segment.tracking_uid, segment.tracking_id or segment.label),
        "finding_type": codes.type,
        "finding_category": codes.category,
        "finding_sites": _sites(codes),
        "algorithm_id": _algorithm(algorithm),
        "measurements": _measurements(segment.measurements, segment.probability),
    }
    if segment.mask.ndim == 2:
        frame = ReferencedSegmentationFrame(
            seg.SOPClassUID, seg.SOPInstanceUID, _frame_of(seg, number), number, images[0]
        )
        # Both numbers together are not valid (PS3.3 10.3). The frame says it all, but not that of a label map.
        labelmap = seg.SegmentationType == "LABELMAP"
        del frame[0].ReferencedSOPSequence[0]["ReferencedFrameNumber" if labelmap else "ReferencedSegmentNumber"]
        group: Any = PlanarROIMeasurementsAndQualitativeEvaluations(referenced_segment=frame, **common)
    else:
        whole = ReferencedSegment(seg.SOPClassUID, seg.SOPInstanceUID, number, source_images=images)
        group = VolumetricROIMeasurementsAndQualitativeEvaluations(referenced_segment=whole, **common)
    group[0].ContentSequence.extend(_text(_COMMENT, sentence) for sentence in segment.sentences)
    return group


def _images(source: DicomSource, frames: Sequence[int]) -> list[SourceImageForSegmentation]:
    """References to the images that hold some frames; to a multi-frame image there is one."""
    from highdicom.sr import SourceImageForSegmentation

    found: dict[tuple[str, str], list[int]] = {}
    for frame in frames:
        sop_class, instance, number = source.reference(frame)
        found.setdefault((sop_class, instance), []).extend([] if number is None else [number])
    return [SourceImageForSegmentation(*image, numbers or None) for image, numbers in found.items()]


def _sites(codes: CodedLabel) -> list[FindingSite] | None:
    from highdicom.sr import FindingSite

    return None if codes.site is None else [FindingSite(codes.site, laterality=codes.side)]


def _algorithm(algorithm: Algorithm) -> Any:
    from highdicom.sr import AlgorithmIdentification

    return AlgorithmIdentification(algorithm.name, algorithm.version)


def _measurements(measured: Sequence[Measurement], probability: float | None) -> list[Any] | None:
    from highdicom.sr import Measurement as Item

    items = [
        Item(
            name=_QUANTITIES[one.quantity][0],
            value=_rounded(one.value),
            unit=_QUANTITIES[one.quantity][1],
            method=_COUNTED_VOXELS if one.quantity == "volume" else None,
        )
        for one in measured
    ]
    if probability is not None:
        items.append(Item(name=_CERTAINTY[0], value=_rounded(100 * probability), unit=_CERTAINTY[1]))
    return items or None


def _rounded(value: float) -> float:
    """Six digits, more than any mask is worth: a decimal string of DICOM has at most 16 characters."""
    return float(f"{value:.6g}")


def _frame_of(seg: Dataset, number: int) -> int:
    """Frame of a SEG of one source frame that holds a segment, from 1."""
    for position, group in enumerate(seg.PerFrameFunctionalGroupsSequence, start=1):
        found = group.get("SegmentIdentificationSequence")
        if found and found[0].ReferencedSegmentNumber == number:
            return position
    # A single segment may be identified in the shared groups, and a label map has one frame for all segments.
    return 1


def _evaluations(contents: Contents, others: Sequence[CodedLabel]) -> list[ContentItem]:
    """What was looked for and whether it is there, and the whole text."""
    from highdicom.sr import CodeContentItem

    items: list[ContentItem] = []
    for target, codes in zip(contents.looked_for, others, strict=True):
        value = _PRESENT if target.present else _ABSENT if target.searched else _NOT_DONE
        items.append(CodeContentItem(name=codes.type, value=value, relationship_type="CONTAINS"))
    if contents.text.strip():
        items.append(_text(_COMMENT, contents.text))
    return items


def _text(name: Code, words: str) -> ContentItem:
    from highdicom.sr import TextContentItem

    return TextContentItem(name=name, value=words.strip(), relationship_type="CONTAINS")
