"""A result about a volume as files: JSON, masks as NIfTI, pictures of key slices and a table of measurements."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from unibiomed.errors import OutputError
from unibiomed.findings import Finding, Interpretation
from unibiomed.findings.volume import Instance, VolumeFinding, VolumeResult
from unibiomed.images import Grid, MedicalImage

from .masks import slug, write_files
from .overlay import draw_overlay

__all__ = ["measurement_rows", "write_volume"]

MAX_PICTURES = 20
"""Pictures of key slices, at most."""
COMPRESSION = 4
COLUMNS = (
    "finding",
    "label",
    "target",
    "instance",
    "present",
    "searched",
    "presence",
    "voxels",
    "volume_mm3",
    "longest_diameter_mm",
    "perpendicular_diameter_mm",
    "diameter_slice",
    "key_slice",
    "first_slice",
    "last_slice",
    "centroid_left_mm",
    "centroid_posterior_mm",
    "centroid_superior_mm",
)


def write_volume(
    folder: str | os.PathLike[str], result: VolumeResult, grid: Grid, picture: Callable[[int], MedicalImage]
) -> dict[str, Path]:
    """Write a result, all files or none.

    Parameters
    ----------
    folder : path
        Made when it is not there; files of the same names are replaced.
    result : VolumeResult
    grid : Grid
        Of the volume, for masks in the order of its file.
    picture : callable
        Gives the picture of a slice.

    Returns
    -------
    dict of str to Path
        ``"labels"``: ``labels.nii.gz`` on the voxels of the file, 0 outside and k inside the k-th finding, where
        findings overlap the one that is listed first; ``"mask_K"`` for every present finding where any overlap:
        ``K_LABEL.nii.gz``, 0 and 1; ``"slice_S"``: ``slice_S.png``, a key slice with its findings; ``"measurements"``:
        ``measurements.csv``; ``"findings"``: ``findings.json``, `VolumeResult.to_dict` and the names of the files.

    Raises
    ------
    OutputError
        The folder or a file cannot be written.
    """
    names: dict[str, str] = {}
    contents: dict[str, bytes] = {}

    def add(key: str, name: str, content: bytes) -> None:
        names[key], contents[name] = name, content

    present = [(n, f) for n, f in enumerate(result.findings, start=1) if f.mask is not None and f.present]
    labels, overlap = _label_map(present, result.grid.shape)
    add("labels", "labels.nii.gz", _nifti(labels, grid))
    if overlap:
        for number, finding in present:
            assert finding.mask is not None
            add(f"mask_{number}", f"{number}_{slug(finding.label)}.nii.gz", _nifti(finding.mask, grid))
    for index in _key_slices([finding for _, finding in present]):
        add(f"slice_{index}", f"slice_{index:04d}.png", _picture(result, index, picture(index)))
    add("measurements", "measurements.csv", _csv(result))
    document = result.to_dict() | {
        "files": dict(names),
        "label_values": {str(number): finding.label for number, finding in present},
    }
    add("findings", "findings.json", (json.dumps(document, indent=1, allow_nan=False) + "\n").encode("ascii"))
    out = Path(folder)
    try:
        write_files(out, contents)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "not a usable path"
        raise OutputError(
            f"cannot write results to {str(out)[:200]!a}: {reason}; choose another output folder"
        ) from error
    return {key: out / name for key, name in names.items()}


def measurement_rows(result: VolumeResult) -> list[dict[str, object]]:
    """One row a finding, with an empty ``instance``, and one for each of its instances; columns as in `COLUMNS`."""
    rows = []
    for number, finding in enumerate(result.findings, start=1):
        shared = {
            "finding": number,
            "label": finding.label,
            "target": finding.target,
            "present": finding.present,
            "searched": finding.searched,
            "presence": finding.presence,
            "key_slice": finding.key_slice,
        }
        rows.append({**shared, **_measures(finding), "instance": ""})
        rows += [{**shared, **_measures(one), "instance": one.number} for one in finding.instances]
    return [{column: "" if row.get(column) is None else row[column] for column in COLUMNS} for row in rows]


def _measures(one: VolumeFinding | Instance) -> dict[str, object]:
    first, last = one.slice_range or (None, None)
    left, posterior, superior = one.centroid_lps or (None, None, None)
    return {
        "voxels": one.voxels,
        "volume_mm3": one.volume_mm3,
        "longest_diameter_mm": one.longest_diameter_mm,
        "perpendicular_diameter_mm": one.perpendicular_diameter_mm,
        "diameter_slice": one.diameter_slice,
        "first_slice": first,
        "last_slice": last,
        "centroid_left_mm": left,
        "centroid_posterior_mm": posterior,
        "centroid_superior_mm": superior,
    }


def _csv(result: VolumeResult) -> bytes:
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(measurement_rows(result))
    return text.getvalue().encode("utf-8")


def _label_map(present: Sequence[tuple[int, VolumeFinding]], shape: tuple[int, int, int]) -> tuple[np.ndarray, bool]:
    """Numbers of the findings, and whether any two overlap."""
    labels = np.zeros(shape, np.uint8 if len(present) < 256 else np.uint16)
    overlap = False
    for number, finding in present:
        assert finding.mask is not None
        for plane, mask in zip(labels, finding.mask, strict=True):
            overlap |= bool((plane[mask] != 0).any())
            plane[mask & (plane == 0)] = number
    return labels, overlap


def _nifti(values: np.ndarray, grid: Grid) -> bytes:
    """A compressed NIfTI file on the voxels of the volume's file."""
    stored = grid.to_file_order(values.view(np.uint8) if values.dtype == bool else values)
    image = nib.Nifti1Image(stored, grid.file_affine)
    image.header.set_xyzt_units("mm")
    # the time of day must not change the file
    packed: bytes = gzip.compress(image.to_bytes(), COMPRESSION, mtime=0)
    return packed


def _key_slices(present: Sequence[VolumeFinding]) -> list[int]:
    keys = [finding.key_slice for finding in present if finding.key_slice is not None]
    return list(dict.fromkeys(keys))[:MAX_PICTURES]


def _picture(result: VolumeResult, index: int, image: MedicalImage) -> bytes:
    """A slice with all findings that have pixels on it."""
    findings, texts = [], []
    for number, finding in enumerate(result.findings):
        if finding.mask is None or not finding.mask[index].any():
            continue
        presence = finding.slice_presence[index] if finding.slice_presence else None
        findings.append(Finding.from_mask(finding.label, finding.mask[index], presence=presence, spacing=image.spacing))
        texts += [one.text for one in result.sentences if one.findings == (number,)][:1]
    shown = Interpretation(
        task=result.task,
        question=f"Slice {index} of 0 to {result.grid.shape[0] - 1}, {result.grid.plane}",
        text=" ".join(texts),
        raw_text="",
        findings=tuple(findings),
        height=image.height,
        width=image.width,
        spacing=image.spacing,
        model=str(result.provenance.get("model", "")),
    )
    buffer = io.BytesIO()
    draw_overlay(image.pixels, shown).save(buffer, format="PNG")
    return buffer.getvalue()
