"""Slices put together to volumes, with a reader that thresholds in place of a model."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from unibiomed.images import MedicalImage, Volume, read_volume
from unibiomed.interpret.volume_presence import axis_weights, reflect, smooth, volume_presence
from unibiomed.interpret.volume_reading import SliceReading, read_findings
from unibiomed.interpret.volume_store import SliceStore
from unibiomed.interpret.volume_view import volume_grid, volume_window

NAMES = ("bright", "dark")


class Thresholds:
    """Finds what is brighter than 200 and what lies from 90 to 110, each pixel by itself."""

    digest = model_digest = "thresholds"
    batch = 3

    def __init__(self, _asker: object = None, names: Sequence[str] = NAMES, _modality: str | None = None) -> None:
        self.rows = [NAMES.index(name) for name in names]
        self.seen = 0
        self.decoded = 0
        self.stop_at: int | None = None

    def read(self, images: Sequence[MedicalImage]) -> list[SliceReading]:
        return [self._one(image) for image in images]

    def _one(self, image: MedicalImage) -> SliceReading:
        if self.seen == self.stop_at:
            raise KeyboardInterrupt
        self.seen += 1
        grey = image.pixels[..., 0].astype(np.float32)
        margins = np.stack([(grey - 200) / 8, 2 - np.abs(grey - 100) / 5])[self.rows]
        presence = np.where((margins > 0).any((1, 2)), 0.99, 0.01)

        def decode(indices: Sequence[int]) -> np.ndarray:
            self.decoded += len(indices)
            return margins[list(indices)]

        return SliceReading(presence, decode)

    def resize(self, margin: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        assert margin.shape == size
        return margin


def make_volume(tmp_path: Path, values: np.ndarray, affine: np.ndarray, name: str = "volume.nii.gz") -> Volume:
    nib.save(nib.Nifti1Image(values, affine), tmp_path / name)
    return read_volume(tmp_path / name)


def run(volume: Volume, reader: Thresholds, store: SliceStore | None = None, sigma: float = 0.0, slices=None):
    grid = volume_grid(volume)
    indices = range(*(slices or (0, len(volume))))
    return read_findings(
        reader,
        lambda k: volume.slice_image(k, (127.5, 255.0)),
        indices,
        grid,
        NAMES,
        threshold=0.5,
        weights=axis_weights(grid.spacing[0], sigma),
        store=store or SliceStore(),
    )


@pytest.fixture
def phantom() -> np.ndarray:
    """int16 (12, 14, 16): a bright ball off the centre, a grey box, and noise that is neither."""
    rng = np.random.default_rng(0)
    values = rng.integers(0, 60, (12, 14, 16)).astype(np.int16)
    x, y, z = np.ogrid[:12, :14, :16]
    values[(x - 4) ** 2 + (y - 9) ** 2 + (z - 6) ** 2 < 10] = 250
    values[8:11, 2:5, 9:14] = 100
    return values


def test_all_axis_orders_of_a_file_give_the_same_masks(tmp_path, phantom):
    affine = np.array([[2.0, 0.1, 0, -20], [-0.1, 1.5, 0.05, 3], [0, 0, 2.5, 7], [0, 0, 0, 1]])
    seen = []
    for order in itertools.permutations(range(3)):
        for flips in itertools.product((False, True), repeat=3):
            turn = np.zeros((4, 4))
            turn[3, 3] = 1
            for axis, (source, flip) in enumerate(zip(order, flips, strict=True)):
                turn[source, axis] = -1 if flip else 1
                turn[source, 3] = phantom.shape[source] - 1 if flip else 0
            values = np.flip(phantom.transpose(order), [k for k in range(3) if flips[k]])
            volume = make_volume(tmp_path, values, affine @ turn)
            masks = [one.mask for one in run(volume, Thresholds(), sigma=2.0)]
            world = []
            for mask in masks:
                stored = volume.to_file_order(mask)
                assert stored.shape == values.shape
                # back to the axes of the first file, by the affine in the file alone
                index = np.argwhere(stored)
                points = nib.affines.apply_affine(volume.grid.file_affine, index)
                back = np.rint(nib.affines.apply_affine(np.linalg.inv(affine), points)).astype(int)
                first = np.zeros(phantom.shape, bool)
                first[tuple(back.T)] = True
                world.append(first)
            seen.append(world)
    assert len(seen) == 48
    for world in seen:
        assert all(np.array_equal(one, other) for one, other in zip(world, seen[0], strict=True))
    # without smoothing the masks are the thresholds themselves
    volume = make_volume(tmp_path, phantom, affine)
    bright, grey = run(volume, Thresholds())
    assert np.array_equal(volume.to_file_order(bright.mask), phantom == 250)
    assert np.array_equal(volume.to_file_order(grey.mask), phantom == 100)


@pytest.mark.parametrize("count", [9, 60])
@pytest.mark.parametrize("sigma", [0.0, 3.0])
def test_position_does_not_matter(tmp_path, count, sigma):
    presences, dices = [], []
    for place in (0, count // 2, count - 1):
        values = np.full((20, 20, count), 30, np.int16)
        values[6:12, 5:13, place] = 250
        volume = make_volume(tmp_path, values, np.diag([1.0, 1.0, 3.0, 1.0]))
        found = run(volume, Thresholds(), sigma=sigma)[0]
        presences.append(found.presence)
        mask = volume.to_file_order(found.mask)
        dices.append(2 * (mask & (values == 250)).sum() / (mask.sum() + (values == 250).sum()))
        assert found.slice_presence[place] == max(found.slice_presence)
    assert max(presences) - min(presences) <= 0.02 and max(dices) - min(dices) <= 0.02
    if sigma == 0:
        assert min(dices) == 1.0


def test_masks_are_decoded_only_where_a_target_is(tmp_path, phantom):
    reader = Thresholds()
    volume = make_volume(tmp_path, phantom, np.diag([1.0, 1.0, 1.0, 1.0]))
    found = run(volume, reader)
    slices = sum(one.slice_range[1] - one.slice_range[0] + 1 for one in found)
    assert reader.seen == len(volume) and reader.decoded == slices


def test_only_chosen_slices_are_read(tmp_path, phantom):
    reader = Thresholds()
    volume = make_volume(tmp_path, phantom, np.diag([1.0, 1.0, 1.0, 1.0]))
    found = run(volume, reader, slices=(5, 7))[0]
    assert reader.seen == 2 and found.slice_range == (5, 6)
    assert [p is None for p in found.slice_presence] == [not 5 <= k < 7 for k in range(len(volume))]


def test_an_interrupted_run_goes_on_where_it_was(tmp_path, phantom):
    volume = make_volume(tmp_path, phantom, np.diag([1.0, 1.0, 1.0, 1.0]))
    whole = run(volume, Thresholds(), sigma=1.0)
    store = SliceStore(tmp_path / "slices")
    reader = Thresholds()
    reader.stop_at = 10
    with pytest.raises(KeyboardInterrupt):
        run(volume, reader, store, sigma=1.0)
    kept = len(list((tmp_path / "slices").glob("*.npz")))
    assert 10 - reader.batch - 2 <= kept <= 10, "all but the last block and the slices whose neighbours are not read"
    reader = Thresholds()
    again = run(volume, reader, SliceStore(tmp_path / "slices"), sigma=1.0)
    assert reader.seen == len(volume) - kept
    for one, other in zip(whole, again, strict=True):
        assert np.array_equal(one.mask, other.mask) and one.presence == other.presence
        assert one.slice_presence == other.slice_presence
    # another picture, another model or a damaged file are read anew
    (next((tmp_path / "slices").glob("00003-*.npz"))).write_bytes(b"not a slice")
    changed = phantom.copy()
    changed[:, :, 5] = 0
    reader = Thresholds()
    run(make_volume(tmp_path, changed, np.diag([1.0, 1.0, 1.0, 1.0])), reader, store, sigma=1.0)
    assert reader.seen == 2
    reader = Thresholds()
    reader.digest = "another"
    run(volume, reader, store, sigma=1.0)
    assert reader.seen == len(volume)
    store.clear()
    assert not (tmp_path / "slices").exists()


def test_smoothing_reflects_at_the_ends_and_leaves_thick_slices_alone():
    assert [reflect(k, 4) for k in range(-3, 7)] == [3, 2, 1, 0, 1, 2, 3, 2, 1, 0]
    assert reflect(-1, 1) == reflect(3, 1) == 0
    assert axis_weights(8.0, 0.0).tolist() == [1.0] and len(axis_weights(20.0)) == 1
    thin = axis_weights(1.0)
    assert len(thin) == 7 and thin.sum() == pytest.approx(1.0) and np.array_equal(thin, thin[::-1])
    table = np.array([[0.01], [0.99], [0.01], [0.01]])
    assert smooth(table, np.ones(1)) == pytest.approx(table)
    assert smooth(table, axis_weights(3.0))[1, 0] < 0.9


@pytest.mark.parametrize("count", [1, 10, 100, 1000])
def test_more_slices_are_no_more_chances(count):
    """Without the target, presence of the volume exceeds a level no more often the more slices there are."""
    rng = np.random.default_rng(1)
    # scores of slices without the target, calibrated: odds with a mean of at most 1/9, as of a presence of 0.1
    odds = np.exp(rng.normal(np.log(1 / 9) - 0.5, 1.0, (count, 4000)))
    volume = volume_presence(odds / (1 + odds))
    single = volume_presence((odds / (1 + odds))[:1])
    assert (volume >= 0.5).mean() <= (single >= 0.5).mean() + 0.01
    assert volume.mean() < 0.3


def test_one_window_for_all_slices(tmp_path):
    values = np.random.default_rng(0).normal(0, 100, (8, 9, 5)).astype(np.float32)
    volume = make_volume(tmp_path, values, np.eye(4))
    assert volume_window(volume, "MRI", None) == volume.range_window
    assert volume_window(volume, "CT", None) == "abdomen" and volume_window(volume, "CT", "lung") == "lung"
    eight = make_volume(tmp_path, np.abs(values).astype(np.uint8), np.eye(4), "eight.nii")
    assert volume_window(eight, "MRI", None) is None
