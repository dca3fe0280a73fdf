"""Tests of whether answers depend on the image: paired images, paraphrases and perturbations.

All tables are computed from sample scores; no model is run.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from typing import Any

from unibiomed.metrics.intervals import dyadic_proportion, macro_mean, proportion_estimate

from .sample_scores import SampleScore
from .samples import IN_CONTEXT

__all__ = ["pair_table", "paraphrase_table", "robustness_table"]

Results = dict[str, Any]


def pair_table(samples: Sequence[SampleScore], limit: int, seed: int) -> Results:
    """Test whether a model distinguishes an image with a target from one without (after MediConfusion).

    A model that uses the image answers both correctly (set accuracy). One that answers from the question alone gives
    the same answer to both (confusion). Random answers give 25 % and 50 %.

    Parameters
    ----------
    samples : sequence of SampleScore
        Perturbed images and paraphrases are ignored.
    limit : int
        Number of pairs per question (0 for all).
    seed : int
        Seed of the choice of pairs.

    Returns
    -------
    dict
        ``masks``: ``segment``, with pairs from one data set. ``masks_out_of_context``: ``segment``, with
        out-of-context images. ``text``: recognition of a normal and an abnormal image. Each has ``set_accuracy`` (any
        mask or finding is correct for the image with the target), ``set_accuracy_strict`` (the mask must intersect the
        target, findings must have the right names), ``confusion``, ``unreadable`` answers, and the same per question.
    """
    out: Results = {}
    originals = [s for s in samples if s.original]
    # a model that is given the ground-truth box knows which image shows the target
    masks = [s for s in originals if s.task == "segment" and not s.true_box]
    in_context = [s for s in masks if s.kind == IN_CONTEXT]
    mixed = [s for s in masks if s.out_of_context or s.target_present]
    text = [s for s in originals if s.task == "recognize"]
    groups = {
        # the second value is part of the random seed and must not change
        "masks": (_group(in_context, lambda s: f"{s.target} ({s.dataset})"), "masks"),
        "masks_out_of_context": (_group(mixed, lambda s: s.target), "masks_foreign"),
        "text": (_group(text, lambda s: s.dataset), "text"),
    }
    for name, (questions, tag) in groups.items():
        pairs = {
            key: _make_pairs(present, absent, limit, f"{seed}/{tag}/{key}")
            for key, (present, absent) in sorted(questions.items())
        }
        if pairs:
            out[name] = _evaluate_pairs([pair for part in pairs.values() for pair in part])
            out[name]["questions"] = {key: _evaluate_pairs(part) for key, part in pairs.items()}
    return out


def _evaluate_pairs(pairs: Sequence[tuple[SampleScore, SampleScore]]) -> Results:
    def answer(score: SampleScore) -> bool | None:
        # an answer that neither names nor denies a finding is unreadable
        return None if score.failure is not None or score.predicted_labels == [] else bool(score.predicted_present)

    answers = [(answer(a), answer(b)) for a, b in pairs]
    subjects = [(a.subject, b.subject) for a, b in pairs]
    right = [a is True and b is False for a, b in answers]
    strict = [both and _is_correct(present) for both, (present, _) in zip(right, pairs, strict=True)]
    same = [a is not None and a == b for a, b in answers]
    return {
        "set_accuracy": dyadic_proportion(list(map(float, right)), subjects).to_dict(),
        "set_accuracy_strict": dyadic_proportion(list(map(float, strict)), subjects).to_dict(),
        "confusion": dyadic_proportion(list(map(float, same)), subjects).to_dict(),
        "unreadable": sum(one is None for pair in answers for one in pair),
    }


def _is_correct(score: SampleScore) -> bool:
    return score.detected if score.task == "segment" else bool(score.exact_match)


def _group(
    samples: Sequence[SampleScore], by: Callable[[SampleScore], str]
) -> dict[str, tuple[list[SampleScore], list[SampleScore]]]:
    """Split samples by question into those with and without the target; questions must have both."""
    groups: dict[str, tuple[list[SampleScore], list[SampleScore]]] = defaultdict(lambda: ([], []))
    for score in samples:
        groups[by(score)][0 if score.target_present else 1].append(score)
    return {key: both for key, both in groups.items() if both[0] and both[1]}


def _make_pairs(
    present: list[SampleScore], absent: list[SampleScore], limit: int, seed: str
) -> list[tuple[SampleScore, SampleScore]]:
    """Make random pairs in which each image occurs at most once."""
    rng = random.Random(seed)
    present, absent = sorted(present, key=lambda s: s.id), sorted(absent, key=lambda s: s.id)
    rng.shuffle(present)
    rng.shuffle(absent)
    return list(zip(present, absent, strict=False))[: limit or None]


def paraphrase_table(samples: Sequence[SampleScore]) -> Results:
    """Compute the agreement of answers to paraphrases with those to the original questions, and their scores."""
    out: Results = {}
    for task in ("segment", "recognize", "ask", "classify"):
        unperturbed = [s for s in samples if s.task == task and s.perturbation is None]
        paraphrases = [s for s in unperturbed if s.paraphrase]
        if not paraphrases:
            continue
        agreement = [(s.target, s.subject, s.agreement or 0.0) for s in paraphrases]
        out[task] = {"agreement": macro_mean(agreement, proportion=task != "segment").to_dict()}
        if task == "segment":
            originals = [s for s in unperturbed if not s.paraphrase and s.kind == IN_CONTEXT]
            for name, part in (("dice", paraphrases), ("dice_original", originals)):
                out[task][name] = macro_mean((s.target, s.subject, s.dice) for s in part if s.target_present).to_dict()
    return out


def robustness_table(samples: Sequence[SampleScore]) -> Results:
    """Compute scores for each perturbation and strength on the same samples; strength 0 is the original image.

    A ``segment`` sample is included only if its target is present at every strength, or absent at every strength,
    because cropping may remove a target. Targets that a flip exchanges, such as left and right lung, are not evaluated
    on flipped images.
    """
    out: Results = {}
    perturbed = [s for s in samples if s.perturbation is not None]
    if not perturbed:
        return out
    originals = {s.id: s for s in samples if s.original}
    lateral = _lateral_targets({name for s in samples for name in _names(s)})
    by_name: dict[str, dict[str, dict[int, SampleScore]]] = defaultdict(lambda: defaultdict(dict))
    for score in perturbed:
        if score.perturbation == "flip" and lateral & {name.lower() for name in _names(score)}:
            continue
        sample_id = score.id.rpartition("@")[0]
        by_name[score.perturbation or ""][sample_id] |= {score.strength: score, 0: originals[sample_id]}
    for name, groups in sorted(by_name.items()):
        strengths = sorted({strength for group in groups.values() for strength in group})
        comparable = [
            group
            for group in groups.values()
            if len(group) == len(strengths) and len({s.target_present for s in group.values()}) == 1
        ]
        out[name] = {
            str(strength): _strength_scores([group[strength] for group in comparable]) for strength in strengths
        }
    return out


def _names(score: SampleScore) -> tuple[str, ...]:
    return (score.target, *(score.true_labels or []))


def _lateral_targets(names: Collection[str]) -> set[str]:
    """Return the names, in lower case, that a flip exchanges; "left ventricle" does not depend on the side."""
    known = {name.lower() for name in names}
    lateral = set()
    for name in known:
        side, _, rest = name.partition(" ")
        other = {"left": "right", "right": "left"}.get(side)
        if other and f"{other} {rest}" in known and not rest.startswith(("ventric", "atri")):
            lateral.add(name)
    return lateral


def _strength_scores(samples: Sequence[SampleScore]) -> Results:
    segment = [s for s in samples if s.task == "segment"]
    present = [s for s in segment if s.target_present and s.kind == IN_CONTEXT]
    absent = [s for s in segment if not s.target_present and not s.true_box]
    recognize = [s for s in samples if s.task == "recognize"]
    table: Results = {"dice": macro_mean((s.target, s.subject, s.dice) for s in present).to_dict()}
    for name, part, values in (
        ("false_masks", absent, [bool(s.predicted_present) for s in absent]),
        ("accuracy", recognize, [bool(s.exact_match) for s in recognize]),
    ):
        if part:
            table[name] = proportion_estimate(values, [s.subject for s in part]).to_dict()
    return table
