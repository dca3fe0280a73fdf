from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from unibiomed.data.similar import (
    difference_hash,
    merge_groups,
    near_duplicates,
    read_near_duplicates,
    thumbnail,
    write_near_duplicates,
)
from unibiomed.errors import DataError


def scene(seed: int, side: int = 120) -> np.ndarray:
    rough = np.random.default_rng(seed).integers(0, 256, (12, 12), dtype=np.uint8)
    return np.asarray(Image.fromarray(rough).resize((side, side), Image.Resampling.BICUBIC))


def distance(one: int | None, other: int | None) -> int:
    assert one is not None and other is not None
    return (one ^ other).bit_count()


def test_hash_of_a_ramp() -> None:
    right = np.tile(np.arange(0, 180, dtype=np.uint8), (80, 1))
    assert difference_hash(right) == 2**64 - 1
    assert difference_hash(right[:, ::-1].copy()) == 0
    # the upper half gets lighter to the right, the lower half darker
    both = np.concatenate([right[:40], right[:40, ::-1]])
    assert difference_hash(both) == 0xFFFFFFFF00000000
    assert difference_hash(np.stack([right] * 3, axis=2)) == 2**64 - 1


def test_hash_survives_scaling_and_light_and_tells_scenes_apart() -> None:
    one = scene(1)
    small = np.asarray(Image.fromarray(one).resize((70, 64)))
    darker = (one * 0.7 + 20).astype(np.uint8)
    assert distance(difference_hash(one), difference_hash(small)) <= 4
    assert distance(difference_hash(one), difference_hash(darker)) <= 4
    assert distance(difference_hash(one), difference_hash(scene(2))) > 15
    assert thumbnail(small).shape == (24, 24)


def test_flat_images_are_like_no_other() -> None:
    noise = np.random.default_rng(0).integers(127, 130, (64, 64), dtype=np.uint8)
    assert difference_hash(np.full((50, 60), 9, dtype=np.uint8)) is None
    assert difference_hash(noise) is None
    assert near_duplicates({"a": None, "b": None}) == []


@given(
    st.lists(st.integers(0, 2**64 - 1), max_size=12),
    st.lists(st.tuples(st.integers(0, 11), st.sets(st.integers(0, 63), max_size=8)), max_size=12),
    st.integers(0, 8),
)
def test_groups_are_the_chains_of_near_hashes(
    numbers: list[int], changed: list[tuple[int, set[int]]], far: int
) -> None:
    for place, bits in changed:
        if place < len(numbers):
            numbers.append(numbers[place] ^ sum(1 << bit for bit in bits))
    hashes = {f"k{i:02}": number for i, number in enumerate(numbers)}
    near = [(a, b) for a, b in combinations(hashes, 2) if distance(hashes[a], hashes[b]) <= far]
    assert near_duplicates(hashes, far) == sorted(tuple(sorted(group)) for group in merge_groups(near))


def test_thumbnails_confirm() -> None:
    one = scene(3)
    darker = (one * 0.8 + 10).astype(np.uint8)
    pictures = {"a": one, "b": darker, "c": one.copy()}
    hashes = {name: 5 for name in [*pictures, "other"]}
    looks = {name: thumbnail(pixels) for name, pixels in pictures.items()} | {"other": thumbnail(scene(4))}
    assert near_duplicates(hashes) == [("a", "b", "c", "other")]
    assert near_duplicates(hashes, thumbnails=looks) == [("a", "b", "c")]


def test_a_shared_rim_does_not_make_images_alike() -> None:
    rows, columns = np.mgrid[:120, :120] - 60
    field = np.where(rows**2 + columns**2 < 50**2, 150.0, 0.0)
    pictures = [(field + (field > 0) * 0.15 * scene(seed)).astype(np.uint8) for seed in (5, 6)]
    looks = {str(i): thumbnail(pixels) for i, pixels in enumerate(pictures)}
    assert np.corrcoef(looks["0"].ravel(), looks["1"].ravel())[0, 1] > 0.98
    assert near_duplicates({"0": 1, "1": 1}, thumbnails=looks) == []


def test_one_twin_among_many_images() -> None:
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, 2**64, 50_000, dtype=np.uint64)
    # a third of them alike in most bits, as the images of one scanner are
    alike = numbers[:15_000]
    alike[:] = numbers[0]
    for _ in range(14):
        alike ^= np.uint64(1) << rng.integers(0, 64, len(alike), dtype=np.uint64)
    hashes = {str(i): int(number) for i, number in enumerate(numbers)} | {"twin": int(numbers[-1]) ^ 0b1011}
    groups = near_duplicates(hashes, thumbnails=dict.fromkeys(hashes, rng.integers(0, 256, (24, 24), dtype=np.uint8)))
    assert ("49999", "twin") in groups


def test_merge_groups() -> None:
    assert merge_groups([("b", "a"), ("c", "d"), ("d", "a"), ("z",)]) == [("b", "a", "c", "d")]
    assert merge_groups([]) == []


def test_list_is_written_read_and_added_to(tmp_path) -> None:
    path = tmp_path / "near_duplicates.txt"
    write_near_duplicates(path, [("P1/c.png", "d.png"), ("b.png", "c.png")])
    assert path.read_text().startswith("#")
    assert read_near_duplicates(path) == [("P1/c.png", "d.png"), ("b.png", "c.png")]
    with pytest.raises(DataError, match="--force"):
        write_near_duplicates(path, [("x", "y")])
    write_near_duplicates(path, [("a.png", "b.png"), ("x.png", "y.png")], force=True)
    listed = [("P1/c.png", "d.png"), ("b.png", "c.png", "a.png"), ("x.png", "y.png")]
    assert read_near_duplicates(path) == listed, "what was there first stays first"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["benign (1).png", "#1.png", ""])
def test_names_that_cannot_be_listed(tmp_path, name: str) -> None:
    with pytest.raises(DataError, match="rename"):
        write_near_duplicates(tmp_path / "n.txt", [("a.png", name)])
    assert not list(tmp_path.iterdir())


def test_complaints(tmp_path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_near_duplicates(tmp_path / "none.txt")
    with pytest.raises(DataError, match="16 bits"):
        near_duplicates({"a": 1}, 16)
