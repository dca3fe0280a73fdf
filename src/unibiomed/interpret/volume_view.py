"""How a volume is shown to a model, and what is known of it beside its voxels."""

from __future__ import annotations

import hashlib

import numpy as np

from unibiomed.findings.volume import VolumeGrid
from unibiomed.images import Volume
from unibiomed.images.pixels import Window

__all__ = ["volume_grid", "volume_window", "voxel_digest", "window_words"]


def volume_grid(volume: Volume) -> VolumeGrid:
    """The grid of a volume as findings have it."""
    known = bool(volume.details.get("orientation_known", False))
    grid = volume.grid
    return VolumeGrid(grid.shape, grid.spacing, grid.plane, grid.affine, grid.sizes_known, known)


def volume_window(volume: Volume, modality: str | None, window: Window) -> Window:
    """One window for all slices, so that they stay comparable.

    Parameters
    ----------
    volume : Volume
    modality : str or None
    window : str or (float, float) or None
        What the user asks for.

    Returns
    -------
    str, tuple of float or None
        What was asked for; None for the window of a DICOM series or for 8-bit values, which stay as they are; for CT
        with values of Hounsfield units the abdominal window; else the 0.5th to 99.5th percentile of the volume.
    """
    if window is not None:
        return window
    if volume.details.get("header_window") is not None or volume.values.dtype == np.uint8:
        return None
    if modality == "CT" and np.nanmin(volume.values, initial=0) < 0:
        return "abdomen"
    return volume.range_window


def voxel_digest(volume: Volume) -> str:
    """SHA-256 of the voxels in the order (slices, rows, columns), the same for any order of axes in the file."""
    found = hashlib.sha256(f"{volume.values.dtype.str} {volume.grid.shape}".encode())
    for values in volume.values:
        found.update(np.ascontiguousarray(values).tobytes())
    return found.hexdigest()


def window_words(volume: Volume, shown: Window) -> str | list[float]:
    """The window of the slices for the provenance: its name, centre and width, or ``"as stored"``."""
    if shown is not None:
        return shown if isinstance(shown, str) else [float(v) for v in shown]
    header = volume.details.get("header_window")
    return "as stored" if header is None else [float(header[0]), float(header[1])]
