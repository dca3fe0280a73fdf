"""Images that are nearly the same: found by a perceptual hash, confirmed by thumbnails, listed in a text file.

The hash alone is not enough: of 1,900 slices of brain tumours, 787 pairs have hashes within 4 bits, nearly all of them
of different heads. So thumbnails are compared as well, each small part by its own contrast, or the rim that all images
of one kind share (a skull, the round field of a fundus) would outweigh what differs. In four real data sets with known
patients, 6,295 pairs have near hashes. Thumbnails confirm 654, each pair of one patient, but for 16 of two patients
whose slices are copies.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import uniform_filter

from unibiomed.data.index import replacing
from unibiomed.data.splits import join_groups
from unibiomed.errors import DataError

__all__ = [
    "DISTANCE",
    "NEAR_DUPLICATES",
    "difference_hash",
    "merge_groups",
    "near_duplicates",
    "read_near_duplicates",
    "thumbnail",
    "write_near_duplicates",
]

NEAR_DUPLICATES = "near_duplicates.txt"
DISTANCE = 4
"""Bits of 64 in which the hashes of near-identical images may differ."""
CORRELATION = 0.85
"""Least correlation of the thumbnails of near-identical images, in local contrast."""
SIDE = 24
NOISE = 3
"""Grey levels of contrast that do not count."""
AT_ONCE = 4096
FLAT = 4
"""Grey levels between the darkest and the lightest part of an image that shows nothing."""
HEADER = (
    f"# groups of near-identical images: 64-bit difference hashes up to {DISTANCE} bits apart,\n"
    f"# thumbnails that correlate above {CORRELATION} in local contrast; a group is on the side of its first image\n"
)


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """Shrink an image to a grey thumbnail.

    Parameters
    ----------
    pixels : numpy.ndarray
        ``(height, width)`` or ``(height, width, 3)`` uint8.

    Returns
    -------
    numpy.ndarray
        ``(24, 24)`` uint8.
    """
    return _shrink(pixels, SIDE, SIDE)


def difference_hash(pixels: np.ndarray) -> int | None:
    """Perceptual hash: which parts of an image are lighter than the ones to their left.

    Parameters
    ----------
    pixels : numpy.ndarray
        ``(height, width)`` or ``(height, width, 3)`` uint8.

    Returns
    -------
    int or None
        64 bits, from the rows of a thumbnail of 9 x 8 parts; None for a flat image, which is like no other.
    """
    parts = _shrink(pixels, 9, 8).astype(np.int16)
    if parts.max() - parts.min() < FLAT:
        return None
    return int.from_bytes(np.packbits(parts[:, 1:] > parts[:, :-1]).tobytes(), "big")


def _shrink(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    grey = Image.fromarray(pixels).convert("L")
    return np.asarray(grey.resize((width, height), Image.Resampling.BOX))


def near_duplicates(
    hashes: Mapping[str, int | None],
    distance: int = DISTANCE,
    thumbnails: Mapping[str, np.ndarray] | None = None,
) -> list[tuple[str, ...]]:
    """Group images whose hashes are near each other.

    Parameters
    ----------
    hashes : mapping of str to int or None
        From `difference_hash`; None for images that are like no other.
    distance : int
        Bits that may differ, 0 to 15. Pairs are looked for among hashes that share one of ``distance + 1`` bands of
        bits, which finds them all.
    thumbnails : mapping of str to numpy.ndarray, optional
        From `thumbnail`, for every hash; with them, a pair has to correlate above `CORRELATION` as well.

    Returns
    -------
    list of tuple of str
        Sorted groups of two or more sorted keys; a chain of pairs is one group.
    """
    alike: dict[tuple[int, bytes], list[str]] = defaultdict(list)
    for key, number in sorted(hashes.items()):
        if number is not None:
            # What looks exactly the same is one node: a thousand copies would make half a million pairs.
            alike[number, b"" if thumbnails is None else thumbnails[key].tobytes()].append(key)
    nodes = list(alike.values())
    looks = None if thumbnails is None else _normalised([thumbnails[keys[0]] for keys in nodes])
    pairs = _near_pairs(np.array([number for number, _ in alike], dtype=np.uint64), distance, looks)
    groups: dict[int, list[str]] = defaultdict(list)
    for node, root in enumerate(_components(len(nodes), pairs)):
        groups[root] += nodes[node]
    return sorted(tuple(sorted(keys)) for keys in groups.values() if len(keys) > 1)


def _normalised(thumbnails: Sequence[np.ndarray]) -> np.ndarray:
    """(n, 576) float32 of local contrast, of mean 0 and length 1, so that a product is a correlation."""
    looks = np.zeros((len(thumbnails), SIDE * SIDE), dtype=np.float32)
    for first in range(0, len(thumbnails), AT_ONCE):
        values = np.stack(thumbnails[first : first + AT_ONCE]).astype(np.float32)
        mean = uniform_filter(values, (1, 3, 3))
        spread = uniform_filter(values**2, (1, 3, 3)) - mean**2
        flat = ((values - mean) / np.sqrt(np.maximum(spread, 0) + NOISE**2)).reshape(len(values), -1)
        flat -= flat.mean(axis=1, keepdims=True)
        looks[first : first + AT_ONCE] = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    return looks


def _near_pairs(hashes: np.ndarray, distance: int, looks: np.ndarray | None) -> np.ndarray:
    """(m, 2): pairs of places, each once."""
    if not 0 <= distance <= 15:
        raise DataError(f"{distance} bits are no distance between hashes; give 0 to 15")
    edges = np.linspace(0, 64, distance + 2).round().astype(int)
    bands = [((1 << int(high)) - 1) ^ ((1 << int(low)) - 1) for low, high in pairwise(edges)]
    found = [np.zeros((0, 2), dtype=np.int64)]
    for number, mask in enumerate(bands):
        order = np.argsort(hashes & np.uint64(mask), kind="stable")
        values = hashes[order]
        band = values & np.uint64(mask)
        live, step = np.arange(len(values)), 1
        # Neighbours at growing steps in the sorted list, as long as they share the band.
        while True:
            live = live[live + step < len(values)]
            live = live[band[live] == band[live + step]]
            if not live.size:
                break
            different = values[live] ^ values[live + step]
            near = _bits(different) <= distance
            for earlier in bands[:number]:
                near &= (different & np.uint64(earlier)) != 0
            first, second = order[live[near]], order[live[near] + step]
            if looks is not None and first.size:
                same = np.einsum("ij,ij->i", looks[first], looks[second]) > CORRELATION
                first, second = first[same], second[same]
            found.append(np.stack([first, second], axis=1))
            step += 1
    return np.concatenate(found)


def _bits(numbers: np.ndarray) -> np.ndarray:
    """Set bits of each uint64 (`numpy.bitwise_count` came with NumPy 2)."""
    n = numbers - ((numbers >> np.uint64(1)) & np.uint64(0x5555555555555555))
    n = (n & np.uint64(0x3333333333333333)) + ((n >> np.uint64(2)) & np.uint64(0x3333333333333333))
    n = (n + (n >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (n * np.uint64(0x0101010101010101)) >> np.uint64(56)


def _components(count: int, pairs: np.ndarray) -> np.ndarray:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = coo_array((np.ones(len(pairs), dtype=bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return connected_components(edges, directed=False)[1] if count else np.zeros(0, dtype=int)


def merge_groups(groups: Iterable[Sequence[str]]) -> list[tuple[str, ...]]:
    """Join groups that share a name.

    Parameters
    ----------
    groups : iterable of sequence of str
        Groups of names, such as those of several lists.

    Returns
    -------
    list of tuple of str
        Groups of two or more names, groups and names in the order in which they were first named.
    """
    groups = list(groups)
    joined: dict[str, list[str]] = defaultdict(list)
    for name, root in join_groups({name: name for group in groups for name in group}, groups).items():
        joined[root].append(name)
    return [tuple(names) for names in joined.values() if len(names) > 1]


def read_near_duplicates(path: Path) -> list[tuple[str, ...]]:
    """Read a list of near-identical images: a group a line, names with spaces between them, ``#`` for remarks.

    Raises
    ------
    DataError
        It is missing or not UTF-8 text.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"{path.name}: list of near-identical images cannot be read; restore it") from error
    return [tuple(line.split()) for line in lines if line.strip() and not line.startswith("#")]


def write_near_duplicates(path: Path, groups: Iterable[Sequence[str]], *, force: bool = False) -> None:
    """Write a list of near-identical images, as `read_near_duplicates` and the readers of data sets read it.

    Parameters
    ----------
    path : Path
        The file.
    groups : iterable of sequence of str
        Names of images as the data set's folder of images has them.
    force : bool
        Replace a file that is there. The groups that it lists are kept, with new names at their ends: the first name
        of a line decides its side of the split.

    Raises
    ------
    DataError
        The file is there and `force` is not set, or a name cannot be written in this form.
    OutputError
        The file cannot be written.
    """
    groups = list(groups)
    if path.exists():
        if not force:
            raise DataError(f"{path} is there already; give --force to add to it")
        groups = [*read_near_duplicates(path), *groups]
    for name in (name for group in groups for name in group):
        if name.startswith("#") or name.split() != [name]:
            raise DataError(f"'{name}': a name with spaces or '#' cannot be listed in {path.name}; rename the image")
    lines = "".join(f"{' '.join(group)}\n" for group in merge_groups(groups))
    with replacing(path) as fresh:
        fresh.write_text(HEADER + lines, encoding="utf-8")
