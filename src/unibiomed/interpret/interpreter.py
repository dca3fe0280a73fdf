"""One image, many questions: the model's answers as findings."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch

from unibiomed.errors import InputError, ModelError
from unibiomed.findings import Box, Finding, SearchedTarget
from unibiomed.findings.regions import RegionFacts
from unibiomed.findings.sentences import is_measured
from unibiomed.findings.volume import VolumeResult
from unibiomed.images import Volume, check_box, check_modality
from unibiomed.model.generation import MAX_NEW_TOKENS, Answer
from unibiomed.model.modeling import UniBiomedModel
from unibiomed.model.processing import UniBiomedProcessor
from unibiomed.model.weights import load_model
from unibiomed.tasks import (
    NO_FINDINGS,
    SEG,
    SOMETHING_ELSE,
    choose_task,
    clean_text,
    is_no_findings,
    make_question,
    read_phrases,
)

from .asking import Asker, EncodedImage, ImageLike, as_image
from .box_masks import outline_box
from .boxes import describe_box, facts_in_box, name_box, without_box, words_overruled
from .drawing import DrawnMask, draw_masks, looked_again
from .modality import find_modality, known_modality
from .naming import Name
from .outlining import MAX_QUESTIONS, in_parts
from .parsing import answer_text, read_findings, segment_findings
from .recognition import search_findings, surest_answer, weigh_findings
from .requests import resolve_request
from .result import Result
from .sentences import check_description, check_report, headline
from .vocabulary import ModelVocabulary
from .volume import interpret_volume

NANO = Path(__file__).parent.parent / "weights" / "nano"
SHOWN_NAMES = 3
NOT_INTERPRETED = "Not interpreted: the image looks like none of the ten modalities; give the modality if it is one"


BY_MODALITY = frozenset({"segment", "recognize", "report", "classify", "describe"})
"""Tasks whose answer depends on the modality."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is asked of an image."""

    task: str
    image: ImageLike | EncodedImage
    """As it was given."""
    encoded: EncodedImage
    """With the box, where there is one."""
    box: Box | None
    question: str | None
    """In the user's own words."""
    modality: str | None
    max_new_tokens: int
    second_look: bool


@dataclass(frozen=True, slots=True)
class _Reply:
    """What the model answered, as far as a result needs it."""

    questions: list[str]
    answers: list[Answer]
    findings: list[Finding]
    text: str
    notes: list[str]
    details: dict[str, Any] = field(default_factory=dict)
    searched: tuple[SearchedTarget, ...] = ()


class Interpreter(Asker):
    """A loaded model that answers questions about images.

    Parameters
    ----------
    model : UniBiomedModel
    processor : UniBiomedProcessor
    name : str
        Shown in results.
    presence_threshold : float, optional
        With trained scores, a target whose presence score is lower is reported absent and its mask emptied; with 0
        none is, and ``recognize`` goes by the model's words alone.
    vocabulary : ModelVocabulary, optional
        The names that the model was trained with. Targets are then resolved to them (spelling, synonyms), and targets
        that it does not know are not searched. Without one, the model is asked for targets as they are.
    """

    def __init__(
        self,
        model: UniBiomedModel,
        processor: UniBiomedProcessor,
        name: str,
        *,
        presence_threshold: float | None = None,
        vocabulary: ModelVocabulary | None = None,
    ) -> None:
        super().__init__(model, processor, name, vocabulary or ModelVocabulary())
        own = model.config.presence_threshold
        self.presence_threshold = own if presence_threshold is None else presence_threshold

    @property
    def presence_threshold(self) -> float:
        """Presence score, 0 to 1, below which a target is reported absent; InputError when set to anything else."""
        return self._presence_threshold

    @presence_threshold.setter
    def presence_threshold(self, value: float) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 <= value <= 1:
            raise InputError(f"the presence threshold is {value!r}: give a number from 0 to 1")
        self._presence_threshold = float(value)

    # ---------------------------------------------------------------- asking

    @overload
    def interpret(self, image: Volume, task: str | None = None, **question: Any) -> VolumeResult: ...

    @overload
    def interpret(self, image: ImageLike | EncodedImage, task: str | None = None, **question: Any) -> Result: ...

    def interpret(  # type: ignore[misc]  # the overloads leave the options out
        self,
        image: ImageLike | EncodedImage | Volume,
        task: str | None = None,
        *,
        targets: Sequence[str] | str = (),
        box: Sequence[int] | None = None,
        question: str | None = None,
        modality: str | None = None,
        slice_index: int | None = None,
        window: str | tuple[float, float] | None = None,
        max_new_tokens: int = MAX_NEW_TOKENS,
        allow_unknown: bool = False,
        second_look: bool = True,
        slices: tuple[int, int] | None = None,
    ) -> Result | VolumeResult:
        """Answer one question about one image; for ``segment``, one for each target in one batch.

        Parameters
        ----------
        image : path, array, PIL image, MedicalImage, EncodedImage or Volume
            A volume is read slice by slice, see :func:`unibiomed.interpret.volume.interpret_volume`, unless
            `slice_index` chooses one of its slices. The path of a volume stands for one slice.
        task : str, optional
            One of ``segment``, ``recognize``, ``report``, ``classify``, ``describe``, ``ask``, ``outline``. When left
            out it follows from what is given: targets, a question, a box (``classify``), or nothing (``recognize``).
        targets : str or sequence of str
            What to outline. With a vocabulary, each is resolved to names that the model knows: spelling, plural and
            synonyms do not matter, and of several meanings all that are present become findings. What such an image
            cannot show, or the model does not know, is not searched: its finding has ``searched=False``.
        box : sequence of int, optional
            x0, y0, x1, y1 in pixels, x1 and y1 exclusive.
        question : str, optional
            The question of ``ask``; for another task that is named, it replaces the task's own words, for one target
            at most, and the model's own words then stand: they are not weighed with its masks.
        modality : str, optional
            One of the ten modalities, when the file does not say. When left out, a model with a vocabulary is asked for
            it; its answer is used where its probability is at least 0.9.
        slice_index : int, optional
            Slice of a volume or frame of a series.
        window : str or (float, float), optional
            Grey-level window by name, or centre and width.
        max_new_tokens : int
            Longest answer.
        allow_unknown : bool
            Search targets that are not in the model's vocabulary as they are typed, with a note.
        second_look : bool
            Let `nano` and models like it look again at targets of small parts, such as nuclei, on a larger copy of the
            image where it has the pixels: their masks are refined. The ``details`` of the result say so. False gives
            the masks of the first pass.
        slices : tuple of int, optional
            First slice of a volume to read, and the one after the last; all if left out.

        Returns
        -------
        Result or VolumeResult
            The second for volumes.

        Raises
        ------
        InputError
            If the image, the box or the question cannot be used.
        ModelError
            If the model's values are not numbers, or it was not trained for the task.
        """
        started = time.perf_counter()
        names = [targets] if isinstance(targets, str) else list(targets or ())
        if not all(isinstance(word, str) for word in (*names, question or "")):
            raise InputError("targets and question have to be texts")
        if max_new_tokens < 1:
            raise InputError(f"an answer of {max_new_tokens} tokens says nothing: give 1 or more")
        if question is not None and names and (task != "segment" or len(names) > 1):
            raise InputError(
                "targets and question are two questions: give one of them; to ask for one target in other words, name "
                'the task "segment" as well'
            )
        task = choose_task(task, names, question, box is not None).name
        if isinstance(image, Volume):
            if slice_index is None and box is None and question is None:
                return interpret_volume(
                    self,
                    image,
                    task,
                    threshold=self.score_threshold,
                    targets=names,
                    modality=modality,
                    window=window,
                    slices=slices,
                    allow_unknown=allow_unknown,
                )
            image = image.slice_image(len(image) // 2 if slice_index is None else slice_index, window)
            slice_index = window = None
        if len(names) > MAX_QUESTIONS:
            raise InputError(f"{len(names)} targets are too many at once: ask for at most {MAX_QUESTIONS}")
        if modality is not None:
            modality = check_modality(modality)
        encoded = image if isinstance(image, EncodedImage) else None
        seen = image.image if isinstance(image, EncodedImage) else image
        medical = as_image(seen, slice_index=slice_index, window=window)
        checked = None if box is None else check_box(box, medical.height, medical.width)
        if task == "outline":
            assert checked is not None
            return outline_box(self, encoded or medical, checked, modality, unused=bool(names), started=started)
        if encoded is None or checked is not None:
            encoded = self.encode(medical, box=checked)
        known = known_modality(modality, medical.modality)
        if known.name is None and self.vocabulary and task in BY_MODALITY and (question is None or task == "segment"):
            known = find_modality(self, without_box(self, image, encoded))
        asked = _Asked(task, image, encoded, checked, question, known.name, max_new_tokens, second_look)
        if task in ("recognize", "report") and known.unlike:
            reply = _Reply([], [], [], NOT_INTERPRETED, [])
        else:
            reply = self._segment(asked, names, allow_unknown) if task == "segment" else self._converse(asked)
        notes = [*([known.note] if known.note else []), *reply.notes, *medical.notes]
        if names and task != "segment":
            notes.append(f"targets have no effect on the task '{task}'; they belong to 'segment'")
        return Result(
            task=task,
            question=" ".join(reply.questions),
            text=reply.text,
            raw_text=" ".join(a.text for a in reply.answers),
            findings=tuple(reply.findings),
            height=medical.height,
            width=medical.width,
            spacing=medical.spacing,
            image=str(image) if isinstance(image, str | os.PathLike) else medical.source,
            model=self.name,
            token_probabilities=tuple(min(p, 1.0) for a in reply.answers for p in a.probabilities),
            tokens=tuple(self.processor.decode([i]) for a in reply.answers for i in a.ids),
            seconds=time.perf_counter() - started,
            notes=tuple(notes),
            details={
                **medical.details,
                **reply.details,
                "modality": known.name,
                "modality_source": known.source,
                "box": checked,
                "presence_threshold": self.presence_threshold if self.model.config.scores_trained else None,
                "pixels": hashlib.sha256(np.ascontiguousarray(medical.pixels).tobytes()).hexdigest()[:16],
            },
            searched=reply.searched,
            pixels=medical.pixels,
        )

    @property
    def score_threshold(self) -> float:
        """The presence threshold; 0 for models whose scores were not trained."""
        return self.presence_threshold if self.model.config.scores_trained else 0.0

    def _segment(self, asked: _Asked, names: Sequence[str], allow_unknown: bool) -> _Reply:
        requests = [
            resolve_request(name, self.vocabulary, asked.modality, allow_unknown=allow_unknown) for name in names
        ]
        if asked.question is not None:
            # the user's own question is asked once, whatever the name of the target
            requests = [replace(r, names=(r.words,), notes=()) if r.names else r for r in requests]
        wanted = list(dict.fromkeys(name for request in requests for name in request.names))
        questions = [
            make_question("segment", target=name, modality=asked.modality, text=asked.question) for name in wanted
        ]
        answers = [a for part in in_parts(questions) for a in self._answers(asked, part)]
        drawn = draw_masks(self, asked.encoded, answers, self.score_threshold, second_look=asked.second_look)
        findings, notes, table = segment_findings(
            requests, dict(zip(wanted, answers, strict=True)), drawn, asked.encoded.image, self.score_threshold
        )
        text = answer_text("segment", answers, findings)
        labels = [name for name, answer in zip(wanted, answers, strict=True) for _ in read_phrases(answer.text, name)]
        details = {"targets": table, **looked_again(self, labels, drawn)}
        return _Reply(questions, answers, findings, text, notes, details)

    def _converse(self, asked: _Asked) -> _Reply:
        """All tasks but ``segment`` and ``outline``: one question to the language model."""
        task, image, encoded, box, modality = asked.task, asked.image, asked.encoded, asked.box, asked.modality
        question = make_question(task, modality=modality, text=asked.question)
        (answer,) = self._answers(asked, [question])
        named: list[Name] = []
        overruled: str | None = None
        searched: tuple[SearchedTarget, ...] = ()
        instead: Answer | None = None

        def again(begin: str) -> Answer:
            return self._answers(asked, [question], begin)[0]

        # a question in other words may be another question: there the model's own words stand
        own_words = asked.question is None
        # who wants to see every mask is not told that there is nothing
        weighed = own_words and encoded.box is None and self.presence_threshold > 0
        if task == "classify" and box is not None and own_words:
            named = name_box(self, image, encoded, modality, clean_text(answer.text))
            alone = max(named, key=lambda name: name.in_words, default=None)
            overruled = words_overruled(alone.label) if alone and alone is not named[0] else None
        elif task == "describe" and box is not None and own_words:
            answer, named, overruled = describe_box(self, image, encoded, modality, answer, again)
        elif task == "recognize" and weighed:
            found = weigh_findings(self, encoded, question, modality, answer, again)
            answer, overruled, searched = found.answer, found.note, found.searched
            instead = surest_answer(encoded, found, modality, self.score_threshold)
        self._check(answer)
        findings, notes, drawn = self._read(asked, answer)
        if instead is not None and not any(finding.present for finding in findings):
            answer, (findings, _, drawn) = instead, self._read(asked, instead)
            notes.append(f"'{findings[0].label}' reported from mask evidence: nothing that the text names is present")
        notes += [overruled] if overruled else []
        text = answer_text(task, [answer], findings)
        if named:
            words = SOMETHING_ELSE if named[0].label == SOMETHING_ELSE else named[0].words
            findings = [Finding(named[0].label, words, confidence=named[0].probability, box=box)]
            text = words if task == "classify" else text
        measured: RegionFacts | None = None
        if task == "recognize":
            text = headline(text, findings)
        elif task in ("report", "describe"):
            if task == "describe" and encoded.box is not None and is_measured(text):
                label = named[0].label if named else text.split(".")[0]
                measured = facts_in_box(self, image, encoded, modality, label, self.presence_threshold)
            if task == "describe" and (named or SEG not in answer.text):
                agreed = check_description(text, findings, measured, encoded.image, modality)
            else:
                agreed = check_report(answer.text, findings, encoded.image, modality)
            text, findings, notes = agreed.text, list(agreed.findings), notes + list(agreed.notes)
            if task == "report" and weighed and is_no_findings(text):
                searched = search_findings(self, encoded, modality)
                notes += [
                    f"the text says '{NO_FINDINGS}', but the presence score of '{target.label}' is "
                    f"{target.presence:.2f}"
                    for target in searched
                    if target.presence is not None and target.presence >= self.score_threshold
                ]
        details: dict[str, Any] = looked_again(self, [phrase.label for phrase in read_phrases(answer.text)], drawn)
        if named:
            details["names"] = {name.label: name.probability for name in named[:SHOWN_NAMES]}
        if measured:
            details["measured"] = asdict(measured)
        return _Reply([question], [answer], findings, text, notes, details, searched)

    def _read(self, asked: _Asked, answer: Answer) -> tuple[list[Finding], list[str], list[DrawnMask]]:
        drawn = draw_masks(self, asked.encoded, [answer], self.score_threshold, second_look=asked.second_look)
        findings, notes = read_findings(
            asked.task,
            answer,
            drawn,
            asked.encoded.image,
            box=asked.box,
            modality=asked.modality,
            vocabulary=self.vocabulary,
            threshold=self.score_threshold,
        )
        return findings, notes, drawn

    def _answers(self, asked: _Asked, questions: Sequence[str], begin: str = "") -> list[Answer]:
        answers = self.answer(asked.encoded, questions, max_new_tokens=asked.max_new_tokens, begin=begin)
        for answer in answers:
            self._check(answer)
        return answers

    def _check(self, answer: Answer) -> None:
        self.check_numbers(all(map(math.isfinite, answer.probabilities)))


def load(
    model: str | os.PathLike[str] | None = None, *, device: str | None = None, dtype: str | None = None
) -> Interpreter:
    """Load a model.

    Parameters
    ----------
    model : path or str, optional
        A model folder, in this package's or the authors' format, or a hub name; the shipped ``nano`` when left out.
    device : str, optional
        ``"cpu"``, ``"cuda"``, ``"mps"``; the best there is when left out.
    dtype : str, optional
        ``"float32"`` (the default), ``"bfloat16"`` or ``"float16"``.

    Returns
    -------
    Interpreter

    Raises
    ------
    ModelError
        If there is no such model, or it is broken.
    InputError
        If the device or dtype cannot be used.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if model is None or str(model) == NANO.name:
        if not NANO.is_dir():
            raise ModelError("this installation has no model: install unibiomed again, or give a model folder")
        model = NANO
    network, processor = load_model(model, device=device, dtype=dtype or "float32")
    folder = Path(model)
    return Interpreter(network, processor, Path(os.path.abspath(model)).name, vocabulary=ModelVocabulary.read(folder))
