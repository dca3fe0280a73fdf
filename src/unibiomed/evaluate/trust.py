"""Does a model answer from the pixels? Pairs of images (after MediConfusion), other words, changed pixels.

All of it is computed from rows: nothing is asked again.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from unibiomed.metrics.statistics import Interval
from unibiomed.metrics.trust import paired_trust

from .intervals import Estimate, macro_mean, mean_of
from .score import Row

__all__ = ["pair_table", "paraphrase_table", "robustness_table"]

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
        body; ``text``: recognition of a normal and an abnormal image. Each with ``set_accuracy``, ``confusion`` and
        the number of pairs, and the same for each target.
    """
    out: Table = {}
    plain = [row for row in rows if row.change is None and not row.paraphrase]
    masks = [row for row in plain if row.task == "segment"]
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
        return None if row.failure is not None else bool(row.found)

    found = paired_trust([said(a) for a, _ in pairs], [said(b) for _, b in pairs], [a.subject for a, _ in pairs])
    return {
        "set_accuracy": _interval(found.set_accuracy, found.pairs),
        "confusion": _interval(found.confusion, found.pairs),
        "unreadable": found.unreadable,
    }


def _interval(found: Interval, count: int) -> Table:
    return Estimate(found.value, found.low, found.high, count, found.subjects).to_dict()


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
        out[task] = {"agreement": macro_mean(agreement).to_dict()}
        if task == "segment":
            there = [row for row in other if row.there]
            out[task]["dice"] = macro_mean((r.target, r.subject, r.dice) for r in there).to_dict()
            own = [r for r in rows if r.task == task and not r.paraphrase and r.change is None and r.kind == "own"]
            out[task]["dice_own_words"] = macro_mean((r.target, r.subject, r.dice) for r in own if r.there).to_dict()
    return out


def robustness_table(rows: Sequence[Row]) -> Table:
    """Score against strength of each change, on the same images; strength 0 is the image as it is."""
    out: Table = {}
    changed = [row for row in rows if row.change is not None]
    if not changed:
        return out
    whole = {row.id: row for row in rows if row.change is None and not row.paraphrase}
    by: dict[tuple[str, int], list[Row]] = defaultdict(list)
    for row in changed:
        by[row.change or "", row.strength].append(row)
    for (change, strength), part in sorted(by.items()):
        table = out.setdefault(change, {})
        table[str(strength)] = _level(part)
        table.setdefault("0", _level([whole[row.id.rpartition("@")[0]] for row in part]))
    return {change: dict(sorted(levels.items())) for change, levels in out.items()}


def _level(rows: Sequence[Row]) -> Table:
    there = [row for row in rows if row.task == "segment" and row.there and row.kind == "own"]
    absent = [row for row in rows if row.task == "segment" and not row.there]
    named = [row for row in rows if row.task == "recognize"]
    table: Table = {"dice": macro_mean((r.target, r.subject, r.dice) for r in there).to_dict()}
    if absent:
        table["false_masks"] = mean_of([float(bool(r.found)) for r in absent], [r.subject for r in absent]).to_dict()
    if named:
        table["accuracy"] = mean_of([float(bool(r.exact)) for r in named], [r.subject for r in named]).to_dict()
    return table
