"""What the figures need of the rows of each model: read once, a line at a time, for suites too large to hold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from sys import intern
from typing import Any, NamedTuple

import numpy as np

from unibiomed.metrics.statistics import holm, paired_t_test

from ..compare import FEWEST
from ..judged import told_presence
from ..rows import read_rows

__all__ = ["Answers", "Scored", "Size", "gather", "modality_tests", "p_values", "sizes", "stars"]


class Scored(NamedTuple):
    """One image that shows the target, with the Dice of its mask in [0, 1]."""

    dataset: str
    modality: str
    subject: str
    dice: float
    number: int = 0
    """Place of the image in its data set."""


class Size(NamedTuple):
    """How much a score rests on: an image that shows three targets has three masks."""

    masks: int
    images: int
    subjects: int

    def lines(self, joint: str = "\n") -> str:
        """In words, the kinds of numbers parted by `joint`."""
        names = {"mask": self.masks, "image": self.images, "subject": self.subjects}
        return joint.join(f"{number:,} {name}{'' if number == 1 else 's'}" for name, number in names.items())


@dataclass
class Answers:
    """The masks of one model, in short.

    Parameters
    ----------
    scored : list of Scored
        Segmentation of targets that are there.
    presence : list of (float, bool)
        Presence score, and whether the target is there; other body parts' targets included.
    overlap : list of (float, float)
        Mask score and IoU of targets that are there.
    sure : list of (float, float)
        How sure each mask is, and 1 - Dice, targets of the image's own kind that are absent included; empty where the
        model gives no scores, or is given the box of the truth.
    """

    scored: list[Scored] = field(default_factory=list)
    presence: list[tuple[float, bool]] = field(default_factory=list)
    overlap: list[tuple[float, float]] = field(default_factory=list)
    sure: list[tuple[float, float]] = field(default_factory=list)


def gather(path: Path) -> Answers:
    """Read the rows of one model; changed images and questions in other words are left out.

    Raises
    ------
    DataError
        The file is missing or broken.
    """
    found = Answers()
    scores = present = False
    for row in read_rows(path):
        if row.task != "segment" or row.change is not None or row.paraphrase:
            continue
        present = present or row.presence is not None
        if (presence := told_presence(row)) is not None:
            found.presence.append((presence, bool(row.there)))
        if row.there and row.mask_score is not None:
            found.overlap.append((row.mask_score, row.iou))
        if row.kind == "foreign":
            continue
        if not row.boxed:
            scores = scores or row.presence is not None or row.mask_score is not None
            found.sure.append((row.sureness, 1 - row.dice))
        if row.there:
            names = intern(row.dataset), intern(row.modality), intern(row.subject)
            found.scored.append(Scored(*names, row.dice, row.number))
    if not scores:
        found.sure = []
    if not present:
        # failures alone tell nothing of scores
        found.presence = []
    return found


def sizes(answers: Mapping[str, Answers], group: Callable[[Scored], str]) -> dict[str, Size]:
    """What the scores of each group rest on, of the model that was asked most."""
    out: dict[str, Size] = {}
    for found in answers.values():
        parts: dict[str, list[Scored]] = defaultdict(list)
        for one in found.scored:
            parts[group(one)].append(one)
        for key, part in parts.items():
            images, subjects = {(one.dataset, one.number) for one in part}, {one.subject for one in part}
            out[key] = max(out.get(key, Size(0, 0, 0)), Size(len(part), len(images), len(subjects)))
    return out


def p_values(
    answers: Mapping[str, Answers], group: Callable[[Scored], str], fewest: int = FEWEST
) -> dict[tuple[str, str], float]:
    """Two-sided paired t-tests of Dice by subject, the first model against each other one, in each group.

    Parameters
    ----------
    answers : mapping of str to Answers
    group : callable
        What is tested apart, such as the modality.
    fewest : int
        Subjects below which no test is made.

    Returns
    -------
    dict
        Model and group to the P value, Holm-corrected over all tests.
    """
    means = {name: _means(found.scored, group) for name, found in answers.items()}
    if len(means) < 2:
        return {}
    first, *others = means
    raw: dict[tuple[str, str], float] = {}
    for other in others:
        for key, mine in means[first].items():
            theirs = means[other].get(key, {})
            both = sorted(mine.keys() & theirs.keys())
            if len(both) >= fewest:
                raw[other, key] = paired_t_test([mine[s] for s in both], [theirs[s] for s in both]).p
    return dict(zip(raw, map(float, holm(list(raw.values()))), strict=True))


def modality_tests(answers: Mapping[str, Answers]) -> list[dict[str, Any]]:
    """The tests behind the stars of the figure by modality: the first model (``a``) against each other one (``b``).

    Parameters
    ----------
    answers : mapping of str to Answers

    Returns
    -------
    list of dict
        ``a``, ``b``, ``modality`` and ``p_adjusted``, from `p_values`.
    """
    return [
        {"a": next(iter(answers)), "b": other, "modality": modality, "p_adjusted": p}
        for (other, modality), p in p_values(answers, lambda one: one.modality).items()
    ]


def _means(scored: Sequence[Scored], group: Callable[[Scored], str]) -> dict[str, dict[str, float]]:
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for one in scored:
        values[group(one)][one.subject].append(one.dice)
    return {key: {s: float(np.mean(v)) for s, v in people.items()} for key, people in values.items()}


def stars(p: float | None) -> str:
    """The usual signs: ``*`` p < 0.05, ``**`` < 0.01, ``***`` < 0.001; empty for more, or where nothing was tested."""
    return "" if p is None else "*" * sum(p < level for level in (0.05, 0.01, 0.001))
