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

from unibiomed.metrics.calibration import calibration_error, reliability, risk_coverage
from unibiomed.metrics.classification import auroc
from unibiomed.metrics.instances import Panoptic
from unibiomed.metrics.segmentation import Overlap

from .confusion import count_answers, joined
from .intervals import macro_mean, mean_of
from .rows import Row

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
    foreign = [row for row in rows if row.kind == "foreign"]
    there = [row for row in own if row.there]
    published = to_be_published(rows)
    strict: Table = {
        "dice": _macro(there, lambda r: r.target, lambda r: r.dice),
        "dice_with_absent": _macro(own, lambda r: r.target, lambda r: r.dice),
        "iou": _macro(there, lambda r: r.target, lambda r: r.iou),
        "surface_dice": _macro(there, lambda r: r.target, lambda r: r.surface_dice or 0.0),
        "detected": _mean(there, lambda r: float(r.detected)),
        "false_masks": _mean([r for r in own if not r.there], lambda r: float(bool(r.found))),
        "false_masks_foreign": _mean(foreign, lambda r: float(bool(r.found))),
        "false_parts": _mean([r for r in own if r.false_parts is not None], lambda r: float(r.false_parts or 0)),
        "targets": _split(own, lambda r: r.target, _target),
        "modalities": _split(there, lambda r: r.modality, _by_target),
        "datasets": _split(there, lambda r: r.dataset, _by_target),
    }
    if volumes := _volumes(own, every=True):
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
        "scores": _judged(rows),
    }


def _target(rows: list[Row]) -> Table:
    there = [row for row in rows if row.there]
    # a distance in pixels and one in mm have no mean
    far = [row for row in there if row.measured and row.hd95 is not None]
    table = {
        "dice": _mean(there, lambda r: r.dice),
        "dice_with_absent": _mean(rows, lambda r: r.dice),
        "iou": _mean(there, lambda r: r.iou),
        "surface_dice": _mean(there, lambda r: r.surface_dice or 0.0),
        "detected": _mean(there, lambda r: float(r.detected)),
        "false_masks": _mean([r for r in rows if not r.there], lambda r: float(bool(r.found))),
    }
    return table | ({"hd95_mm": _mean(far, lambda r: r.hd95 or 0.0)} if far else {})


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
    total = Panoptic()
    for row in rows:
        if row.objects:
            _, matched, extra, missed, shared = row.objects
            total = total + Panoptic(int(matched), int(extra), int(missed), shared)
    return {
        "aji": _mean([row for row in rows if row.there], lambda r: r.objects[0] if r.objects else 0.0),
        "pq": total.quality,
        "sq": total.segmentation_quality,
        "rq": total.recognition_quality,
    }


def _judged(rows: list[Row]) -> Table:
    """How much the model's own scores are worth."""
    own = [row for row in rows if row.kind == "own"]
    out: Table = {}
    for name, part in (("presence", rows), ("presence_own", own)):
        judged = [row for row in part if row.presence is not None and row.there is not None]
        if len({row.there for row in judged}) == 2:
            presence, there = [row.presence or 0.0 for row in judged], [bool(row.there) for row in judged]
            out[name] = {
                "auroc": auroc(presence, there),
                "calibration_error": calibration_error(presence, there),
                "count": len(judged),
                "reliability": [
                    [round(one.score, 6), round(one.truth, 6), one.count]
                    for one in reliability(presence, there)
                    if one.count
                ],
            }
    overlap = [row for row in rows if row.there and row.presence is not None and row.mask_score is not None]
    if overlap:
        scores = [row.mask_score or 0.0 for row in overlap]
        sure = [row for row in rows if row.kind != "foreign"]
        out["mask"] = {
            "calibration_error": calibration_error(scores, [row.iou for row in overlap]),
            # of all masks, the empty and the failed ones too: what is lost when only the surest are kept
            "aurc": risk_coverage([row.sureness for row in sure], [1 - row.dice for row in sure]).area,
            "count": len(overlap),
        }
    return out


# ---------------------------------------------------------------- words


def _classify(rows: list[Row]) -> Table:
    return _labels(rows, _first(rows))


def _labels(rows: list[Row], first: list[Row]) -> Table:
    """Recognition and region classification: exact in all rows, as a part of the answer in the `first` ones."""
    return {
        "strict": {
            "accuracy": _mean(rows, lambda r: float(bool(r.exact))),
            "balanced_accuracy": _macro(rows, _name, lambda r: float(bool(r.exact))),
            "labels": _split(rows, _name, lambda part: {"accuracy": _mean(part, lambda r: float(bool(r.exact)))}),
            "per_label": _per_label(rows),
            "confusion": count_answers(rows),
            "datasets": _split(
                rows, lambda r: r.dataset, lambda part: {"accuracy": _mean(part, lambda r: float(bool(r.exact)))}
            ),
        },
        "published": {"accuracy": _mean(first, lambda r: float(bool(r.substring)))},
    }


def _recognize(rows: list[Row]) -> Table:
    # as published, normal images are left out
    first = _first([row for row in rows if row.there])
    table = _labels(rows, first)
    normal = [row for row in rows if not row.there]
    table["strict"] |= {
        "false_findings": _mean(normal, lambda r: float(bool(r.found))),
        "missed": _mean([row for row in rows if row.there], lambda r: float(not r.found)),
        "dice": _mean(rows, lambda r: r.dice),
        # a right outline under a wrong finding is worth nothing
        "dice_labelled": _mean(rows, lambda r: r.dice if r.exact or not r.there else 0.0),
    }
    if any(row.presence is not None for row in rows) and len({bool(row.there) for row in rows}) == 2:
        table["strict"]["presence_auroc"] = auroc([_presence(row) for row in rows], [bool(row.there) for row in rows])
    table["published"]["dice"] = _mean(first, lambda r: r.dice)
    return table


def _presence(row: Row) -> float:
    """The score of a finding; an answer without one is sure of what it says, and a failure surely wrong."""
    return float(bool(row.found)) if row.presence is None else row.presence


def _name(row: Row) -> str:
    return joined(row.wanted or [])


def _per_label(rows: Sequence[Row]) -> Table:
    """Precision, recall and F1 of each label, where an answer may name several."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    names: dict[str, str] = {}
    for row in rows:
        wanted = {w.lower().strip(" ."): w for w in row.wanted or []}
        said = set() if row.failure is not None else {s.lower().strip(" .") for s in row.said or []}
        names |= wanted
        for label in wanted.keys() | said:
            counts[label][0] += label in wanted and label in said
            counts[label][1] += label in said
            counts[label][2] += label in wanted
    out = {}
    for label, (hits, said_times, true_times) in sorted(counts.items()):
        if not true_times:
            continue
        out[names[label]] = {
            "precision": hits / said_times if said_times else 0.0,
            "recall": hits / true_times,
            "f1": 2 * hits / (said_times + true_times),
            "count": true_times,
        }
    invented = sum(said for hits, said, true in counts.values() if not true)
    return out | (
        {"(other)": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "count": 0, "said": invented}} if invented else {}
    )


def _ask(rows: list[Row]) -> Table:
    table: Table = {}
    first = _first(rows)
    for kind in ("closed", "open"):
        part = [row for row in rows if row.kind == kind]
        if part:
            table[kind] = {
                "accuracy": _mean(part, lambda r: float(bool(r.exact))),
                "accuracy_published": _mean(
                    [row for row in first if row.kind == kind], lambda r: float(bool(r.substring))
                ),
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


def _macro(rows: Sequence[Row], by: Callable[[Row], str], value: Callable[[Row], float]) -> Table:
    return macro_mean((by(row), row.subject, value(row)) for row in rows).to_dict()


def _split(rows: Sequence[Row], by: Callable[[Row], str], make: Callable[[list[Row]], Table]) -> Table:
    parts: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        parts[by(row)].append(row)
    return {name: make(part) for name, part in sorted(parts.items())}
