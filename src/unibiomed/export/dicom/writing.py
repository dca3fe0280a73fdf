"""SEG and SR of an interpretation, beside its other files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from unibiomed.errors import InputError
from unibiomed.images.planes import VoxelGrid

from .content import Contents, Segment
from .report import make_report
from .saving import save_datasets
from .segmentation import SegmentationKind, make_segmentation
from .source import DicomSource

__all__ = ["DicomOptions", "WrittenDicom", "write_dicom"]


@dataclass(frozen=True, slots=True)
class DicomOptions:
    """How findings are written as DICOM.

    Attributes
    ----------
    kind : str
        ``"BINARY"``, ``"LABELMAP"`` or ``"FRACTIONAL"``, see `write_segmentation`.
    empty_seg : bool
        Whether a SEG without any pixel is written where nothing was found; without it there is only the SR.
    """

    kind: SegmentationKind = "BINARY"
    empty_seg: bool = False


@dataclass(frozen=True, slots=True)
class WrittenDicom:
    """Files, and notes on them.

    Attributes
    ----------
    files : dict of str to Path
        ``"seg"`` and ``"sr"``; no ``"seg"`` where nothing was found.
    notes : tuple of str
    """

    files: dict[str, Path]
    notes: tuple[str, ...] = ()


def write_dicom(
    folder: str | os.PathLike[str],
    stem: str,
    source: DicomSource,
    contents: Contents,
    *,
    grid: VoxelGrid | None = None,
    options: DicomOptions | None = None,
) -> WrittenDicom:
    """Write ``STEM_seg.dcm`` and ``STEM_sr.dcm``, both or none.

    Parameters
    ----------
    folder : path
        Made when it is not there. A SEG that an earlier run left under this stem is removed where there is none now.
    stem : str
        How the file names begin.
    source : DicomSource
        The images that were interpreted.
    contents : Contents
        What was found and looked for.
    grid : VoxelGrid, optional
        That of the volume, such as `Volume.grid`, whose order the masks are in; needed for masks of three dimensions.
    options : DicomOptions, optional

    Returns
    -------
    WrittenDicom

    Raises
    ------
    InputError
        As for `write_segmentation` and `write_report`.
    OutputError
        The folder cannot be written.
    """
    chosen = options or DicomOptions()
    files = {"seg": Path(folder) / f"{stem}_seg.dcm", "sr": Path(folder) / f"{stem}_sr.dcm"}
    segments = contents.segments
    if not segments and chosen.empty_seg:
        segments = _empty(source, contents, grid)
    seg = (
        make_segmentation(source, segments, grid=grid, kind=chosen.kind, algorithm=contents.algorithm)
        if segments
        else None
    )
    report = make_report(source, contents, seg)
    objects: dict[str, Dataset] = {"sr": report.dataset} if seg is None else {"seg": seg.dataset, "sr": report.dataset}
    save_datasets({files[key]: dataset for key, dataset in objects.items()})
    if seg is None:
        files["seg"].unlink(missing_ok=True)
    notes = (*(seg.notes if seg else ()), *report.notes)
    return WrittenDicom({key: files[key] for key in objects}, tuple(dict.fromkeys(notes)))


def _empty(source: DicomSource, contents: Contents, grid: VoxelGrid | None) -> tuple[Segment, ...]:
    """A segment without pixels for each target that was looked for."""
    labels = [target.label for target in contents.looked_for if target.searched and not target.present]
    if not labels:
        raise InputError(
            f"{source.name}: it is not known what was looked for, so that there is no empty SEG: leave it out"
        )
    shape = source.size if grid is None else grid.shape
    # a view of one value: nothing of the size of the volume is made for each target
    nothing = np.broadcast_to(np.False_, shape)
    return tuple(Segment(label, nothing) for label in labels)
