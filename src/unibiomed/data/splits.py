"""Which side of the split a group of images falls on: decided by its name alone, so the same on every machine.

A patient, a case or a set of near-identical images is never torn apart: no test image has a sibling in training.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import chain

from unibiomed.errors import DataError

__all__ = ["assign_splits", "join_groups", "split_position"]

TEST_SHARE = 0.2
VAL_SHARE = 0.07
FEW_GROUPS = 50


def split_position(dataset: str, group: str) -> float:
    """Place of a group in [0, 1): the first 15 hexadecimal digits of the SHA-256 of ``dataset:group``.

    Parameters
    ----------
    dataset, group : str
        Names as the records carry them.

    Returns
    -------
    float
        Below `TEST_SHARE` the group is for testing, in the next `VAL_SHARE` for validation, else for training.
    """
    return int(hashlib.sha256(f"{dataset}:{group}".encode()).hexdigest()[:15], 16) / 16**15


def join_groups(groups: Mapping[str, str], linked: Iterable[Iterable[str]]) -> dict[str, str]:
    """Join groups whose images are near-identical.

    Parameters
    ----------
    groups : mapping of str to str
        Group of each image.
    linked : iterable of iterables of str
        Sets of images that belong together; names not in `groups` are passed over.

    Returns
    -------
    dict of str to str
        Group of each image; joined groups carry the name of the one that is linked first. Later links to further
        groups so leave it its name, and its split.
    """
    parent = {group: group for group in groups.values()}
    sets = [[groups[image] for image in images if image in groups] for images in linked]
    place: dict[str, int] = {}
    for group in chain.from_iterable(sets):
        place.setdefault(group, len(place))

    def root(group: str) -> str:
        while parent[group] != group:
            parent[group] = parent[parent[group]]
            group = parent[group]
        return group

    for members in sets:
        roots = sorted({root(group) for group in members}, key=place.__getitem__)
        for other in roots[1:]:
            parent[other] = roots[0]
    return {image: root(group) for image, group in groups.items()}


def assign_splits(
    dataset: str,
    groups: Mapping[str, str],
    official: Mapping[str, str] | None = None,
    *,
    external: bool = False,
    ranked: bool = True,
) -> dict[str, str]:
    """Give every image its split.

    Parameters
    ----------
    dataset : str
        Name of the data set.
    groups : mapping of str to str
        Group of each image.
    official : mapping of str to str, optional
        The split that the data set's authors gave to each image. A group with any test image is for testing, else one
        with any validation image for validation.
    external : bool
        The data set is kept for testing alone.
    ranked : bool
        In sets with fewer than `FEW_GROUPS` groups, take the shares by rank of `split_position`. Data sets that share
        patients need False: a rank depends on the other groups of the same data set.

    Returns
    -------
    dict of str to str
        ``"train"``, ``"val"`` or ``"test"`` of each image. With `ranked` and at least two groups, neither train nor
        test is empty, but adding data may move a group of a set with fewer than `FEW_GROUPS` groups; in larger sets it
        never does.

    Raises
    ------
    DataError
        `official` leaves out an image.
    """
    if external:
        return dict.fromkeys(groups, "test")
    if official:
        return _official(dataset, groups, official)
    position = {group: split_position(dataset, group) for group in set(groups.values())}
    order = sorted(position, key=lambda group: (position[group], group))
    few = ranked and len(order) < FEW_GROUPS
    side = _by_rank(order) if few else {group: _by_position(u) for group, u in position.items()}
    return {image: side[group] for image, group in groups.items()}


def _by_position(u: float) -> str:
    if u < TEST_SHARE:
        return "test"
    return "val" if u < TEST_SHARE + VAL_SHARE else "train"


def _by_rank(order: list[str]) -> dict[str, str]:
    # of a handful of groups, chance alone may leave one for testing or none: take the share by count instead
    test = max(1, round(TEST_SHARE * len(order))) if len(order) > 1 else 0
    val = round(VAL_SHARE * len(order)) if len(order) >= 20 else 0
    return {g: "test" if i < test else "val" if i < test + val else "train" for i, g in enumerate(order)}


def _official(dataset: str, groups: Mapping[str, str], official: Mapping[str, str]) -> dict[str, str]:
    missing = sorted(set(groups) - set(official))
    if missing:
        raise DataError(f"{dataset}: no official split for '{missing[0]}'; mend the split rule in the catalogue")
    sides: dict[str, set[str]] = defaultdict(set)
    for image, group in groups.items():
        sides[group].add(official[image])
    rank = ("test", "val", "train")
    return {image: next(split for split in rank if split in sides[group]) for image, group in groups.items()}
