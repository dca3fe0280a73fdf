"""The two numbers by which answers in words are weighed with masks, fitted on the validation split.

``finding_threshold`` decides whether ``recognize`` reports a finding; ``something_else_offset`` decides whether
``classify`` says that a box holds none of the targets that the model knows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from unibiomed.data.conversation import canonical_turns
from unibiomed.data.records import Record
from unibiomed.images import from_array
from unibiomed.interpret.asking import Asker
from unibiomed.interpret.boxes import name_box
from unibiomed.interpret.recognition import weigh_words
from unibiomed.tasks import SOMETHING_ELSE, is_no_findings, make_question, read_class

ANSWERED = 12
"""Images a data set that are asked: two boxes and a recognition take a second or two."""
MAX_FALSE_FINDINGS = 0.06
"""Share of the normal images of the validation split in which something may be found, the mean over modalities."""
MIN_NORMAL = 5
"""Normal images that a modality needs to count by itself; others are taken together."""


class Recognition(NamedTuple):
    """What words and masks say of one image, and what is true."""

    logit: float
    """That there is a finding, see :func:`~unibiomed.interpret.recognition.found_logit`."""
    found: bool
    """Whether the image shows a finding."""
    modality: str


class BoxedName(NamedTuple):
    """Probabilities of what one box holds, and what is true."""

    something_else: float
    """Probability of "something else" against the likeliest other name alone, with an offset of 0; in (0, 1)."""
    right: bool
    """Whether the likeliest other name is the right one; False for a box of something else."""
    other: bool
    """Whether the box holds something else."""


def calibrate_answers(asker: Asker, records: Iterable[Record], *, progress: bool = True) -> None:
    """Fit ``finding_threshold`` and ``something_else_offset`` into the model's configuration.

    Parameters
    ----------
    asker : Asker
        With calibrated presence scores and a vocabulary; without them nothing is fitted.
    records : iterable of Record
        Of the validation split, with images.
    progress : bool
        Show a progress bar on a terminal.
    """
    if not (asker.vocabulary and asker.model.config.scores_trained):
        return
    recognized: list[Recognition] = []
    boxed: list[BoxedName] = []
    for record in tqdm(records, desc="calibrating answers", unit="image", disable=None if progress else True):
        found, named = _ask(asker, record)
        recognized += found
        boxed += named
    if any(r.found for r in recognized) and not all(r.found for r in recognized):
        asker.model.config.finding_threshold = choose_finding_threshold(recognized)
    if any(b.other for b in boxed) and not all(b.other for b in boxed):
        asker.model.config.something_else_offset = choose_offset(boxed)


def _ask(asker: Asker, record: Record) -> tuple[list[Recognition], list[BoxedName]]:
    pixels = record.load_image()
    masks = {j: r.load(pixels.shape[:2]) for j, r in enumerate(record.regions) if not r.box}
    turns = canonical_turns(record, masks)
    recognize = [turn for turn in turns if turn.task == "recognize"]
    classify = [turn for turn in turns if turn.task == "classify" and turn.box is not None]
    # one box of a region and one of something else: boxes take as long as images
    chosen = [t for t in classify if t.box_region is not None][:1] + [t for t in classify if t.box_region is None][:1]
    if not (recognize or chosen):
        return [], []
    image = from_array(pixels)
    plain = asker.encode(image)
    recognized = []
    for turn in recognize:
        weighed = weigh_words(asker, plain, make_question("recognize", modality=record.modality), record.modality)
        if weighed is not None:
            recognized.append(Recognition(weighed[0], not is_no_findings(turn.answer), record.modality))
    boxed = []
    for turn in chosen:
        names = name_box(asker, plain, asker.encode(image, box=turn.box), record.modality)
        else_share = next((name.probability for name in names if name.label == SOMETHING_ELSE), None)
        if else_share is None:
            continue
        best = next(name for name in names if name.label != SOMETHING_ELSE)
        right = turn.box_region is not None and best.label.casefold() == read_class(turn.answer).casefold()
        share = else_share / max(else_share + best.probability, 1e-12)
        boxed.append(BoxedName(min(max(share, 1e-9), 1 - 1e-9), right, turn.box_region is None))
    return recognized, boxed


def choose_finding_threshold(recognized: Sequence[Recognition], most: float = MAX_FALSE_FINDINGS) -> float:
    """The lowest logit above which few enough normal images have a finding.

    Parameters
    ----------
    recognized : sequence of Recognition
        With images that show a finding and images that do not.
    most : float
        Largest share of normal images with a finding, the mean over modalities, in [0, 1].

    Returns
    -------
    float
        Halfway between two logits, so that it does not depend on the last digit of one image.
    """
    normal: dict[str, list[float]] = defaultdict(list)
    for image in recognized:
        if not image.found:
            normal[image.modality].append(image.logit)
    groups = [values for values in normal.values() if len(values) >= MIN_NORMAL]
    groups += [few] if (few := [v for values in normal.values() if len(values) < MIN_NORMAL for v in values]) else []
    levels = np.unique([image.logit for image in recognized])
    edges = np.concatenate([[levels[0] - 1], (levels[:-1] + levels[1:]) / 2, [levels[-1] + 1]])
    shares = np.mean([(np.array(values)[None] > edges[:, None]).mean(1) for values in groups], axis=0)
    return float(edges[np.flatnonzero(shares <= most)[0]])


def choose_offset(boxed: Sequence[BoxedName]) -> float:
    """The offset of "something else" with the highest balanced accuracy: boxes of targets and of other things.

    Parameters
    ----------
    boxed : sequence of BoxedName
        With boxes of both kinds.
    """
    # "something else" is said where its logit plus the offset is above 0, that is, above the likeliest other name
    logits = np.array([np.log(box.something_else) - np.log1p(-box.something_else) for box in boxed])
    other = np.array([box.other for box in boxed])
    right = np.array([box.right for box in boxed])
    levels = np.unique(-logits)
    offsets = np.concatenate([[levels[0] - 1], (levels[:-1] + levels[1:]) / 2, [levels[-1] + 1]])
    said = logits[None] + offsets[:, None] > 0
    accuracy = (said[:, other].mean(1) + (right[None] & ~said)[:, ~other].mean(1)) / 2
    best = np.flatnonzero(accuracy >= accuracy.max() - 1e-9)
    return float(offsets[best[np.argmin(np.abs(offsets[best]))]])
