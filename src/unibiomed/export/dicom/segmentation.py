"""Masks as a DICOM Segmentation (SEG) that refers to the images they were made of."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless, generate_uid

from unibiomed.errors import InputError
from unibiomed.images.planes import VoxelGrid, match_frames

from .codes import PRIVATE_SCHEME, CodedLabel, code_label
from .content import Algorithm, Segment
from .saving import save_datasets
from .source import DicomSource, one_frame
from .toolkit import AI, SERIES_NUMBERS, coding_schemes, serial_number, writing

if TYPE_CHECKING:
    from highdicom.seg import SegmentDescription

__all__ = ["SegmentationKind", "WrittenSegmentation", "make_segmentation", "write_segmentation"]

SegmentationKind = Literal["BINARY", "LABELMAP", "FRACTIONAL"]
MAX_SEGMENTS = 65_535


@dataclass(frozen=True, eq=False)
class WrittenSegmentation:
    """A SEG and what a report needs to refer to its segments."""

    dataset: Dataset = field(repr=False)
    """The SEG."""

    source_frames: tuple[tuple[int, ...], ...]
    """For each segment, the frames of the source, from 0, that it has pixels on."""

    notes: tuple[str, ...] = ()
    """What the user should know, such as labels without a standard code."""


def write_segmentation(
    path: str | os.PathLike[str],
    source: DicomSource,
    segments: Sequence[Segment],
    *,
    grid: VoxelGrid | None = None,
    kind: SegmentationKind = "BINARY",
    algorithm: Algorithm | None = None,
) -> WrittenSegmentation:
    """Write masks as a DICOM SEG.

    Parameters
    ----------
    path : path
        The file to write; its folder has to be there.
    source : DicomSource
        The images that the masks were made of.
    segments : sequence of Segment
        At least one. They may overlap, unless `kind` is LABELMAP.
    grid : VoxelGrid, optional
        That of the volume, such as `Volume.grid`, whose order the masks are in; needed for masks of three dimensions.
    kind : str
        ``"BINARY"``; ``"LABELMAP"``, of which fewer viewers know; or ``"FRACTIONAL"``: the probability of each pixel,
        or that of the whole finding where its segment gives no other.
    algorithm : Algorithm, optional
        What made the masks.

    Returns
    -------
    WrittenSegmentation

    Raises
    ------
    InputError
        highdicom is not installed, masks do not fit the source or overlap in a LABELMAP, or the header of the source
        does not allow a SEG.
    OutputError
        The file cannot be written.
    """
    written = make_segmentation(source, segments, grid=grid, kind=kind, algorithm=algorithm)
    save_datasets({Path(path): written.dataset})
    return written


def make_segmentation(
    source: DicomSource,
    segments: Sequence[Segment],
    *,
    grid: VoxelGrid | None = None,
    kind: SegmentationKind = "BINARY",
    algorithm: Algorithm | None = None,
) -> WrittenSegmentation:
    """Make a DICOM SEG; parameters, result and errors are those of `write_segmentation`."""
    if not 0 < len(segments) <= MAX_SEGMENTS:
        raise InputError(f"a DICOM SEG holds 1 to {MAX_SEGMENTS} segments, not {len(segments)}")
    if kind not in ("BINARY", "LABELMAP", "FRACTIONAL"):
        raise InputError(f"a DICOM SEG is BINARY, LABELMAP or FRACTIONAL, not {kind}")
    made_by = algorithm or Algorithm()
    to_frames = _turner(source, segments, grid)
    labels, frames = _label_map([segment.mask for segment in segments], to_frames)
    if kind == "LABELMAP" and labels is None:
        raise InputError(f"{source.name}: findings overlap, which a LABELMAP cannot hold: write BINARY or FRACTIONAL")
    # An empty SEG still has a frame.
    used = sorted({frame for numbers in frames for frame in numbers}) or [_middle(source)]
    if kind == "FRACTIONAL":
        pixels = np.stack([to_frames(_fraction(segment))[used] for segment in segments], axis=-1)
    elif labels is None:
        pixels = np.stack([to_frames(segment.mask)[used] for segment in segments], axis=-1)
    else:
        pixels = labels[used]
    coded = [code_label(segment.label, segment.side) for segment in segments]
    with writing(source.name, "SEG"):
        dataset = _build(source, used, pixels, kind, _describe(segments, coded, made_by), made_by)
        if any(one.type.scheme_designator == PRIVATE_SCHEME for one in coded):
            dataset.CodingSchemeIdentificationSequence = coding_schemes()
    notes = tuple(dict.fromkeys(one.note for one in coded if one.note))
    return WrittenSegmentation(dataset, tuple(frames), notes)


def _middle(source: DicomSource) -> int:
    return source.frames // 2 if source.frame is None else source.frame


def _turner(
    source: DicomSource, segments: Sequence[Segment], grid: VoxelGrid | None
) -> Callable[[np.ndarray], np.ndarray]:
    """Check the masks, and find out how an array like theirs becomes one of (frames, rows, columns) of the source."""
    shapes = {segment.mask.shape for segment in segments}
    if all(len(shape) == 2 for shape in shapes):
        if source.frames > 1 and source.frame is None:
            raise InputError(f"{source.name}: the image has several frames: say which one the mask is of")
        if shapes != {source.size}:
            raise InputError(f"{source.name}: a mask has another size than the image: give the image it was made of")
        at, count = (0, 1) if source.frame is None else (source.frame, source.frames)
        return lambda array: _one_of(array, at, count)
    if any(len(shape) == 2 for shape in shapes) or grid is None:
        raise InputError(f"{source.name}: masks of a volume are all of three dimensions, and need its grid")
    if shapes != {grid.shape}:
        raise InputError(f"{source.name}: a mask has another shape than the volume: give it on its voxels")
    if source.planes is None:
        raise InputError(
            f"{source.name}: the images do not say where they lie (FrameOfReferenceUID, ImagePositionPatient, "
            "ImageOrientationPatient, PixelSpacing): give a mask of a single image"
        )
    return match_frames(grid, source.planes, source.size, source.name).to_frames


def _one_of(array: np.ndarray, at: int, count: int) -> np.ndarray:
    frames = np.zeros((count, *array.shape), dtype=array.dtype)
    frames[at] = array
    return frames


def _label_map(
    masks: Sequence[np.ndarray], to_frames: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray | None, list[tuple[int, ...]]]:
    """(frames, rows, columns) of segment numbers, None where masks overlap; and the frames that each has pixels on.

    One mask at a time is turned, so that many findings of a large volume need no more memory than one.
    """
    labels: np.ndarray | None = None
    overlap, frames = False, []
    for number, mask in enumerate(masks, start=1):
        turned = to_frames(mask)
        frames.append(tuple(int(frame) for frame in np.flatnonzero(turned.any(axis=(1, 2)))))
        if labels is None:
            labels = np.zeros(turned.shape, dtype=np.uint8 if len(masks) < 256 else np.uint16)
        overlap = overlap or bool(labels[turned].any())
        labels[turned] = number
    return None if overlap else labels, frames


def _fraction(segment: Segment) -> np.ndarray:
    """Probability of each pixel, float32, 0 outside of the mask; that of the finding where the segment has no other."""
    if segment.fraction is not None:
        return np.where(segment.mask, segment.fraction, 0).astype(np.float32)
    return segment.mask.astype(np.float32) * np.float32(1 if segment.probability is None else segment.probability)


def _describe(
    segments: Sequence[Segment], coded: Sequence[CodedLabel], algorithm: Algorithm
) -> list[SegmentDescription]:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.color import CIELabColor
    from highdicom.seg import SegmentDescription
    from highdicom.sr import CodedConcept

    described = []
    for number, (segment, codes) in enumerate(zip(segments, coded, strict=True), start=1):
        colors = () if codes.color is None else tuple(bytes.fromhex(codes.color[1:]))
        item = SegmentDescription(
            segment_number=number,
            segment_label=(segment.tracking_id or segment.label)[:64],
            segmented_property_category=codes.category,
            segmented_property_type=codes.type,
            algorithm_type="AUTOMATIC",
            algorithm_identification=AlgorithmIdentificationSequence(algorithm.name, AI, algorithm.version),
            tracking_uid=segment.tracking_uid,
            tracking_id=(segment.tracking_id or segment.label)[:64],
            anatomic_regions=None if codes.site is None or codes.site == codes.type else [codes.site],
            display_color=CIELabColor.from_rgb(*colors) if colors else None,
        )
        if codes.side is not None:
            side = [CodedConcept.from_code(codes.side)]
            if "AnatomicRegionSequence" in item:
                item.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = side
            else:
                item.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = side
        described.append(item)
    return described


def _build(
    source: DicomSource,
    used: Sequence[int],
    pixels: np.ndarray,
    kind: SegmentationKind,
    described: list[SegmentDescription],
    algorithm: Algorithm,
) -> Dataset:
    from highdicom.seg import Segmentation

    placed = source.planes is not None
    multiframe = len(source.datasets) == 1 and source.frames > 1
    if placed and multiframe:
        images = list(source.datasets)
        whole = np.zeros((source.frames, *pixels.shape[1:]), dtype=pixels.dtype)
        whole[list(used)] = pixels
        pixels = whole
    elif placed:
        images = [source.datasets[frame] for frame in used]
    else:
        if len(used) > 1:
            raise InputError(f"{source.name}: the frames do not say where they lie: write one frame at a time")
        images = [one_frame(source.datasets[0 if multiframe else used[0]])]
    dataset: Dataset = Segmentation(
        source_images=images,
        pixel_array=pixels,
        segmentation_type=kind,
        segment_descriptions=described,
        series_instance_uid=generate_uid(),
        series_number=SERIES_NUMBERS["SEG"],
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="unibiomed",
        manufacturer_model_name=algorithm.name[:64],
        software_versions=algorithm.version[:64],
        device_serial_number=serial_number(algorithm),
        content_label="FINDINGS",
        content_description="Findings of a segmentation model",
        series_description="Findings (segmentation)",
        specific_character_set="ISO_IR 192",
        omit_empty_frames=bool(pixels.any()),
    )
    if kind != "BINARY":
        # One bit a pixel is small, and bytes are mostly zeros. highdicom would leave the encoder to chance, and that of
        # GDCM ends the process at frames of an odd number of pixels.
        dataset.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    if not placed:
        # The pixels lie as those of the source, and this is all that may be known of where they lie (PS3.3 C.7.6.1).
        shared = dataset.SharedFunctionalGroupsSequence[0]
        if "PixelMeasuresSequence" in shared and not shared.PixelMeasuresSequence[0]:
            del shared.PixelMeasuresSequence
        dataset.PatientOrientation = source.datasets[0].get("PatientOrientation")
        if multiframe:
            _refer_to_frame(dataset, used[0] + 1)
    return dataset


def _refer_to_frame(dataset: Dataset, number: int) -> None:
    """Let a SEG of one source frame name that frame of the multi-frame image."""
    items: list[Any] = [dataset, *dataset.PerFrameFunctionalGroupsSequence]
    for group in items:
        for derivation in group.get("DerivationImageSequence") or []:
            for image in derivation.get("SourceImageSequence") or []:
                image.ReferencedFrameNumber = number
