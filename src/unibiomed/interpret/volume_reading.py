"""Slices read one after the other, and put together to findings of the volume.

Needs no torch: a `SliceReader` says what is on a slice.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from tqdm import tqdm

from unibiomed.findings.volume import VolumeFinding, VolumeGrid
from unibiomed.images import MedicalImage

from .volume_presence import reflect, smooth, volume_presence
from .volume_store import SliceStore

__all__ = ["SliceReader", "SliceReading", "read_findings"]

FORMAT = "1"
"""Of what is kept of a slice."""


@dataclass(frozen=True, slots=True)
class SliceReading:
    """What was read of one slice.

    Attributes
    ----------
    presence : numpy.ndarray
        (targets,) probability that each target is on the slice.
    decode : callable
        Takes indices of targets; gives their margins, (indices, side, side) float32 on the model's own square: logits
        of the mask minus the logit at which the mask ends, so that a mask is where its margin is above 0.
    """

    presence: np.ndarray
    decode: Callable[[Sequence[int]], np.ndarray]


class SliceReader(Protocol):
    """Reads slices for targets that were chosen before.

    Attributes
    ----------
    digest : str
        Changes with whatever changes the readings of a slice.
    batch : int
        Slices that are best read together.
    """

    digest: str
    batch: int

    def read(self, images: Sequence[MedicalImage]) -> list[SliceReading]:
        """Read slices of one volume."""

    def resize(self, margin: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """(height, width) float32 of a (side, side) margin."""


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
    mask_weights: np.ndarray | None = None,
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
        Of neighbouring slices for presence, see `axis_weights`.
    store : SliceStore
        Slices that it holds are not read again.
    mask_weights : numpy.ndarray, optional
        The same for the margins of masks; `weights` when left out.
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
                    margin = table.margin(position, number, weights if mask_weights is None else mask_weights)
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

    def margin(self, position: int, target: int, weights: np.ndarray) -> np.ndarray:
        """(side, side) margin, averaged with those neighbours on which the mask was decoded."""
        count, reach = len(self.indices), len(weights) // 2
        total: np.ndarray | None = None
        used = 0.0
        for step, weight in zip(range(-reach, reach + 1), weights, strict=True):
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
