"""The numbers of one predictor: every task, the strict protocol and the published one side by side, with intervals.

Strict: every image counts, those without the target too, answers have to be exact, failures score 0.

Published (as the authors' scripts do; reference: their evaluation code): of each data set only the first 300
annotations; images without the target are left out; an answer is right that contains the label; a volume's Dice leaves
out slices without the target.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from unibiomed.metrics.classification import plain
from unibiomed.metrics.segmentation import Overlap
from unibiomed.tasks import SOMETHING_ELSE

from .confusion import count_answers, joined
from .intervals import Estimate, estimate_of, macro_mean, mean_of, share_of
from .judged import presence_auroc, score_tables
from .rows import Row
from .samples import ELSEWHERE

__all__ = ["PUBLISHED_LIMIT", "summarise", "to_be_published"]

PUBLISHED_LIMIT = 300
Table = dict[str, Any]


def summarise(rows: Iterable[Row]) -> Table:
    """All results of one predictor, ready for JSON.

    Parameters
    ----------
    rows : iterable of Row
        From `score.score_case` or `rows.read_rows`.

    Returns
    -------
    dict
        ``samples``, ``failures`` (by reason), and one table for each task that has samples.
    """
    tasks: dict[str, list[Row]] = defaultdict(list)
    failures: Counter[str] = Counter()
    number = 0
    for row in rows:
        number += 1
        if row.failure is not None:
            failures[f"{row.task}: {row.failure}"] += 1
        if row.change is None and not row.paraphrase:
            tasks[row.task].append(row)
    out: Table = {"samples": number, "failures": dict(failures.most_common())}
    for task, make in TABLES.items():
        if tasks[task]:
            out[task] = make(tasks[task])
    return out


def to_be_published(rows: Iterable[Row]) -> list[Row]:
    """Of each data set the first 300 annotations: samples whose target is there, in the order of the images."""
    taken: Counter[str] = Counter()
    kept = []
    for row in rows:
        if row.there and row.kind != "foreign":
            taken[row.dataset] += 1
            if taken[row.dataset] <= PUBLISHED_LIMIT:
                kept.append(row)
    return kept


# ---------------------------------------------------------------- segmentation


def _segment(rows: list[Row]) -> Table:
    own = [row for row in rows if row.kind != "foreign"]
    # who is given the box of the truth knows whether there is one
    blind = [row for row in rows if not row.boxed]
    blind_own, foreign = ([row for row in blind if (row.kind == "foreign") == other] for other in (False, True))
    there = [row for row in own if row.there]
    published = to_be_published(rows)
    strict: Table = {
        "dice": _macro(there, lambda r: r.target, lambda r: r.dice),
        "dice_with_absent": _macro(blind_own, lambda r: r.target, lambda r: r.dice),
        "iou": _macro(there, lambda r: r.target, lambda r: r.iou),
        "surface_dice": _macro(there, lambda r: r.target, lambda r: r.surface_dice or 0.0),
        "detected": _share(there, lambda r: r.detected),
        "false_masks": _share([r for r in blind_own if not r.there], lambda r: bool(r.found)),
        "false_masks_foreign": _share(foreign, lambda r: bool(r.found)),
        "false_parts": _mean([r for r in blind_own if r.false_parts is not None], lambda r: float(r.false_parts or 0)),
        "targets": _split(own, lambda r: r.target, _target),
        "modalities": _split(there, lambda r: r.modality, _by_target),
        "datasets": _split(there, lambda r: r.dataset, _by_target),
    }
    if volumes := _volumes(blind_own, every=True):
        strict["volumes"] = volumes
    if numbered := [row for row in own if row.objects is not None]:
        strict["objects"] = _split(numbered, lambda r: r.target, _objects)
    return {
        "strict": strict,
        "published": {
            "dice": _macro(published, lambda r: r.target, lambda r: r.dice),
            "targets": _split(published, lambda r: r.target, lambda part: {"dice": _mean(part, lambda r: r.dice)}),
            "modalities": _split(published, lambda r: r.modality, _by_target),
            "datasets": _split(published, lambda r: r.dataset, _by_target),
            "volumes": _volumes(own, every=False),
        },
        "scores": score_tables(rows),
    }


def _outline(rows: list[Row]) -> Table:
    """Masks of what is in true boxes: every target is there."""
    return {
        "strict": {
            "dice": _macro(rows, lambda r: r.target, lambda r: r.dice),
            "iou": _macro(rows, lambda r: r.target, lambda r: r.iou),
            "surface_dice": _macro(rows, lambda r: r.target, lambda r: r.surface_dice or 0.0),
            "targets": _split(rows, lambda r: r.target, lambda part: {"dice": _mean(part, lambda r: r.dice)}),
            "modalities": _split(rows, lambda r: r.modality, _by_target),
            "datasets": _split(rows, lambda r: r.dataset, _by_target),
        }
    }


def _target(rows: list[Row]) -> Table:
    there = [row for row in rows if row.there]
    blind = [row for row in rows if not row.boxed]
    table = {
        "dice": _mean(there, lambda r: r.dice),
        "dice_with_absent": _mean(blind, lambda r: r.dice),
        "iou": _mean(there, lambda r: r.iou),
        "surface_dice": _mean(there, lambda r: r.surface_dice or 0.0),
        "detected": _share(there, lambda r: r.detected),
        "false_masks": _share([r for r in blind if not r.there], lambda r: bool(r.found)),
    }
    # a distance in pixels and one in mm have no mean
    for name, in_mm in (("hd95_mm", True), ("hd95_pixels", False)):
        part = [row for row in there if row.measured == in_mm]
        far = [row for row in part if row.hd95 is not None]
        if part:
            table[name] = _mean(far, lambda r: r.hd95 or 0.0) | {"unmeasured": len(part) - len(far)}
    return table


def _by_target(rows: list[Row]) -> Table:
    return {"dice": _macro(rows, lambda r: r.target, lambda r: r.dice)}


def _volumes(rows: list[Row], *, every: bool) -> Table:
    """Dice of whole volumes: over all slices, or (as published) over those that show the target.

    A volume without the target counts over all slices only: 1 where nothing is painted, else 0.
    """
    sums: dict[tuple[str, str, str], Overlap] = {}
    subjects: dict[tuple[str, str, str], str] = {}
    failed: set[tuple[str, str, str]] = set()
    for row in rows:
        if row.volume is None or not (every or row.there):
            continue
        key = (row.target, row.dataset, row.volume)
        subjects[key] = row.subject
        if row.failure is not None:
            failed.add(key)
            continue
        assert row.shared is not None and row.predicted is not None and row.true is not None
        sums[key] = sums.get(key, Overlap()) + Overlap(row.shared, row.predicted, row.true)
    found: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for key, subject in subjects.items():
        total = sums.get(key, Overlap())
        if every or total.true or key in failed:
            found[key[0]].append((0.0 if key in failed else total.dice, subject))
    return {
        target: mean_of([v for v, _ in values], [s for _, s in values]).to_dict()
        for target, values in sorted(found.items())
    }


def _objects(rows: list[Row]) -> Table:
    """Of all images; the mean of AJI is over those that show an object."""
    counts = np.array([row.objects[1:] for row in rows if row.objects])
    matched, unmatched, shared = counts[:, 0], (counts[:, 1] + counts[:, 2]) / 2, counts[:, 3]
    subjects = [row.subject for row in rows if row.objects]

    def share(of: np.ndarray, all_: np.ndarray) -> Table:
        def drawn(often: np.ndarray) -> np.ndarray:
            total = often @ all_
            found: np.ndarray = np.divide(often @ of, total, out=np.full(len(total), np.nan), where=total > 0)
            return found

        return estimate_of(drawn, subjects).to_dict()

    return {
        "aji": _mean([row for row in rows if row.there], lambda r: r.objects[0] if r.objects else 0.0),
        # of the pairs that match, so that the quality is that of detection times that of outlines
        "pq": share(shared, matched + unmatched),
        "sq": share(shared, matched),
        "rq": share(matched, matched + unmatched),
    }


# ---------------------------------------------------------------- words


def _classify(rows: list[Row]) -> Table:
    named = [row for row in rows if row.kind != ELSEWHERE]
    table = _labels(named, _first(named))
    if other := [row for row in rows if row.kind == ELSEWHERE]:
        table["strict"] |= {
            "elsewhere": _share(other, lambda r: bool(r.exact)),
            "accuracy_with_elsewhere": _share(rows, lambda r: bool(r.exact)),
            "named_called_elsewhere": _share(
                named, lambda r: [plain(said) for said in r.said or []] == [SOMETHING_ELSE]
            ),
        }
    return table


def _labels(rows: list[Row], first: list[Row]) -> Table:
    """Recognition and region classification: exact in all rows, as a part of the answer in the `first` ones."""
    return {
        "strict": {
            "accuracy": _share(rows, lambda r: bool(r.exact)),
            "balanced_accuracy": _macro(rows, _name, lambda r: bool(r.exact), shares=True),
            "labels": _split(rows, _name, lambda part: {"accuracy": _share(part, lambda r: bool(r.exact))}),
            "per_label": _per_label(rows),
            "confusion": count_answers(rows),
            "datasets": _split(
                rows, lambda r: r.dataset, lambda part: {"accuracy": _share(part, lambda r: bool(r.exact))}
            ),
        },
        "published": {"accuracy": _share(first, lambda r: bool(r.substring))},
    }


def _recognize(rows: list[Row]) -> Table:
    # as published, normal images are left out
    first = _first([row for row in rows if row.there])
    table = _labels(rows, first)
    normal = [row for row in rows if not row.there]
    table["strict"] |= {
        "false_findings": _share(normal, lambda r: bool(r.found)),
        "missed": _share([row for row in rows if row.there], lambda r: not r.found),
        "dice": _mean(rows, lambda r: r.dice),
        # a right outline under a wrong finding is worth nothing, nor is a finding in words where there is none
        "dice_labelled": _mean(rows, lambda r: r.dice if r.exact else 0.0),
    }
    if any(row.presence is not None for row in rows) and len({bool(row.there) for row in rows}) == 2:
        table["strict"]["presence_auroc"] = presence_auroc(
            [_presence(row) for row in rows], [bool(row.there) for row in rows], [row.subject for row in rows]
        )
    table["published"]["dice"] = _mean(first, lambda r: r.dice)
    return table


def _presence(row: Row) -> float:
    """The score of a finding; an answer without one is sure of what it says, and a failure surely wrong."""
    return float(bool(row.found)) if row.presence is None else row.presence


def _name(row: Row) -> str:
    return joined(row.wanted or [])


def _per_label(rows: Sequence[Row]) -> Table:
    """Precision, recall and F1 of each label, where an answer may name several."""
    names: dict[str, str] = {}
    wanted: list[set[str]] = []
    said: list[set[str]] = []
    for row in rows:
        spelled = {plain(label): label for label in row.wanted or []}
        names |= spelled
        wanted.append(set(spelled))
        said.append(set() if row.failure is not None else {plain(label) for label in row.said or []})
    subjects = [row.subject for row in rows]
    out = {}
    for label in sorted(names):
        true, told = (np.array([label in one for one in sets], bool) for sets in (wanted, said))
        out[names[label]] = {
            "precision": _among(told, true, subjects) if told.any() else {"value": 0.0},
            "recall": _among(true, told, subjects),
            "f1": _f1(true, told, subjects),
            "count": int(true.sum()),
        }
    invented = sum(len(labels - names.keys()) for labels in said)
    nothing: Table = {name: {"value": 0.0} for name in ("precision", "recall", "f1")}
    return out | ({"(other)": nothing | {"count": 0, "said": invented}} if invented else {})


def _among(these: np.ndarray, those: np.ndarray, subjects: Sequence[str]) -> Table:
    """The share of those among these."""
    at = np.flatnonzero(these).tolist()
    return share_of([bool(those[i]) for i in at], [subjects[i] for i in at]).to_dict()


def _f1(true: np.ndarray, told: np.ndarray, subjects: Sequence[str]) -> Table:
    """F1, which follows from the share that is both, of all that are either: its interval is that of this share."""
    either = np.flatnonzero(true | told).tolist()
    share = share_of([bool(true[i] and told[i]) for i in either], [subjects[i] for i in either])
    value, low, high = (2 * part / (1 + part) for part in (share.value, share.low, share.high))
    return Estimate(value, low, high, share.count, share.subjects).to_dict()


def _ask(rows: list[Row]) -> Table:
    table: Table = {}
    first = _first(rows)
    for kind in ("closed", "open"):
        part = [row for row in rows if row.kind == kind]
        if part:
            table[kind] = {
                "accuracy": _share(part, lambda r: bool(r.exact)),
                "accuracy_published": _share([row for row in first if row.kind == kind], lambda r: bool(r.substring)),
            }
    return table


def _texts(rows: list[Row]) -> Table:
    from .texts import text_scores

    table: Table = {"strict": text_scores(rows), "published": text_scores(_first(rows))}
    if any(row.there is not None for row in rows):
        table["strict"]["dice"] = _mean([row for row in rows if row.there is not None], lambda r: r.dice)
    return table


TABLES: dict[str, Callable[[list[Row]], Table]] = {
    "segment": _segment,
    "outline": _outline,
    "recognize": _recognize,
    "classify": _classify,
    "describe": _texts,
    "report": _texts,
    "ask": _ask,
}


# ---------------------------------------------------------------- helpers


def _first(rows: Sequence[Row]) -> list[Row]:
    taken: Counter[str] = Counter()
    kept = []
    for row in rows:
        taken[row.dataset] += 1
        if taken[row.dataset] <= PUBLISHED_LIMIT:
            kept.append(row)
    return kept


def _mean(rows: Sequence[Row], value: Callable[[Row], float]) -> Table:
    return mean_of([value(row) for row in rows], [row.subject for row in rows]).to_dict()


def _share(rows: Sequence[Row], which: Callable[[Row], bool]) -> Table:
    return share_of([which(row) for row in rows], [row.subject for row in rows]).to_dict()


def _macro(
    rows: Sequence[Row], by: Callable[[Row], str], value: Callable[[Row], float], *, shares: bool = False
) -> Table:
    return macro_mean(((by(row), row.subject, value(row)) for row in rows), shares=shares).to_dict()


def _split(rows: Sequence[Row], by: Callable[[Row], str], make: Callable[[list[Row]], Table]) -> Table:
    parts: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        parts[by(row)].append(row)
    return {name: make(part) for name, part in sorted(parts.items())}
