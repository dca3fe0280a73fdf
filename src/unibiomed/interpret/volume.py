"""A whole volume: every slice is read, and what was found on slices becomes findings of the volume."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import unibiomed
from unibiomed.errors import InputError
from unibiomed.findings import SearchedTarget
from unibiomed.findings.volume import VolumeFinding, VolumeGrid, VolumeResult
from unibiomed.images import MedicalImage, Volume, check_modality
from unibiomed.images.pixels import Window
from unibiomed.tasks import VOLUME_TASKS, choose_task

from .asking import Asker
from .modality import Modality, find_modality, known_modality
from .outlining import MAX_QUESTIONS
from .requests import Request, resolve_request
from .volume_presence import SMOOTHING_MM, axis_weights, reflect, smooth, volume_presence
from .volume_slices import ModelReader, SliceReader, SliceReading
from .volume_store import SliceStore
from .volume_words import volume_sentences

__all__ = ["interpret_volume", "read_findings", "volume_grid", "volume_window"]

MAX_SLICES = 5000
FORMAT = "1"
"""Of what is kept of a slice."""
_LOOKS = (0.5, 0.35, 0.65)
"""Slices, as shares of the volume, of which the modality is asked until one is recognized."""


def interpret_volume(
    asker: Asker,
    volume: Volume,
    task: str | None = None,
    *,
    threshold: float,
    targets: Sequence[str] = (),
    modality: str | None = None,
    window: Window = None,
    slices: tuple[int, int] | None = None,
    allow_unknown: bool = False,
    smoothing_mm: float = SMOOTHING_MM,
    folder: Path | None = None,
    progress: bool = False,
) -> VolumeResult:
    """Answer one question about a volume.

    Parameters
    ----------
    asker : Asker
    volume : Volume
    task : str, optional
        One of `unibiomed.tasks.VOLUME_TASKS`; when left out, ``segment`` if there are targets, else ``recognize``.
    threshold : float
        Presence from which a target is on a slice, and in the volume; in [0, 1].
    targets : sequence of str
        For ``segment``.
    modality : str, optional
        When the file does not say.
    window : str or (float, float), optional
        See `volume_window`.
    slices : tuple of int, optional
        First slice, and the one after the last, that are read; all when left out.
    allow_unknown : bool
        Search targets that are not in the model's vocabulary.
    smoothing_mm : float
        Standard deviation, in mm, of the Gaussian that presence and mask logits are averaged with along the axis; 0 for
        slices alone.
    folder : Path, optional
        Where finished slices are kept until the result is written; in memory when left out.
    progress : bool
        Show a progress bar.

    Returns
    -------
    VolumeResult

    Raises
    ------
    InputError
        The task, modality, window or slices do not fit.
    ModelError
        The model's values are not finite.
    OutputError
        The folder cannot be written.
    """
    started = time.perf_counter()
    indices = _chosen(volume, slices)
    task = choose_task(task, targets, None, False).name
    if task not in VOLUME_TASKS:
        raise InputError(f"task '{task}' is about one picture: choose a slice, or one of {', '.join(VOLUME_TASKS)}")
    if len(targets) > MAX_QUESTIONS:
        raise InputError(f"{len(targets)} targets are too many at once: ask for at most {MAX_QUESTIONS}")
    shown = volume_window(volume, modality or volume.modality, window)
    known = _modality(asker, volume, modality, shown, indices)
    notes = [*([known.note] if known.note else []), *volume.details.get("notes", ())]
    if targets and task != "segment":
        notes.append(f"targets have no effect on the task '{task}'; they belong to 'segment'")
    if task == "segment":
        requests = [resolve_request(t, asker.vocabulary, known.name, allow_unknown=allow_unknown) for t in targets]
        notes += [note for request in requests for note in request.notes]
    else:
        sought = asker.vocabulary.sought(known.name)
        if not sought:
            raise InputError(
                f"task '{task}' needs a modality and a model that names its abnormal targets: give the modality with "
                "--modality, or ask for targets"
            )
        requests = [Request(name, (name,)) for name in sought]
    names = list(dict.fromkeys(name for request in requests for name in request.names))
    grid = volume_grid(volume)
    blank: list[int] = []

    def slice_of(index: int) -> MedicalImage:
        image = volume.slice_image(index, shown)
        blank.extend([index] if any("hardly anything can be seen" in note for note in image.notes) else [])
        return image

    reader = ModelReader(asker, names, known.name)
    read = read_findings(
        reader,
        slice_of,
        indices,
        grid,
        names,
        threshold=threshold,
        weights=axis_weights(grid.spacing[0] if grid.sizes_known else None, smoothing_mm),
        store=SliceStore(folder),
        progress=progress,
    )
    if blank:
        notes.append(f"{len(set(blank))} of {len(indices)} slices show nearly one value: nothing can be found on them")
    by_name = dict(zip(names, read, strict=True))
    findings = [one for request in requests for one in _requested(request, by_name, grid)]
    searched = sorted((SearchedTarget(n, f.presence) for n, f in by_name.items()), key=lambda one: -(one.score or 0))
    if task != "segment":
        findings = sorted((one for one in findings if one.present), key=lambda one: -(one.presence or 0.0))
    return VolumeResult(
        task=task,
        sentences=volume_sentences(task, findings, grid),
        findings=tuple(findings),
        searched=tuple(searched),
        notes=tuple(dict.fromkeys(notes)),
        grid=grid,
        provenance={
            "software": f"unibiomed {unibiomed.__version__}",
            "model": asker.name,
            "model_digest": reader.model_digest,
            "modality": known.name,
            "modality_source": known.source,
            "window": _window_words(volume, shown),
            "slices_read": [indices.start, indices.stop],
            "presence_threshold": threshold,
            "smoothing_mm": smoothing_mm,
            "format": volume.details.get("format"),
            "orientation": volume.grid.orientation,
            "voxels_sha256": voxel_digest(volume),
        },
        seconds=time.perf_counter() - started,
    )


def read_findings(
    reader: SliceReader,
    slice_of: Callable[[int], MedicalImage],
    indices: range,
    grid: VolumeGrid,
    names: Sequence[str],
    *,
    threshold: float,
    weights: np.ndarray,
    store: SliceStore,
    progress: bool = False,
) -> list[VolumeFinding]:
    """Read slices and put what is on them together.

    Parameters
    ----------
    reader : SliceReader
        Of the targets `names`.
    slice_of : callable
        Gives the picture of a slice.
    indices : range
        The slices that are read.
    grid : VolumeGrid
        Of the whole volume.
    names : sequence of str
        Targets; the labels of the findings.
    threshold : float
        Presence from which a target is on a slice and in the volume.
    weights : numpy.ndarray
        Of neighbouring slices, see `axis_weights`.
    store : SliceStore
        Slices that it holds are not read again.
    progress : bool
        Show a progress bar.

    Returns
    -------
    list of VolumeFinding
        One for each target.
    """
    if not names:
        return []
    table = _Slices(reader, slice_of, indices, len(names), threshold, weights, store)
    table.read(progress)
    smoothed = smooth(table.presence, weights)
    whole = volume_presence(smoothed)
    findings = []
    for number, name in enumerate(names):
        mask = np.zeros(grid.shape, bool)
        if whole[number] >= threshold:
            for position, index in enumerate(indices):
                if smoothed[position, number] >= threshold:
                    margin = table.margin(position, number)
                    mask[index] = reader.resize(margin, grid.shape[1:]) > 0
        along: list[float | None] = [None] * grid.shape[0]
        along[indices.start : indices.stop] = [round(float(p), 6) for p in smoothed[:, number]]
        findings.append(
            VolumeFinding.from_mask(name, mask, grid, target=name, presence=float(whole[number]), slice_presence=along)
        )
    return findings


@dataclass
class _Slices:
    """Presence and margins of the slices that are read, in their order."""

    reader: SliceReader
    slice_of: Callable[[int], MedicalImage]
    indices: range
    targets: int
    threshold: float
    weights: np.ndarray
    store: SliceStore
    presence: np.ndarray = field(init=False)
    keys: list[str] = field(init=False)

    def read(self, progress: bool) -> None:
        """Read all slices that are not kept, and keep them."""
        count, reach = len(self.indices), len(self.weights) // 2
        self.presence = np.zeros((count, self.targets), np.float32)
        self.keys = [""] * count
        waiting: deque[tuple[int, SliceReading]] = deque()
        with tqdm(total=count, desc="reading slices", unit="slice", disable=not progress) as bar:
            for first in range(0, count, self.reader.batch):
                block = range(first, min(first + self.reader.batch, count))
                waiting.extend(self._read_block(block))
                known = block.stop
                # a mask is decoded once the presence of all neighbours is known
                while waiting and (waiting[0][0] + reach < known or known == count):
                    self._finish(*waiting.popleft())
                bar.update(len(block))

    def margin(self, position: int, target: int) -> np.ndarray:
        """(side, side) margin, averaged with those neighbours on which the mask was decoded."""
        count, reach = len(self.indices), len(self.weights) // 2
        total: np.ndarray | None = None
        used = 0.0
        for step, weight in zip(range(-reach, reach + 1), self.weights, strict=True):
            at = reflect(position + step, count)
            one = self.store.margin(self.indices[at], self.keys[at], target)
            if one is not None:
                total = weight * one if total is None else total + weight * one
                used += weight
        assert total is not None, "the mask of a slice that shows a target was decoded"
        return total / used

    def _read_block(self, block: range) -> Iterable[tuple[int, SliceReading]]:
        fresh: list[tuple[int, MedicalImage]] = []
        for position in block:
            image = self.slice_of(self.indices[position])
            self.keys[position] = self._key(image)
            held = self.store.presence(self.indices[position], self.keys[position])
            if held is not None and held.shape == (self.targets,):
                self.presence[position] = held
            else:
                fresh.append((position, image))
        if not fresh:
            return
        readings = self.reader.read([image for _, image in fresh])
        for (position, _), reading in zip(fresh, readings, strict=True):
            self.presence[position] = reading.presence
            yield position, reading

    def _finish(self, position: int, reading: SliceReading) -> None:
        """Decode the masks of the targets that are on a slice, and keep the slice."""
        count, reach = len(self.indices), len(self.weights) // 2
        near = [reflect(position + step, count) for step in range(-reach, reach + 1)]
        smoothed = smooth(self.presence[near], self.weights)[reach]
        needed = [int(k) for k in np.flatnonzero(smoothed >= self.threshold)]
        margins = dict(zip(needed, reading.decode(needed), strict=True)) if needed else {}
        self.store.put(self.indices[position], self.keys[position], reading.presence, margins)

    def _key(self, image: MedicalImage) -> str:
        found = hashlib.sha256(np.ascontiguousarray(image.pixels).tobytes())
        settings = (FORMAT, self.reader.digest, self.threshold, self.weights.tolist(), list(image.pixels.shape))
        found.update(repr(settings).encode())
        return found.hexdigest()[:16]


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


def _chosen(volume: Volume, slices: tuple[int, int] | None) -> range:
    count = len(volume)
    first, end = (0, count) if slices is None else slices
    if not 0 <= first < end <= count:
        raise InputError(f"slices {first}:{end} are not in this volume: choose within 0:{count}")
    if end - first > MAX_SLICES:
        raise InputError(f"the volume has {count} slices: choose at most {MAX_SLICES} with --slices FIRST:END")
    return range(first, end)


def _modality(asker: Asker, volume: Volume, given: str | None, shown: Window, indices: range) -> Modality:
    known = known_modality(None if given is None else check_modality(given), volume.modality)
    if known.name is not None or not asker.vocabulary:
        return known
    for share in _LOOKS:
        known = find_modality(asker, asker.encode(volume.slice_image(indices[int(share * len(indices))], shown)))
        if known.name is not None:
            break
    return known


def _requested(request: Request, read: dict[str, VolumeFinding], grid: VolumeGrid) -> list[VolumeFinding]:
    """Findings of a request: of several meanings those that are present, or the likeliest of them."""
    found = [read[name] for name in request.names]
    if not found:
        return [VolumeFinding(request.words, presence=request.score, searched=False)]
    present = sorted((one for one in found if one.present), key=lambda one: -(one.presence or 0.0))
    if len(found) > 1 and present:
        return present
    return [replace(max(found, key=lambda one: one.presence or 0.0), label=request.words)]


def _window_words(volume: Volume, shown: Window) -> Any:
    if shown is not None:
        return shown if isinstance(shown, str) else [float(v) for v in shown]
    header = volume.details.get("header_window")
    return "as stored" if header is None else [float(header[0]), float(header[1])]
