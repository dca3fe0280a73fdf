"""A whole volume: every slice is read, and what was found on slices becomes findings of the volume."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import unibiomed
from unibiomed.errors import InputError
from unibiomed.findings import SearchedTarget
from unibiomed.findings.volume import VolumeFinding, VolumeGrid, VolumeResult
from unibiomed.images import MedicalImage, Volume, check_modality
from unibiomed.images.notes import blank_note
from unibiomed.images.pixels import Window
from unibiomed.tasks import VOLUME_TASKS, choose_task

from .asking import Asker
from .modality import Modality, find_modality, known_modality
from .outlining import MAX_QUESTIONS
from .requests import Request, resolve_request
from .volume_findings import named_once, weigh_with_words
from .volume_presence import SMOOTHING_MM, axis_weights
from .volume_reading import read_findings
from .volume_slices import ModelReader
from .volume_store import SliceStore
from .volume_view import volume_grid, volume_window, voxel_digest, window_words
from .volume_words import volume_sentences

__all__ = ["interpret_volume"]

MAX_SLICES = 5000
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
        blank.extend([index] if blank_note(image.pixels) is not None else [])
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
    searched = sorted((SearchedTarget(n, f.presence) for n, f in by_name.items()), key=lambda one: -(one.presence or 0))
    if task != "segment":
        found = sorted((one for one in findings if one.present), key=lambda one: -(one.presence or 0.0))
        findings, names_left_out = named_once(found)
        # who wants to see every mask is not told that there is nothing
        if threshold > 0 and asker.model.config.scores_trained:
            findings, denied = weigh_with_words(asker, findings, slice_of, known.name)
            names_left_out += denied
        notes += names_left_out
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
            "window": window_words(volume, shown),
            "slices_read": [indices.start, indices.stop],
            "presence_threshold": threshold,
            "smoothing_mm": smoothing_mm,
            "format": volume.details.get("format"),
            "orientation": volume.grid.orientation,
            "voxels_sha256": voxel_digest(volume),
        },
        seconds=time.perf_counter() - started,
    )


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
