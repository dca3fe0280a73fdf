"""Results of one predictor for every task, in the strict and the published protocol, with intervals.

Strict protocol: every image counts, including those without the target, answers must match exactly, and failures
score 0.

Published protocol (that of the authors' evaluation code): only the first 300 annotations of each data set count, images
without the target are left out, an answer is correct if it contains the label, and the Dice of a volume ignores slices
without the target.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from unibiomed.metrics.intervals import Estimate, bootstrap_estimate, macro_mean, mean_estimate, proportion_estimate
from unibiomed.metrics.segmentation import Overlap
from unibiomed.tasks import SOMETHING_ELSE

from .confusion import count_predicted_labels, join_labels
from .sample_scores import SampleScore
from .samples import BACKGROUND_BOX
from .score_metrics import presence_auroc, summarise_scores
from .task_scorers import normalise_answer

__all__ = ["PUBLISHED_LIMIT", "published_subset", "summarise"]

PUBLISHED_LIMIT = 300
Results = dict[str, Any]
Samples = Sequence[SampleScore]


def summarise(samples: Iterable[SampleScore]) -> Results:
    """Compute all results of one predictor as a JSON value.

    Parameters
    ----------
    samples : iterable of SampleScore

    Returns
    -------
    dict
        Number of ``samples``, ``failures`` by reason, and one entry for each task that has samples.
    """
    tasks: dict[str, list[SampleScore]] = defaultdict(list)
    failures: Counter[str] = Counter()
    number = 0
    for score in samples:
        number += 1
        if score.failure is not None:
            failures[f"{score.task}: {score.failure}"] += 1
        if score.original:
            tasks[score.task].append(score)
    out: Results = {"samples": number, "failures": dict(failures.most_common())}
    for task, summarise_task in TASK_SUMMARIES.items():
        if tasks[task]:
            out[task] = summarise_task(tasks[task])
    return out


def published_subset(samples: Iterable[SampleScore]) -> list[SampleScore]:
    """Return the first 300 samples of each data set whose target is present, in the order of the images."""
    return _first(s for s in samples if s.target_present and not s.out_of_context)


# ---------------------------------------------------------------- segmentation


def _segment(samples: Samples) -> Results:
    in_context = [s for s in samples if not s.out_of_context]
    present = [s for s in in_context if s.target_present]
    # a predictor that is given the ground-truth box knows whether the target is present
    without_box = [s for s in samples if not s.true_box]
    in_context_without_box = [s for s in without_box if not s.out_of_context]
    out_of_context = [s for s in without_box if s.out_of_context]
    absent = [s for s in in_context_without_box if not s.target_present]
    published = published_subset(samples)
    strict: Results = {
        "dice": _macro(present, _target, _dice),
        "dice_with_absent": _macro(in_context_without_box, _target, _dice),
        "iou": _macro(present, _target, _iou),
        "surface_dice": _macro(present, _target, _surface_dice),
        "detected": _proportion(present, lambda s: s.detected),
        "false_masks": _proportion(absent, _predicted),
        "false_masks_out_of_context": _proportion(out_of_context, _predicted),
        "false_components": _mean(
            [s for s in in_context_without_box if s.false_components is not None],
            lambda s: float(s.false_components or 0),
        ),
        "targets": _split(in_context, _target, _target_results),
        "modalities": _split(present, _modality, _macro_dice),
        "datasets": _split(present, _dataset, _macro_dice),
    }
    if volumes := _volumes(in_context_without_box, all_slices=True):
        strict["volumes"] = volumes
    if with_objects := [s for s in in_context if s.object_counts is not None]:
        strict["objects"] = _split(with_objects, _target, _objects)
    return {
        "strict": strict,
        "published": {
            "dice": _macro(published, _target, _dice),
            "targets": _split(published, _target, _mean_dice),
            "modalities": _split(published, _modality, _macro_dice),
            "datasets": _split(published, _dataset, _macro_dice),
            "volumes": _volumes(in_context, all_slices=False),
        },
        "scores": summarise_scores(samples),
    }


def _outline(samples: Samples) -> Results:
    """Summarise segmentation from ground-truth boxes, for which every target is present."""
    return {
        "strict": {
            "dice": _macro(samples, _target, _dice),
            "iou": _macro(samples, _target, _iou),
            "surface_dice": _macro(samples, _target, _surface_dice),
            "targets": _split(samples, _target, _mean_dice),
            "modalities": _split(samples, _modality, _macro_dice),
            "datasets": _split(samples, _dataset, _macro_dice),
        }
    }


def _target_results(samples: Samples) -> Results:
    present = [s for s in samples if s.target_present]
    without_box = [s for s in samples if not s.true_box]
    table = {
        "dice": _mean(present, _dice),
        "dice_with_absent": _mean(without_box, _dice),
        "iou": _mean(present, _iou),
        "surface_dice": _mean(present, _surface_dice),
        "detected": _proportion(present, lambda s: s.detected),
        "false_masks": _proportion([s for s in without_box if not s.target_present], _predicted),
    }
    # distances in mm and in pixels must not be averaged
    for name, in_mm in (("hd95_mm", True), ("hd95_pixels", False)):
        part = [s for s in present if s.spacing_known == in_mm]
        measured = [s for s in part if s.hd95 is not None]
        if part:
            table[name] = _mean(measured, lambda s: s.hd95 or 0.0) | {"unmeasured": len(part) - len(measured)}
    return table


def _mean_dice(samples: Samples) -> Results:
    return {"dice": _mean(samples, _dice)}


def _macro_dice(samples: Samples) -> Results:
    return {"dice": _macro(samples, _target, _dice)}


def _volumes(samples: Samples, *, all_slices: bool) -> Results:
    """Compute the Dice of volumes over all slices, or (published protocol) over slices with the target.

    A volume without the target counts over all slices only: 1 if the prediction is empty, else 0.
    """
    overlaps: dict[tuple[str, str, str], Overlap] = {}
    subjects: dict[tuple[str, str, str], str] = {}
    failed: set[tuple[str, str, str]] = set()
    for score in samples:
        if score.volume is None or not (all_slices or score.target_present):
            continue
        key = (score.target, score.dataset, score.volume)
        subjects[key] = score.subject
        if score.failure is not None:
            failed.add(key)
            continue
        assert score.intersection is not None and score.predicted_area is not None and score.true_area is not None
        overlap = Overlap(score.intersection, score.predicted_area, score.true_area)
        overlaps[key] = overlaps.get(key, Overlap()) + overlap
    by_target: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for key, subject in subjects.items():
        total = overlaps.get(key, Overlap())
        if all_slices or total.true or key in failed:
            by_target[key[0]].append((0.0 if key in failed else total.dice, subject))
    return {
        target: mean_estimate([v for v, _ in values], [s for _, s in values]).to_dict()
        for target, values in sorted(by_target.items())
    }


def _objects(samples: Samples) -> Results:
    """Compute AJI (mean over images with an object) and panoptic quality (over all images)."""
    counts = np.array([s.object_counts[1:] for s in samples if s.object_counts])
    matched, unmatched, iou_sum = counts[:, 0], (counts[:, 1] + counts[:, 2]) / 2, counts[:, 3]
    subjects = [s.subject for s in samples if s.object_counts]

    def ratio(numerator: np.ndarray, denominator: np.ndarray) -> Results:
        def statistic(weights: np.ndarray) -> np.ndarray:
            total = weights @ denominator
            values: np.ndarray = np.divide(weights @ numerator, total, out=np.full(len(total), np.nan), where=total > 0)
            return values

        return bootstrap_estimate(statistic, subjects).to_dict()

    return {
        "aji": _mean(
            [s for s in samples if s.target_present], lambda s: s.object_counts[0] if s.object_counts else 0.0
        ),
        # PQ = SQ · RQ, where SQ is the mean over matched pairs
        "pq": ratio(iou_sum, matched + unmatched),
        "sq": ratio(iou_sum, matched),
        "rq": ratio(matched, matched + unmatched),
    }


# ---------------------------------------------------------------- labels and texts


def _classify(samples: Samples) -> Results:
    regions = [s for s in samples if s.kind != BACKGROUND_BOX]
    table = _label_results(regions, _first(regions))
    if background := [s for s in samples if s.kind == BACKGROUND_BOX]:
        table["strict"] |= {
            "background_accuracy": _proportion(background, _exact),
            "accuracy_with_background": _proportion(samples, _exact),
            "called_background": _proportion(
                regions, lambda s: list(map(normalise_answer, s.predicted_labels or [])) == [SOMETHING_ELSE]
            ),
        }
    return table


def _label_results(samples: Samples, first: Samples) -> Results:
    """Summarise recognition or region classification; the published protocol uses the `first` samples only."""
    return {
        "strict": {
            "accuracy": _proportion(samples, _exact),
            "balanced_accuracy": _macro(samples, _label, _exact, proportion=True),
            "labels": _split(samples, _label, _accuracy),
            "per_label": _per_label(samples),
            "confusion": count_predicted_labels(samples),
            "datasets": _split(samples, _dataset, _accuracy),
        },
        "published": {"accuracy": _proportion(first, lambda s: bool(s.substring_match))},
    }


def _recognize(samples: Samples) -> Results:
    abnormal, normal = ([s for s in samples if bool(s.target_present) == state] for state in (True, False))
    # the published protocol leaves out normal images
    first = _first(abnormal)
    table = _label_results(samples, first)
    table["strict"] |= {
        "false_findings": _proportion(normal, _predicted),
        "missed": _proportion(abnormal, lambda s: not s.predicted_present),
        "dice": _mean(samples, _dice),
        # a mask with the wrong label, or a finding in a normal image, scores 0
        "dice_correct_label": _mean(samples, lambda s: s.dice if s.exact_match else 0.0),
    }
    if any(s.presence is not None for s in samples) and abnormal and normal:
        table["strict"]["presence_auroc"] = presence_auroc(
            [_presence(s) for s in samples], [bool(s.target_present) for s in samples], [s.subject for s in samples]
        )
    table["published"]["dice"] = _mean(first, _dice)
    return table


def _presence(score: SampleScore) -> float:
    """Return the presence score in [0, 1]; 1 or 0 for a mask with or without pixels if the model reports no score."""
    return float(bool(score.predicted_present)) if score.presence is None else score.presence


def _per_label(samples: Samples) -> Results:
    """Compute precision, recall and F1 of each label; an answer may name several labels."""
    names: dict[str, str] = {}
    true_sets: list[set[str]] = []
    predicted_sets: list[set[str]] = []
    for score in samples:
        spelling = {normalise_answer(label): label for label in score.true_labels or []}
        names |= spelling
        true_sets.append(set(spelling))
        labels = [] if score.failure is not None else score.predicted_labels or []
        predicted_sets.append(set(map(normalise_answer, labels)))
    subjects = [score.subject for score in samples]
    out = {}
    for label in sorted(names):
        true, predicted = (np.array([label in labels for labels in sets], bool) for sets in (true_sets, predicted_sets))
        out[names[label]] = {
            "precision": _proportion_among(predicted, true, subjects) if predicted.any() else {"value": 0.0},
            "recall": _proportion_among(true, predicted, subjects),
            "f1": _f1(true, predicted, subjects),
            "count": int(true.sum()),
        }
    unknown = sum(len(labels - names.keys()) for labels in predicted_sets)
    zero: Results = {name: {"value": 0.0} for name in ("precision", "recall", "f1")}
    return out | ({"(other)": zero | {"count": 0, "predicted": unknown}} if unknown else {})


def _proportion_among(group: np.ndarray, positive: np.ndarray, subjects: Sequence[str]) -> Results:
    """Return the proportion of positives in a group."""
    indices = np.flatnonzero(group).tolist()
    return proportion_estimate([bool(positive[i]) for i in indices], [subjects[i] for i in indices]).to_dict()


def _f1(true: np.ndarray, predicted: np.ndarray, subjects: Sequence[str]) -> Results:
    """Return F1 = 2p / (1 + p), where p is the proportion of the intersection in the union, with the interval of p."""
    either = np.flatnonzero(true | predicted).tolist()
    p = proportion_estimate([bool(true[i] and predicted[i]) for i in either], [subjects[i] for i in either])
    value, low, high = (2 * part / (1 + part) for part in (p.value, p.low, p.high))
    return Estimate(value, low, high, p.count, p.subjects).to_dict()


def _ask(samples: Samples) -> Results:
    table: Results = {}
    first = _first(samples)
    for kind in ("closed", "open"):
        part = [s for s in samples if s.kind == kind]
        if part:
            table[kind] = {
                "accuracy": _proportion(part, _exact),
                "accuracy_published": _proportion(
                    [s for s in first if s.kind == kind], lambda s: bool(s.substring_match)
                ),
            }
    return table


def _texts(samples: Samples) -> Results:
    from .text_metrics import text_scores

    table: Results = {"strict": text_scores(samples), "published": text_scores(_first(samples))}
    if with_masks := [s for s in samples if s.target_present is not None]:
        table["strict"]["dice"] = _mean(with_masks, _dice)
    return table


TASK_SUMMARIES: dict[str, Callable[[Samples], Results]] = {
    "segment": _segment,
    "outline": _outline,
    "recognize": _recognize,
    "classify": _classify,
    "describe": _texts,
    "report": _texts,
    "ask": _ask,
}


# ---------------------------------------------------------------- helpers


def _target(score: SampleScore) -> str:
    return score.target


def _modality(score: SampleScore) -> str:
    return score.modality


def _dataset(score: SampleScore) -> str:
    return score.dataset


def _label(score: SampleScore) -> str:
    return join_labels(score.true_labels or [])


def _dice(score: SampleScore) -> float:
    return score.dice


def _iou(score: SampleScore) -> float:
    return score.iou


def _surface_dice(score: SampleScore) -> float:
    return score.surface_dice or 0.0


def _predicted(score: SampleScore) -> bool:
    return bool(score.predicted_present)


def _exact(score: SampleScore) -> bool:
    return bool(score.exact_match)


def _accuracy(samples: Samples) -> Results:
    return {"accuracy": _proportion(samples, _exact)}


def _first(samples: Iterable[SampleScore]) -> list[SampleScore]:
    """Return the first `PUBLISHED_LIMIT` samples of each data set."""
    counts: Counter[str] = Counter()
    first = []
    for score in samples:
        counts[score.dataset] += 1
        if counts[score.dataset] <= PUBLISHED_LIMIT:
            first.append(score)
    return first


def _mean(samples: Samples, value: Callable[[SampleScore], float]) -> Results:
    return mean_estimate([value(s) for s in samples], [s.subject for s in samples]).to_dict()


def _proportion(samples: Samples, condition: Callable[[SampleScore], bool]) -> Results:
    return proportion_estimate([condition(s) for s in samples], [s.subject for s in samples]).to_dict()


def _macro(
    samples: Samples,
    by: Callable[[SampleScore], str],
    value: Callable[[SampleScore], float],
    *,
    proportion: bool = False,
) -> Results:
    return macro_mean(((by(s), s.subject, value(s)) for s in samples), proportion=proportion).to_dict()


def _split(samples: Samples, by: Callable[[SampleScore], str], make: Callable[[Samples], Results]) -> Results:
    parts: dict[str, list[SampleScore]] = defaultdict(list)
    for score in samples:
        parts[by(score)].append(score)
    return {name: make(part) for name, part in sorted(parts.items())}
