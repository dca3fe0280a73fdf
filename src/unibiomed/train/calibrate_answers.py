"""The numbers by which answers in words are weighed with masks, fitted on the validation split.

``finding_threshold`` and ``finding_thresholds`` decide whether ``recognize`` reports a finding;
``something_else_offset`` decides whether ``classify`` says that a box holds none of the targets that the model knows.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from unibiomed.data.conversation import canonical_turns
from unibiomed.data.records import NO_FINDINGS, Record
from unibiomed.data.scene import Scene
from unibiomed.images import from_array
from unibiomed.interpret.asking import Asker
from unibiomed.interpret.boxes import name_box
from unibiomed.interpret.recognition import weigh_words
from unibiomed.tasks import SOMETHING_ELSE, make_question, read_class

from .validation import choose

BOXED = 8
"""Images a data set of which two boxes are named."""
RECOGNIZED = 40
"""Normal images a modality on which recognition is asked, and as many that show a finding."""
MAX_FALSE_FINDINGS = 0.06
"""Share of further normal images of a modality in which something may be found."""
MIN_IMAGES = (12, 5)
"""Normal images, and images that show a finding, that a modality needs for a threshold of its own.

Of fewer than 12, even a threshold above all of them leaves a share of more than 8 % to be expected.
"""


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
    """Fit ``finding_threshold``, ``finding_thresholds`` and ``something_else_offset`` into the model's configuration.

    Parameters
    ----------
    asker : Asker
        With calibrated presence scores and a vocabulary; without them nothing is fitted.
    records : iterable of Record
        All of the validation split with an image.
    progress : bool
        Show a progress bar on a terminal.
    """
    if not (asker.vocabulary and asker.model.config.scores_trained):
        return
    records = list(records)
    chosen = choose_recognized(records)
    recognized = [
        Recognition(weighed[0], found, record.modality)
        for record, found in tqdm(chosen, desc="recognition", unit="image", disable=None if progress else True)
        if (weighed := _recognize(asker, record)) is not None
    ]
    if any(r.found for r in recognized) and not all(r.found for r in recognized):
        config = asker.model.config
        config.finding_threshold, config.finding_thresholds = choose_finding_thresholds(recognized)
    pictures = choose([record for record in records if record.regions], BOXED)
    boxed = [
        box
        for record in tqdm(pictures, desc="boxes", unit="image", disable=None if progress else True)
        for box in _name_boxes(asker, record)
    ]
    if any(b.other for b in boxed) and not all(b.other for b in boxed):
        asker.model.config.something_else_offset = choose_offset(boxed)


def choose_recognized(records: Iterable[Record], most: int = RECOGNIZED) -> list[tuple[Record, bool]]:
    """Images of which it is known whether they show a finding, always the same ones.

    Parameters
    ----------
    records : iterable of Record
        With images.
    most : int
        Normal images of each modality, and images that show a finding. They are taken from the data sets in turn.

    Returns
    -------
    list of (Record, bool)
        Each with whether it shows a finding.
    """
    datasets: dict[str, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in sorted(records, key=lambda record: random.Random(record.key).random()):
        if record.abnormal_known:
            datasets[record.modality][record.dataset].append(record)
    chosen = []
    for _, queues in sorted(datasets.items()):
        left = {True: most, False: most}
        longest = max(map(len, queues.values()))
        in_turn = [queue[i] for i in range(longest) for _, queue in sorted(queues.items()) if i < len(queue)]
        for record in in_turn:
            if any(left.values()) and (found := shows_finding(record, left)) is not None:
                left[found] -= 1
                chosen.append((record, found))
    return chosen


def shows_finding(record: Record, wanted: dict[bool, int]) -> bool | None:
    """Whether an image shows a finding; None where it is not known, or such an image is not wanted.

    Parameters
    ----------
    record : Record
        With an image. Its masks are read where the label alone does not tell.
    wanted : dict of bool to int
        How many more images are wanted that show a finding, and that show none.
    """
    if record.label is not None and not record.label_needs_finding:
        found = record.label != NO_FINDINGS
        return found if wanted[found] else None
    size = record.load_image().shape[:2]
    scene = Scene(record, {j: r.load(size) for j, r in enumerate(record.regions) if not r.box})
    if not (scene.is_normal or scene.findings):
        return None
    return bool(scene.findings) if wanted[bool(scene.findings)] else None


def _recognize(asker: Asker, record: Record) -> tuple[float, object] | None:
    question = make_question("recognize", modality=record.modality)
    return weigh_words(asker, asker.encode(from_array(record.load_image())), question, record.modality)


def _name_boxes(asker: Asker, record: Record) -> list[BoxedName]:
    """Names of one box of a region and of one box of something else: a box takes as long as an image."""
    pixels = record.load_image()
    masks = {j: r.load(pixels.shape[:2]) for j, r in enumerate(record.regions) if not r.box}
    turns = [turn for turn in canonical_turns(record, masks) if turn.task == "classify" and turn.box is not None]
    chosen = [t for t in turns if t.box_region is not None][:1] + [t for t in turns if t.box_region is None][:1]
    if not chosen:
        return []
    image = from_array(pixels)
    plain = asker.encode(image)
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
    return boxed


def choose_finding_thresholds(
    recognized: Sequence[Recognition],
    most: float = MAX_FALSE_FINDINGS,
    least: tuple[int, int] = MIN_IMAGES,
) -> tuple[float, dict[str, float]]:
    """The common threshold of findings, and those of the modalities that have enough images.

    Parameters
    ----------
    recognized : sequence of Recognition
        With images that show a finding and images that do not.
    most : float
        Share of further normal images in which something may be found, in [0, 1].
    least : tuple of int
        Normal images, and images that show a finding, that a modality needs for a threshold of its own.

    Returns
    -------
    tuple of (float, dict of str to float)
        The common threshold is that of the images of all modalities together: the others have too few normal images to
        say what they need.
    """
    groups: dict[str, list[Recognition]] = defaultdict(list)
    for image in recognized:
        groups[image.modality].append(image)
    own = {
        name: choose_finding_threshold(images, most)
        for name, images in sorted(groups.items())
        if _enough(images, least)
    }
    return choose_finding_threshold(recognized, most), own


def choose_finding_threshold(recognized: Sequence[Recognition], most: float = MAX_FALSE_FINDINGS) -> float:
    """The lowest threshold above which few enough further normal images are to be expected.

    Of n normal images, k have a higher logit than the threshold. A further one has so with a probability of at most
    (k + 1) / (n + 1), if it is of the same kind (Vovk et al., "Algorithmic Learning in a Random World", 2005): k is the
    largest for which this is no more than `most`, or 0 where n is too small for that.

    Parameters
    ----------
    recognized : sequence of Recognition
        With at least one normal image.
    most : float
        In [0, 1].

    Returns
    -------
    float
        Halfway between two logits, so that the threshold has the same distance from the last image on either side.
    """
    normal = sorted((image.logit for image in recognized if not image.found), reverse=True)
    above = max(int(most * (len(normal) + 1) + 1e-9) - 1, 0)
    lower = normal[min(above, len(normal) - 1)]
    higher = [image.logit for image in recognized if image.logit > lower]
    return (lower + min(higher)) / 2 if higher else lower + 1


def _enough(images: Sequence[Recognition], least: tuple[int, int]) -> bool:
    found = sum(image.found for image in images)
    return len(images) - found >= least[0] and found >= least[1]


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
