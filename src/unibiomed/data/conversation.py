"""Records as conversations: every data set, whatever it annotates, becomes questions and answers in one form.

This is the visual-question-answering form of UniBiomed (section "Dataset", figure A3): an answer that points at pixels
holds one ``[SEG]`` a target, and the masks come in the order of the ``[SEG]``. Training sees many phrasings; evaluation
sees the task's own words (`unibiomed.tasks`). About a sixth of the ``segment`` turns ask for what is not there: their
answer is the same and the mask is empty, which is what the presence score learns from.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from unibiomed.data.elsewhere import box_elsewhere
from unibiomed.data.phrasing import ask, every_phrase, listed, pick_name, task_question
from unibiomed.data.questions import made_question
from unibiomed.data.records import NO_FINDINGS, Record
from unibiomed.data.reporting import is_reportable, report_share, write_report
from unibiomed.data.scene import Scene
from unibiomed.errors import DataError
from unibiomed.tasks import PHRASE_END, PHRASE_START, SEG, TASKS

__all__ = ["TASK_WEIGHTS", "Turn", "canonical_turns", "corpus_texts", "make_turns", "text_corpus", "text_pairs"]

Box = tuple[int, int, int, int]

TASK_WEIGHTS: dict[str, float] = {
    "segment": 5.0,
    "recognize": 2.0,
    "report": 2.0,
    "classify": 1.5,
    "describe": 1.0,
    "ask": 2.5,
}
"""How often a task is chosen where a record allows it."""
ABSENT_SHARE = 0.07
"""Share of ``segment`` turns for an absent target where the image shows others; images that show none come on top."""
OWN_ABSENT_SHARE = 0.65
SEVERAL_SHARE = 0.25
MAX_SEVERAL = 3
MIN_BOX_SIDE = 6
ELSEWHERE_SHARE = 0.2
"""Share of the boxed turns that are about a box around something else, where such a box can be drawn."""
EXPERT_SHARE = 0.85
NO_REGION_WEIGHT = 0.1
SEGMENT_ANSWERS = (f"It is {SEG}.", f"Sure, {SEG}.", f"Sure, it is {SEG}.", f"{SEG}.", f"Here it is: {SEG}.")
SEGMENT_ODDS = (5, 2, 2, 1, 1)


@dataclass(frozen=True, slots=True)
class Turn:
    """One question about an image with its answer.

    Attributes
    ----------
    task : str
        One of `unibiomed.tasks.TASKS`.
    question : str
        Plain words, without special tokens.
    answer : str
        What the model should write, ``[SEG]`` and ``<p>`` included.
    masks : tuple of int or None
        For each ``[SEG]`` of the answer in order: the region whose mask it stands for, as a place in ``record.regions``
        (its mask may be empty); None for a target of another body part, whose mask is empty.
    box_region : int or None
        The region that the green box is drawn around (``classify``, ``describe``); None where it is around none.
    box : tuple of int or None
        The green box ``(x0, y0, x1, y1)`` in pixels, the last two exclusive: around the region or one part of it, or
        around something else.
    """

    task: str
    question: str
    answer: str
    masks: tuple[int | None, ...] = ()
    box_region: int | None = None
    box: Box | None = None

    def __post_init__(self) -> None:
        if self.answer.count(SEG) != len(self.masks) or SEG in self.question:
            raise DataError(f"a {self.task} turn has {SEG} where it should not; take it out of the data set's words")


def make_turns(
    record: Record,
    masks: Mapping[int, np.ndarray],
    rng: random.Random,
    *,
    tasks: Mapping[str, float] | None = None,
    count: int = 4,
    canonical: bool = False,
    boxed: int | None = None,
) -> list[Turn]:
    """Sample turns that a record answers.

    Parameters
    ----------
    record : Record
        The image's record.
    masks : mapping of int to numpy.ndarray
        ``(height, width)`` bool of each region, by its place in ``record.regions``; regions without a mask file may be
        left out.
    rng : random.Random
        Decides everything; the same state gives the same turns.
    tasks : mapping of str to float, optional
        Weight of each task; those left out are not chosen. `TASK_WEIGHTS` when not given.
    count : int
        How many turns.
    canonical : bool
        Sample from `canonical_turns` instead, without repeats: the fixed words of evaluation.
    boxed : int, optional
        Place in ``record.regions`` of the one region that is there around which boxes are drawn; any when left out.
        Boxes around something else are drawn all the same.

    Returns
    -------
    list of Turn
        `count` turns, fewer (or none) where the record does not answer that many.

    Raises
    ------
    DataError
        `tasks` names an unknown task or has a negative weight.
    """
    weights = _checked(TASK_WEIGHTS if tasks is None else tasks)
    scene = Scene(record, masks)
    if boxed is not None:
        scene.boxable = (boxed,)
    if canonical:
        return _sample_canonical(canonical_turns(record, masks), rng, weights, count)
    odds = {task: weights.get(task, 0.0) * share for task, share in _possible(scene).items() if weights.get(task)}
    turns: list[Turn] = []
    asked: set[tuple[str, Box | None]] = set()
    for _ in range(3 * count):
        if len(turns) == count or not odds:
            break
        task = rng.choices(list(odds), list(odds.values()))[0]
        turn = _MAKERS[task](scene, rng)
        if turn is None:
            odds.pop(task)
        elif (turn.question, turn.box) not in asked:
            asked.add((turn.question, turn.box))
            turns.append(turn)
    return turns


def canonical_turns(record: Record, masks: Mapping[int, np.ndarray]) -> list[Turn]:
    """All turns of a record in the fixed words of evaluation.

    Parameters
    ----------
    record : Record
        The image's record.
    masks : mapping of int to numpy.ndarray
        As for `make_turns`.

    Returns
    -------
    list of Turn
        ``segment`` for every known target (absent ones included), ``recognize`` and ``report`` where it is known what
        is abnormal, ``report`` also where the data set has a text, ``classify`` and ``describe`` for every region that
        is there, ``classify`` for one box around something else, and the experts' questions.
    """
    if record.image is None:
        return []
    scene = Scene(record, masks)
    turns = [_segment_one(scene, None, index, record.regions[index].target) for index in scene.segmentable]
    possible = _possible(scene)
    if "recognize" in possible:
        turns.append(_recognize(scene, None))
    if is_reportable(scene):
        turns.append(_report(scene, None))
    for index in scene.present:
        box = scene.box(index)
        turns.append(_boxed("classify", scene, None, index, box))
        turns.append(_boxed("describe", scene, None, index, box))
    if (other := box_elsewhere(scene, random.Random(f"{record.key}/elsewhere"))) is not None:
        turns.append(_boxed("classify", scene, None, None, other))
    return turns + [Turn("ask", item.question, item.answer) for item in record.questions]


def text_corpus(records: Iterable[Record], rng: random.Random, size: int) -> Iterator[tuple[str, str]]:
    """Text-only training pairs: what conversations sound like, for pretraining a language model.

    No image and no mask is read. Places and sizes in the answers come from made-up regions, labels and attributes from
    the records; give only those of the training split.

    Parameters
    ----------
    records : iterable of Record
        With or without images.
    rng : random.Random
        Decides everything.
    size : int
        Number of pairs.

    Yields
    ------
    tuple of str
        Question and answer.
    """
    pool = list(records)
    if not pool:
        return
    datasets: dict[str, list[Record]] = {}
    for record in pool:
        datasets.setdefault(record.dataset, []).append(record)
    names = sorted(datasets)
    # Large data sets have more to say, but must not drown the small ones.
    odds = [len(datasets[name]) ** 0.5 for name in names]
    made = failed = 0
    while made < size and failed < 1000:
        record = rng.choice(datasets[rng.choices(names, odds)[0]])
        pairs = text_pairs(record, rng)
        failed = 0 if pairs else failed + 1
        for pair in pairs[: size - made]:
            made += 1
            yield pair


def corpus_texts(records: Iterable[Record]) -> Iterator[str]:
    """All sorts of text that conversations hold, for training a tokenizer.

    Parameters
    ----------
    records : iterable of Record
        With or without images; no file is read.

    Yields
    ------
    str
        Phrasings, questions, answers and reports.
    """
    yield from every_phrase()
    rng = random.Random(0)
    for record in records:
        for question, answer in text_pairs(record, rng):
            yield question
            yield answer
        if record.image is not None and record.text:
            yield record.text
        for item in record.questions:
            yield f"{item.question} {item.answer}"


def text_pairs(record: Record, rng: random.Random) -> list[tuple[str, str]]:
    """Questions and answers of one record without reading any file; places and sizes are made up."""
    if record.image is None:
        if not record.text:
            return []
        known: dict[str, str] = {"modality": record.modality, "site": record.site}
        chest = known == {"modality": "X-ray", "site": "chest"}
        asked = ask("xray_report", rng, **known) if chest else task_question("report", rng, **known, form="report_text")
        return [(asked, record.text)]
    turns = make_turns(record, _made_up_masks(record, rng), rng, count=2)
    return [(turn.question, turn.answer) for turn in turns]


def _made_up_masks(record: Record, rng: random.Random) -> dict[int, np.ndarray]:
    """Ellipses in place of the masks of a record, so that its texts can be made without its files."""
    side = 64
    y, x = np.mgrid[:side, :side]
    masks = {}
    # A text is about the findings that the image shows, whatever is made up.
    unsure = record.label_needs_finding and record.text is None
    empty = record.label == NO_FINDINGS or (unsure and rng.random() < 0.25)
    for index, region in enumerate(record.regions):
        mask = np.zeros((side, side), dtype=bool)
        parts = 0 if region.absent or (region.abnormal and empty) else rng.choice((1, 1, 1, 2, 5))
        for _ in range(parts):
            a, b = rng.uniform(2, 20) / parts**0.5, rng.uniform(2, 20) / parts**0.5
            mask |= ((x - rng.uniform(4, 60)) / a) ** 2 + ((y - rng.uniform(4, 60)) / b) ** 2 < 1
        masks[index] = mask
    return masks


def _checked(weights: Mapping[str, float]) -> Mapping[str, float]:
    for task, weight in weights.items():
        if task not in TASKS or not weight >= 0:
            raise DataError(
                f"weight {weight} of task '{task}' cannot be used; give {', '.join(TASKS)} weights of 0 or more"
            )
    return weights


def _possible(scene: Scene) -> dict[str, float]:
    """Tasks that a record allows, with a factor for their weights."""
    record = scene.record
    if record.image is None:
        return {}
    possible = {"ask": 1.0 if record.regions or not record.questions else 5.0}
    if scene.segmentable:
        possible["segment"] = 1.0
    elif scene.impossible:
        possible["segment"] = NO_REGION_WEIGHT
    # An answer that points at each finding needs the outline of each.
    outlined = set(scene.findings) <= set(scene.outlined)
    if outlined and record.abnormal_known and (scene.findings or scene.is_normal):
        possible["recognize"] = 1.0
    if share := report_share(scene):
        possible["report"] = share
    if scene.present:
        possible |= {"classify": 1.0, "describe": 1.0}
    return possible


def _sample_canonical(turns: list[Turn], rng: random.Random, weights: Mapping[str, float], count: int) -> list[Turn]:
    chosen: list[Turn] = []
    left = [turn for turn in turns if weights.get(turn.task)]
    while left and len(chosen) < count:
        shares = [weights[turn.task] / sum(other.task == turn.task for other in left) for turn in left]
        chosen.append(left.pop(rng.choices(range(len(left)), shares)[0]))
    return chosen


def _question(
    task: str, scene: Scene, rng: random.Random | None, target: str | None = None, form: str | None = None
) -> str:
    return task_question(task, rng, modality=scene.modality, site=scene.record.site, target=target, form=form)


def _segment(scene: Scene, rng: random.Random) -> Turn | None:
    regions = scene.record.regions
    foreign = scene.impossible
    if len(scene.outlined) > 1 and rng.random() < SEVERAL_SHARE:
        return _segment_several(scene, rng)
    if scene.outlined and (rng.random() > ABSENT_SHARE or not (scene.absent or foreign)):
        index = rng.choice(scene.outlined)
        label = scene.plain_label(index)
        return _segment_one(scene, rng, index, pick_name(regions[index].target, rng, (label, label)))
    if scene.absent and (not foreign or rng.random() < OWN_ABSENT_SHARE):
        index = rng.choice(scene.absent)
        return _segment_one(scene, rng, index, pick_name(regions[index].target, rng))
    return _segment_one(scene, rng, None, rng.choice(foreign)) if foreign else None


def _segment_one(scene: Scene, rng: random.Random | None, index: int | None, name: str) -> Turn:
    answer = SEGMENT_ANSWERS[0] if rng is None else rng.choices(SEGMENT_ANSWERS, SEGMENT_ODDS)[0]
    return Turn("segment", _question("segment", scene, rng, name), answer, (index,))


def _segment_several(scene: Scene, rng: random.Random) -> Turn:
    count = rng.randint(2, min(MAX_SEVERAL, len(scene.outlined)))
    chosen: list[int] = rng.sample(scene.outlined, count)
    if scene.absent and rng.random() < ABSENT_SHARE:
        chosen[rng.randrange(count)] = rng.choice(scene.absent)
    names = [pick_name(scene.record.regions[index].target, rng) for index in chosen]
    asked = listed(names) if rng.random() < 0.4 else listed([names[0], *(f"the {name}" for name in names[1:])])
    answer = listed([f"{PHRASE_START} {name} {PHRASE_END} {SEG}" for name in names]) + "."
    return Turn("segment", _question("segment", scene, rng, asked, "segment_several"), answer, tuple(chosen))


def _recognize(scene: Scene, rng: random.Random | None) -> Turn:
    question = _question("recognize", scene, rng)
    if not scene.findings:
        return Turn("recognize", question, NO_FINDINGS)
    answer = ". ".join(f"It is {SEG}. {scene.label(index)}" for index in scene.findings)
    return Turn("recognize", question, answer, scene.findings)


def _report(scene: Scene, rng: random.Random | None) -> Turn:
    report = write_report(scene, rng)
    return Turn("report", _question("report", scene, rng, form=report.form), report.answer, report.shown)


def _boxed(task: str, scene: Scene, rng: random.Random | None, index: int | None, box: Box | None) -> Turn:
    if index is None:
        answer = scene.other_words(task)
    else:
        answer = scene.class_words(index) if task == "classify" else scene.region_text(index, box)
    return Turn(task, _question(task, scene, rng), answer, (), index, box)


def _random_box(scene: Scene, rng: random.Random) -> tuple[int | None, Box | None]:
    """A region that is there, and a box around it or around one of its parts; or no region, and a box elsewhere."""
    if rng.random() < ELSEWHERE_SHARE and (other := _elsewhere(scene, rng)) is not None:
        return None, other
    index = rng.choice(scene.boxable)
    parts = [(x0, y0, x1, y1) for x0, y0, x1, y1 in scene.parts(index) if min(x1 - x0, y1 - y0) >= MIN_BOX_SIDE]
    box = scene.box(index)
    if len(parts) > 1 and (rng.random() < 0.5 or box == (0, 0, *scene.masks[index].shape[::-1])):
        return index, rng.choice(parts)
    return index, box


def _elsewhere(scene: Scene, rng: random.Random) -> Box | None:
    """One box for all turns on a scene: an image shows one box at a time."""
    if scene.elsewhere is None:
        scene.elsewhere = (box_elsewhere(scene, rng),)
    return scene.elsewhere[0]


def _classify(scene: Scene, rng: random.Random) -> Turn:
    return _boxed("classify", scene, rng, *_random_box(scene, rng))


def _describe(scene: Scene, rng: random.Random) -> Turn:
    return _boxed("describe", scene, rng, *_random_box(scene, rng))


def _ask(scene: Scene, rng: random.Random) -> Turn | None:
    experts = scene.record.questions
    if experts and rng.random() < EXPERT_SHARE:
        item = rng.choice(experts)
        return Turn("ask", item.question, item.answer)
    pair = made_question(scene, rng)
    return None if pair is None else Turn("ask", *pair)


_MAKERS = {
    "segment": _segment,
    "recognize": _recognize,
    "report": _report,
    "classify": _classify,
    "describe": _describe,
    "ask": _ask,
}
