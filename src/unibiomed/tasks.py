"""The tasks: their questions, and parsing of their answers.

Six tasks are those of the paper (section 2.1, figure A3). ``outline`` is an addition, which uses only a mask decoder.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from .errors import InputError

SEG = "[SEG]"
NO_FINDINGS = "No findings"  # equals findings.NO_FINDINGS, which would import numpy for the command line
SOMETHING_ELSE = "something else"
"""Answer of ``classify`` for a box without a known structure."""
VOLUME_TASKS = ("segment", "recognize", "report")
"""Tasks that are also answered for whole volumes."""
PHRASE_START, PHRASE_END = "<p>", "</p>"
_MARKS = re.compile(r"<\|[^<>|\s]*\|>|</?(?:img|p|vp)>|<image>|<IMG_CONTEXT>")


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes
    ----------
    name : str
        Name of the task.
    question : str
        Question to the model, with the placeholders ``{target}`` and ``{image}`` ("CT image", or "image").
    summary : str
        Summary for the help, in one line.
    needs_target, needs_box, needs_question : bool
        Inputs that are required.
    in_words : bool
        Whether the language model answers the question. Otherwise the question is only part of the result.
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
        Task("segment", "Please segment the {target} in the {image}.", "segment the given targets", needs_target=True),
        Task(
            "recognize",
            "Can you identify any abnormality within this {image}? Please respond with segmentation masks.",
            "find, name and segment abnormalities",
        ),
        Task(
            "report",
            "Please describe the abnormality in this {image} and highlight it with segmentation masks.",
            "describe the findings, with a mask for each phrase",
        ),
        Task("classify", "What is in the green box of this {image}?", "name the structure in a box", needs_box=True),
        Task(
            "describe",
            "Please describe the region in the green box of this {image}.",
            "describe a box",
            needs_box=True,
        ),
        Task("ask", "{target}", "answer a question", needs_question=True),
        Task("outline", "Outline the region in the box.", "segment what is in a box", needs_box=True, in_words=False),
    )
}


@dataclass(frozen=True)
class GroundedPhrase:
    """The phrase and label that belong to one ``[SEG]`` of an answer."""

    label: str
    phrase: str


def get_task(name: str) -> Task:
    """Task with the name `name`.

    Raises
    ------
    InputError
        If the task is unknown.
    """
    try:
        return TASKS[name]
    except KeyError:
        raise InputError(f"unknown task '{name}': choose one of {', '.join(TASKS)}") from None


def choose_task(task: str | None, targets: Sequence[str], question: str | None, box: bool) -> Task:
    """Select the task: the given one, or the one that follows from the other inputs.

    The default is ``segment`` for targets, ``ask`` for a question, ``classify`` for a box, otherwise ``recognize``.

    Parameters
    ----------
    task : str or None
        Name of the task.
    targets : sequence of str
        Names of targets.
    question : str or None
        A question.
    box : bool
        Whether a box is given.

    Returns
    -------
    Task

    Raises
    ------
    InputError
        If the task is unknown, a required target, box or question is missing, or a box or question is given that the
        task does not accept.
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
    """Name of the image in a question: "CT image", "ultrasound image", or "image"."""
    return f"{modality} image" if modality else "image"


def make_question(task: str, *, target: str | None = None, modality: str | None = None, text: str | None = None) -> str:
    """Question to the model for a task.

    Parameters
    ----------
    task : str
        One of ``TASKS``.
    target : str, optional
        For ``segment``: the target.
    modality : str, optional
        One of the ten modalities, which is part of the question if known.
    text : str, optional
        For ``ask``: the question. For other tasks it replaces the default question.

    Returns
    -------
    str

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
    """Normalize `text` to one line of valid UTF-8 without special tokens of the model.

    Special tokens are replaced by spaces, so that the remaining text cannot form another one: ``[S[SEG]EG]`` becomes
    ``[S EG]``.
    """
    text = text.encode("utf-8", "replace").decode("utf-8")
    return " ".join(_MARKS.sub(" ", text.replace(SEG, " ")).split())


def clean_text(raw: str) -> str:
    """Answer without ``[SEG]``, ``<p>`` and end tokens."""
    text = _MARKS.sub(" ", raw)
    text = re.sub(r"\s*\[SEG\]\s*", " [SEG] ", text)
    # "It is [SEG]. Liver tumor" becomes "Liver tumor".
    text = re.sub(r"(?:\b(?:It is|Sure,?(?: it is)?|They are)\s*)?\[SEG\]\s*\.?", " ", text)
    text = re.sub(r"\s+([.,;:])", r"\1", " ".join(text.split()))
    return re.sub(r"\.{2,}", ".", text).strip(" ,;")


def read_phrases(raw: str, default: str = "finding") -> list[GroundedPhrase]:
    """Phrases of the ``[SEG]`` tokens of an answer, in order.

    The forms are ``<p> phrase </p> [SEG]`` (reports) and ``[SEG]. Label`` (recognition); otherwise `default` is used.

    Parameters
    ----------
    raw : str
        The generated text with special tokens.
    default : str
        Label of a ``[SEG]`` without a phrase, for example the target of ``segment``.

    Returns
    -------
    list of GroundedPhrase
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
    """Name in an answer of ``classify``, for example "liver" in "liver in abdomen CT"."""
    return clean_text(raw).split(" in ")[0].strip(" .")


def is_no_findings(raw: str) -> bool:
    """Whether the answer states that there are no findings."""
    return SEG not in raw and clean_text(raw).lower().rstrip(".").startswith(NO_FINDINGS.lower())
