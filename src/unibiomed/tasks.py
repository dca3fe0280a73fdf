"""The task families: what is asked, and how the answer is read.

Six are the paper's (section 2.1, figure A3). ``outline`` is not: the mask decoder alone answers it, given a box.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from .errors import InputError

SEG = "[SEG]"
NO_FINDINGS = "No findings"  # findings.NO_FINDINGS, spelled out: the command line is parsed without loading numpy
SOMETHING_ELSE = "something else"
"""What ``classify`` calls a box that is around nothing with a name."""
VOLUME_TASKS = ("segment", "recognize", "report")
"""Tasks that are also answered for whole volumes."""
PHRASE_START, PHRASE_END = "<p>", "</p>"
_MARKS = re.compile(r"<\|[^<>|\s]*\|>|</?(?:img|p|vp)>|<image>|<IMG_CONTEXT>")


@dataclass(frozen=True)
class Task:
    """One task family.

    Attributes
    ----------
    name : str
        The verb a user types.
    question : str
        What the model is asked; ``{target}`` and ``{image}`` ("CT image", or "image") are filled in.
    summary : str
        One line for people.
    needs_target, needs_box, needs_question : bool
        What the user must give.
    in_words : bool
        Whether the question is put to the language model. If not, it only stands in the result.
    """

    name: str
    question: str
    summary: str
    needs_target: bool = False
    needs_box: bool = False
    needs_question: bool = False
    in_words: bool = True


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("segment", "Please segment the {target} in the {image}.", "outline named targets", needs_target=True),
        Task(
            "recognize",
            "Can you identify any abnormality within this {image}? Please respond with segmentation masks.",
            "find and name any abnormality, or say there is none",
        ),
        Task(
            "report",
            "Please describe the abnormality in this {image} and highlight it with segmentation masks.",
            "write the findings, each phrase tied to its pixels",
        ),
        Task("classify", "What is in the green box of this {image}?", "name what a box holds", needs_box=True),
        Task(
            "describe",
            "Please describe the region in the green box of this {image}.",
            "report on a box",
            needs_box=True,
        ),
        Task("ask", "{target}", "answer any question", needs_question=True),
        Task("outline", "Outline the region in the box.", "segment what a box holds", needs_box=True, in_words=False),
    )
}


@dataclass(frozen=True)
class GroundedPhrase:
    """One ``[SEG]`` of an answer and the words it belongs to."""

    label: str
    phrase: str


def get_task(name: str) -> Task:
    """The task called `name`.

    Raises
    ------
    InputError
        If there is no such task.
    """
    try:
        return TASKS[name]
    except KeyError:
        raise InputError(f"unknown task '{name}': choose one of {', '.join(TASKS)}") from None


def choose_task(task: str | None, targets: Sequence[str], question: str | None, box: bool) -> Task:
    """The task that is meant: the one named, or what follows from what else is given.

    Targets mean ``segment``, a question ``ask``, a box ``classify``, and nothing at all ``recognize``.

    Raises
    ------
    InputError
        If the task is unknown, lacks the target, box or question that it needs, or is given a box or a question that
        it cannot use.
    """
    chosen = get_task(
        task or ("segment" if targets else "ask" if question is not None else "classify" if box else "recognize")
    )
    if chosen.needs_box and not box:
        raise InputError(f"task '{chosen.name}' needs a box: give it with --box x0,y0,x1,y1")
    if box and not (chosen.needs_box or chosen.needs_question):
        boxed = ", ".join(other.name for other in TASKS.values() if other.needs_box or other.needs_question)
        raise InputError(f"task '{chosen.name}' is about the whole image: leave the box out, or choose one of {boxed}")
    if question is not None and not chosen.in_words:
        raise InputError(f"task '{chosen.name}' takes no question: leave the question out, or choose the task 'ask'")
    asked: Sequence[str | None] = targets or [None]
    for target in asked:
        make_question(chosen.name, target=target, text=question)
    return chosen


def image_words(modality: str | None) -> str:
    """How a question names the image: "CT image", "ultrasound image", or just "image"."""
    return f"{modality} image" if modality else "image"


def make_question(task: str, *, target: str | None = None, modality: str | None = None, text: str | None = None) -> str:
    """The question to put to the model.

    Parameters
    ----------
    task : str
        One of ``TASKS``.
    target : str, optional
        For ``segment``: what to outline.
    modality : str, optional
        One of the ten modalities; named in the question when known.
    text : str, optional
        For ``ask``: the question itself. For other tasks it replaces the task's own words.

    Raises
    ------
    InputError
        If the task is unknown, or a target or question that it needs is missing or empty.
    """
    chosen = get_task(task)
    if chosen.needs_question and text is None:
        raise InputError(f"task '{task}' needs a question: give it with --ask TEXT")
    if text is not None:
        text = _plain(text)
        if not text:
            raise InputError("the question is empty: write what you want to know, for example --ask 'Is there a mass?'")
        return text
    target = _plain(target or "")
    if chosen.needs_target and not target:
        raise InputError(f"task '{task}' needs at least one target: give it with --target NAME")
    return chosen.question.format(target=target, image=image_words(modality))


def _plain(text: str) -> str:
    """`text` on one line, in characters that UTF-8 knows, and without the tokens that steer the model.

    A space takes the place of each, so what stood around it cannot become another: ``[S[SEG]EG]`` leaves ``[S EG]``.
    """
    text = text.encode("utf-8", "replace").decode("utf-8")
    return " ".join(_MARKS.sub(" ", text.replace(SEG, " ")).split())


def clean_text(raw: str) -> str:
    """An answer as people read it: without ``[SEG]``, ``<p>`` and the end marks."""
    text = _MARKS.sub(" ", raw)
    text = re.sub(r"\s*\[SEG\]\s*", " [SEG] ", text)
    # "It is [SEG]. Liver tumor" says no more than its label
    text = re.sub(r"(?:\b(?:It is|Sure,?(?: it is)?|They are)\s*)?\[SEG\]\s*\.?", " ", text)
    text = re.sub(r"\s+([.,;:])", r"\1", " ".join(text.split()))
    return re.sub(r"\.{2,}", ".", text).strip(" ,;")


def read_phrases(raw: str, default: str = "finding") -> list[GroundedPhrase]:
    """The words that belong to each ``[SEG]`` of an answer, in order.

    ``<p> words </p> [SEG]`` is read first (reports), then ``[SEG]. Label`` (recognition), else `default`.

    Parameters
    ----------
    raw : str
        The generated text with its special tokens.
    default : str
        Label of a ``[SEG]`` without words of its own; for ``segment`` the target that was asked for.
    """
    phrases = []
    parts = re.sub(r"<\|[a-z_]+\|>", " ", raw).split(SEG)
    for before, after in pairwise(parts):
        grounded = re.search(r"<p>((?:(?!<p>).)*)</p>\s*$", before, re.DOTALL)
        if grounded:
            phrase = " ".join(grounded.group(1).split())
            label = phrase.split(".")[0].strip()
        else:
            tail = after.split(PHRASE_START)[0]
            named = re.match(r"\s*\.\s*([^.\[\]<>]+)", tail)
            label = named.group(1).strip() if named else ""
            if re.fullmatch(r"(?:it is|and|sure|they are)?,?", label, re.IGNORECASE):
                label = ""
            phrase = label
        phrases.append(GroundedPhrase(label or default, phrase or label or default))
    return phrases


def read_class(raw: str) -> str:
    """The class in an answer of ``classify``: "liver in abdomen CT" names the liver."""
    return clean_text(raw).split(" in ")[0].strip(" .")


def is_no_findings(raw: str) -> bool:
    """The answer says that nothing abnormal is there."""
    return SEG not in raw and clean_text(raw).lower().rstrip(".").startswith(NO_FINDINGS.lower())
