"""Does a model answer from the pixels? Pairs of images (after MediConfusion), other words, changed pixels.

All of it is computed from rows: nothing is asked again.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any

from .intervals import Estimate, macro_mean, share_of, unseen
from .rows import Row

__all__ = ["pair_estimate", "pair_table", "paraphrase_table", "robustness_table"]

Table = dict[str, Any]


def pair_table(rows: Sequence[Row], limit: int, seed: int) -> Table:
    """The paired test: the same question on an image with the target and on one without.

    A model that looks gets both right (set accuracy); one that answers from the question alone says the same to both
    (confusion). Chance, for an answer thrown like a coin, is 25 % and 50 %.

    Parameters
    ----------
    rows : sequence of Row
        Unchanged images, the suite's own words.
    limit : int
        Pairs of each kind of question (0: as many as there are).
    seed : int
        Of the choice of pairs.

    Returns
    -------
    dict
        ``masks``: "segment X", the image without X from the same data set; ``masks_foreign``: from another part of the
        body; ``text``: recognition of a normal and an abnormal image. Each with ``set_accuracy`` (there any pixel or
        any finding is right), ``set_accuracy_strict`` (there a mask has to touch the target, findings have to have
        their names), ``confusion`` and the number of pairs, and the same for each target.
    """
    out: Table = {}
    plain = [row for row in rows if row.change is None and not row.paraphrase]
    # given the box of the truth, a model knows which image shows the target
    masks = [row for row in plain if row.task == "segment" and not row.boxed]
    groups: dict[str, dict[str, tuple[list[Row], list[Row]]]] = {
        "masks": _sides([r for r in masks if r.kind == "own"], lambda r: f"{r.target} ({r.dataset})"),
        "masks_foreign": _sides([r for r in masks if r.kind == "foreign" or r.there], lambda r: r.target),
        "text": _sides([r for r in plain if r.task == "recognize"], lambda r: r.dataset),
    }
    for name, sides in groups.items():
        pairs = {
            key: _pairs(there, absent, limit, f"{seed}/{name}/{key}") for key, (there, absent) in sorted(sides.items())
        }
        if pairs:
            out[name] = _tested([pair for part in pairs.values() for pair in part])
            out[name]["questions"] = {key: _tested(part) for key, part in pairs.items()}
    return out


def _tested(pairs: Sequence[tuple[Row, Row]]) -> Table:
    def said(row: Row) -> bool | None:
        # an answer that neither names a finding nor denies any says nothing
        return None if row.failure is not None or row.said == [] else bool(row.found)

    read = [(said(a), said(b)) for a, b in pairs]
    subjects = [(a.subject, b.subject) for a, b in pairs]
    right = [a is True and b is False for a, b in read]
    strict = [both and _hits(there) for both, (there, _) in zip(right, pairs, strict=True)]
    return {
        "set_accuracy": pair_estimate([float(both) for both in right], subjects).to_dict(),
        "set_accuracy_strict": pair_estimate([float(both) for both in strict], subjects).to_dict(),
        "confusion": pair_estimate([float(a is not None and a == b) for a, b in read], subjects).to_dict(),
        "unreadable": sum(answer is None for both in read for answer in both),
    }


def _hits(row: Row) -> bool:
    """Whether the answer on an image that shows the target is a right one, not only some."""
    return row.detected if row.task == "segment" else bool(row.exact)


def pair_estimate(values: Sequence[float], subjects: Sequence[tuple[str, str]]) -> Estimate:
    """Mean over pairs of images, where pairs that share a subject, on either side, are alike.

    Such pairs chain nearly all subjects to each other, which leaves a bootstrap of whole chains little to draw. The
    interval is that of the normal distribution with the variance of Aronow et al. (2015), robust to dyadic clusters;
    of a share of 0 or 1 the exact one of as many pairs as are found that share no subject.

    Parameters
    ----------
    values : sequence of float
        0 or 1.
    subjects : sequence of (str, str)
        Of both images of each pair.
    """
    people = {subject for both in subjects for subject in both}
    if not values:
        return Estimate(float("nan"), float("nan"), float("nan"), 0, 0)
    mean = sum(values) / len(values)
    # of the same subjects alone nothing tells how subjects differ
    if len({frozenset(both) for both in subjects}) < 2:
        return Estimate(mean, float("nan"), float("nan"), len(values), len(people))
    of_one: dict[str, float] = defaultdict(float)
    of_two: dict[frozenset[str], float] = defaultdict(float)
    for value, both in zip(values, subjects, strict=True):
        for subject in set(both):
            of_one[subject] += value - mean
        of_two[frozenset(both)] += value - mean
    alike = sum(total**2 for total in of_two.values())
    # pairs of the same two subjects were counted for both of them
    twice = sum(total**2 for both, total in of_two.items() if len(both) == 2)
    shared = sum(total**2 for total in of_one.values()) - twice
    half = 1.96 * math.sqrt(max(shared, alike)) / len(values)
    if mean in (0, 1):
        half = unseen(_apart(subjects))
    return Estimate(mean, max(0.0, mean - half), min(1.0, mean + half), len(values), len(people))


def _apart(subjects: Sequence[tuple[str, str]]) -> int:
    """Pairs, taken in order, of which no two share a subject."""
    met: set[str] = set()
    number = 0
    for both in subjects:
        if met.isdisjoint(both):
            met.update(both)
            number += 1
    return number


def _sides(rows: Sequence[Row], by: Any) -> dict[str, tuple[list[Row], list[Row]]]:
    sides: dict[str, tuple[list[Row], list[Row]]] = defaultdict(lambda: ([], []))
    for row in rows:
        sides[by(row)][0 if row.there else 1].append(row)
    return {key: both for key, both in sides.items() if both[0] and both[1]}


def _pairs(there: list[Row], absent: list[Row], limit: int, seed: str) -> list[tuple[Row, Row]]:
    """Each image at most once, by chance."""
    rng = random.Random(seed)
    there, absent = sorted(there, key=lambda r: r.id), sorted(absent, key=lambda r: r.id)
    rng.shuffle(there)
    rng.shuffle(absent)
    return list(zip(there, absent, strict=False))[: limit or None]


def paraphrase_table(rows: Sequence[Row]) -> Table:
    """Of questions in other words: agreement with the question itself, and the score they get."""
    out: Table = {}
    for task in ("segment", "recognize", "ask", "classify"):
        other = [row for row in rows if row.task == task and row.paraphrase and row.change is None]
        if not other:
            continue
        agreement = [(row.target, row.subject, row.agreement or 0.0) for row in other]
        out[task] = {"agreement": macro_mean(agreement, shares=task != "segment").to_dict()}
        if task == "segment":
            there = [row for row in other if row.there]
            out[task]["dice"] = macro_mean((r.target, r.subject, r.dice) for r in there).to_dict()
            own = [r for r in rows if r.task == task and not r.paraphrase and r.change is None and r.kind == "own"]
            out[task]["dice_own_words"] = macro_mean((r.target, r.subject, r.dice) for r in own if r.there).to_dict()
    return out


def robustness_table(rows: Sequence[Row]) -> Table:
    """Score against strength of each change, on the same samples; strength 0 is the image as it is.

    Of segmentation those count that show the target, or do not, at every strength: what a crop pushes out of view is
    left out of all of them. A mirror image turns a left lung into a right one, so that no truth fits such a name.
    """
    out: Table = {}
    changed = [row for row in rows if row.change is not None]
    if not changed:
        return out
    whole = {row.id: row for row in rows if row.change is None and not row.paraphrase}
    sided = _sided({name for row in rows for name in (row.target, *(row.wanted or []))})
    by: dict[str, dict[str, dict[int, Row]]] = defaultdict(lambda: defaultdict(dict))
    for row in changed:
        if row.change == "flip" and sided & {name.lower() for name in (row.target, *(row.wanted or []))}:
            continue
        name = row.id.rpartition("@")[0]
        by[row.change or ""][name] |= {row.strength: row, 0: whole[name]}
    for change, samples in sorted(by.items()):
        strengths = sorted({strength for found in samples.values() for strength in found})
        same = [
            found
            for found in samples.values()
            if len(found) == len(strengths) and len({row.there for row in found.values()}) == 1
        ]
        out[change] = {str(strength): _level([found[strength] for found in same]) for strength in strengths}
    return out


def _sided(names: Collection[str]) -> set[str]:
    """Those that a mirror turns into each other, in small letters; chambers of the heart stay what they are."""
    known = {name.lower() for name in names}
    found = set()
    for name in known:
        side, _, rest = name.partition(" ")
        other = {"left": "right", "right": "left"}.get(side)
        if other and f"{other} {rest}" in known and not rest.startswith(("ventric", "atri")):
            found.add(name)
    return found


def _level(rows: Sequence[Row]) -> Table:
    there = [row for row in rows if row.task == "segment" and row.there and row.kind == "own"]
    absent = [row for row in rows if row.task == "segment" and not row.there and not row.boxed]
    named = [row for row in rows if row.task == "recognize"]
    table: Table = {"dice": macro_mean((r.target, r.subject, r.dice) for r in there).to_dict()}
    if absent:
        table["false_masks"] = share_of([bool(r.found) for r in absent], [r.subject for r in absent]).to_dict()
    if named:
        table["accuracy"] = share_of([bool(r.exact) for r in named], [r.subject for r in named]).to_dict()
    return table
