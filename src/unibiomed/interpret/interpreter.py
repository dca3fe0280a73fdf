"""One image, many questions: the model's answers as findings."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from unibiomed.errors import InputError, ModelError
from unibiomed.findings import MAX_DECODED_PIXELS, Box, Finding
from unibiomed.findings.regions import RegionFacts
from unibiomed.findings.sentences import is_measured
from unibiomed.images import check_box, check_modality
from unibiomed.model.cut import mask_cut
from unibiomed.model.generation import MAX_NEW_TOKENS, Answer
from unibiomed.model.modeling import UniBiomedModel
from unibiomed.model.processing import UniBiomedProcessor
from unibiomed.model.weights import load_model
from unibiomed.tasks import (
    NO_FINDINGS,
    SEG,
    choose_task,
    clean_text,
    is_no_findings,
    make_question,
    read_class,
    read_phrases,
)

from .asking import Asker, EncodedImage, ImageLike, as_image
from .box_masks import outline_box
from .boxes import describe_box, facts_in_box, name_box, words_overruled
from .naming import Name
from .outlining import MAX_QUESTIONS
from .recognition import weigh_findings
from .result import Result
from .scores import derived_scores, text_score, trained_scores
from .sentences import check_description, check_report, headline
from .taught import Taught

NANO = Path(__file__).parent.parent / "weights" / "nano"
SHOWN_NAMES = 3


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
    taught : Taught, optional
        The targets that the model knows: they may then be asked for in any letter case, and of others a note warns.
    """

    def __init__(
        self,
        model: UniBiomedModel,
        processor: UniBiomedProcessor,
        name: str,
        *,
        presence_threshold: float | None = None,
        taught: Taught | None = None,
    ) -> None:
        super().__init__(model, processor, name, taught or Taught({}))
        own = model.config.presence_threshold
        self.presence_threshold = own if presence_threshold is None else presence_threshold

    # ---------------------------------------------------------------- asking

    def interpret(
        self,
        image: ImageLike | EncodedImage,
        task: str | None = None,
        *,
        targets: Sequence[str] | str = (),
        box: Sequence[int] | None = None,
        question: str | None = None,
        modality: str | None = None,
        slice_index: int | None = None,
        window: str | tuple[float, float] | None = None,
        max_new_tokens: int = MAX_NEW_TOKENS,
    ) -> Result:
        """Answer one question about one image; for ``segment``, one for each target in one batch.

        Parameters
        ----------
        image : path, array, PIL image, MedicalImage or EncodedImage
        task : str, optional
            One of ``segment``, ``recognize``, ``report``, ``classify``, ``describe``, ``ask``, ``outline``. When left
            out it follows from what is given: targets, a question, a box (``classify``), or nothing (``recognize``).
        targets : str or sequence of str
            What to outline; the letter case of targets that the model was taught does not matter.
        box : sequence of int, optional
            x0, y0, x1, y1 in pixels, x1 and y1 exclusive.
        question : str, optional
            The question of ``ask``; for other tasks it replaces the task's own words, for one target at most, and the
            model's own words then stand: they are not weighed with its masks.
        modality : str, optional
            One of the ten modalities, when the file does not say and you want the question to.
        slice_index : int, optional
            Slice of a volume or frame of a series.
        window : str or (float, float), optional
            Grey-level window by name, or centre and width.
        max_new_tokens : int
            Longest answer.

        Returns
        -------
        Result

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
        if question is not None and len(names) > 1:
            raise InputError(
                "one question cannot ask for several targets: leave out the question, or all targets but one"
            )
        task = choose_task(task, names, question, box is not None).name
        if len(names) > MAX_QUESTIONS:
            raise InputError(f"{len(names)} targets are too many at once: ask for at most {MAX_QUESTIONS}")
        if modality is not None:
            modality = check_modality(modality)
        asked: list[str | None] = list(names) if task == "segment" and names else [None]
        encoded = image if isinstance(image, EncodedImage) else None
        seen = image.image if isinstance(image, EncodedImage) else image
        medical = as_image(seen, slice_index=slice_index, window=window)
        checked = None if box is None else check_box(box, medical.height, medical.width)
        if task == "outline":
            assert checked is not None
            return outline_box(self, encoded or medical, checked, modality, unused=bool(names), started=started)
        if encoded is None or checked is not None:
            encoded = self.encode(medical, box=checked)
        modality = modality or medical.modality
        spelled = [None if t is None else self.taught.spelling(t) for t in asked]
        questions = [make_question(task, target=t, modality=modality, text=question) for t in spelled]
        answers = self.answer(encoded, questions, max_new_tokens=max_new_tokens)
        named: list[Name] = []
        overruled: str | None = None

        def again(begin: str) -> Answer:
            return self.answer(encoded, questions, max_new_tokens=max_new_tokens, begin=begin)[0]

        # a question in other words may be another question: there the model's own words stand
        if task == "classify" and checked is not None and question is None:
            named = name_box(self, image, encoded, modality, clean_text(answers[0].text))
            alone = max(named, key=lambda name: name.in_words, default=None)
            overruled = words_overruled(alone.label) if alone and alone is not named[0] else None
        elif task == "describe" and checked is not None and question is None:
            answers[0], named, overruled = describe_box(self, image, encoded, modality, answers[0], again)
        # who wants to see every mask is not told that there is nothing
        elif task == "recognize" and encoded.box is None and question is None and self.presence_threshold > 0:
            answers[0], overruled = weigh_findings(self, encoded, questions[0], modality, answers[0], again)
        self.check_numbers(all(math.isfinite(p) for a in answers for p in a.probabilities))
        findings, notes = self._findings(task, answers, asked, encoded, checked, modality)
        notes += [overruled] if overruled else []
        if named:
            findings = [Finding(named[0].label, named[0].words, score=named[0].probability, box=checked)]
        text = named[0].words if named and task == "classify" else _answer_text(task, answers, findings)
        measured: RegionFacts | None = None
        if task == "recognize":
            text = headline(text, findings)
        elif task in ("report", "describe"):
            if task == "describe" and encoded.box is not None and is_measured(text):
                label = named[0].label if named else text.split(".")[0]
                measured = facts_in_box(self, image, encoded, modality, label, self.presence_threshold)
            if task == "describe" and (named or SEG not in answers[0].text):
                agreed = check_description(text, findings, measured, medical, modality)
            else:
                agreed = check_report(answers[0].text, findings, medical, modality)
            text, findings, notes = agreed.text, list(agreed.findings), notes + list(agreed.notes)
        notes += [warning for name in asked if name and (warning := self.taught.warning(name))]
        if names and task != "segment":
            notes.append(f"targets have no effect on the task '{task}'; they belong to 'segment'")
        return Result(
            task=task,
            question=" ".join(questions),
            text=text,
            raw_text=" ".join(a.text for a in answers),
            findings=tuple(findings),
            height=medical.height,
            width=medical.width,
            spacing=medical.spacing,
            image=medical.source,
            model=self.name,
            token_probabilities=tuple(min(p, 1.0) for a in answers for p in a.probabilities),
            tokens=tuple(self.processor.decode([i]) for a in answers for i in a.ids),
            seconds=time.perf_counter() - started,
            notes=tuple(notes),
            details={
                **medical.details,
                **({"names": {name.label: name.probability for name in named[:SHOWN_NAMES]}} if named else {}),
                **({"measured": asdict(measured)} if measured else {}),
                "modality": modality,
                "box": checked,
                "presence_threshold": self.presence_threshold if self.model.config.scores_trained else None,
                "pixels": hashlib.sha256(np.ascontiguousarray(medical.pixels).tobytes()).hexdigest()[:16],
            },
            pixels=medical.pixels,
        )

    # ---------------------------------------------------------------- reading

    def _findings(
        self,
        task: str,
        answers: list[Answer],
        asked: list[str | None],
        encoded: EncodedImage,
        box: Box | None,
        modality: str | None,
    ) -> tuple[list[Finding], list[str]]:
        image = encoded.image
        size = (image.height, image.width)
        notes = [] if all(a.finished for a in answers) else ["the answer was cut at its longest length"]
        masks, presence, quality = self._masks(answers, encoded)
        threshold = self.presence_threshold if self.model.config.scores_trained else 0.0
        findings: list[Finding] = []
        number = 0
        for answer, target in zip(answers, asked, strict=True):
            phrases = read_phrases(answer.text, target or "finding")
            for phrase in phrases:
                mask, score = masks[number], presence[number]
                if task == "recognize" and not self.taught.finds(phrase.label, modality):
                    mask, score = np.zeros_like(mask), 0.0
                    notes.append(
                        f"the answer names '{phrase.label}', which this model was not taught to find in {modality} "
                        "images, so that it counts as not found"
                    )
                elif score < threshold:
                    mask = np.zeros_like(mask)
                    if target is None:
                        notes.append(
                            f"the answer names '{phrase.label}', but its presence score is below {threshold:.2g}, "
                            "so that its mask was emptied"
                        )
                findings.append(
                    Finding.from_mask(
                        target or phrase.label,
                        mask,
                        phrase=phrase.phrase,
                        score=score,
                        mask_score=quality[number],
                        spacing=image.spacing,
                    )
                )
                number += 1
            if phrases:
                if target is not None and len(phrases) > 1:
                    findings[-len(phrases) :] = [_joined(findings[-len(phrases) :], image.spacing)]
                continue
            if target is not None:
                findings.append(Finding.from_mask(target, np.zeros(size, bool), spacing=image.spacing))
            elif is_no_findings(answer.text) and task in ("recognize", "report"):
                findings.append(Finding.from_mask(NO_FINDINGS, np.zeros(size, bool), spacing=image.spacing))
            elif box is not None:
                label = read_class(answer.text) if task == "classify" else "region"
                sure = text_score(answer.probabilities) if task == "classify" else None
                phrase_text = clean_text(answer.text) or label
                findings.append(Finding(label or "region", phrase_text, score=sure, box=box))
        return findings, notes

    @torch.inference_mode()
    def _masks(self, answers: list[Answer], encoded: EncodedImage) -> tuple[list[np.ndarray], list[float], list[float]]:
        caught = [a.prompts for a in answers if a.prompts is not None and len(a.prompts)]
        if not caught:
            return [], [], []
        prompts = torch.cat(caught)
        height, width = encoded.image.height, encoded.image.width
        if len(prompts) * height * width > MAX_DECODED_PIXELS:
            raise InputError(
                f"{len(prompts)} masks of {width}x{height} pixels are too much for one answer: shrink the image first, "
                "or ask for fewer targets"
            )
        masks: list[np.ndarray] = []
        presence: list[float] = []
        quality: list[float] = []
        trained = self.model.config.scores_trained
        # one call for as many as people ask for; a model that repeats itself must not fill the memory
        for part in prompts.split(MAX_QUESTIONS):
            predicted = self.model.decode_masks(encoded.features.maps, part)
            best = predicted.best()
            self.check_numbers(bool(torch.isfinite(best).all()))
            if trained:
                _extend(presence, quality, trained_scores(predicted, self.model.config))
            levels = mask_cut(best, self.model.config.mask_cut).sigmoid().tolist()
            # one at a time: at the image's own size they are large
            for logits, level in zip(best.split(1), levels, strict=True):
                probabilities = self.processor.mask_logits(logits, (height, width)).sigmoid_()
                masks.append((probabilities[0] > level).cpu().numpy())
                if not trained:
                    _extend(presence, quality, derived_scores(probabilities))
        return masks, presence, quality


def _joined(parts: list[Finding], spacing: tuple[float, float] | None) -> Finding:
    """One finding for one target that the answer points at several times: all of its pixels, the surest scores."""
    masks = [part.mask for part in parts if part.mask is not None]
    return Finding.from_mask(
        parts[0].label,
        np.any(masks, axis=0),
        phrase="; ".join(dict.fromkeys(part.phrase for part in parts)),
        score=max(part.score or 0.0 for part in parts),
        mask_score=max(part.mask_score or 0.0 for part in parts),
        spacing=spacing,
    )


def _extend(presence: list[float], quality: list[float], scores: tuple[list[float], list[float]]) -> None:
    presence += scores[0]
    quality += scores[1]


def _answer_text(task: str, answers: list[Answer], findings: list[Finding]) -> str:
    words = " ".join(filter(None, (clean_text(a.text) for a in answers)))
    if task != "segment" and words:
        return words
    parts = [f"{f.label}: {'found' if f.present else 'not found'}" for f in findings]
    return "; ".join(parts) if parts else words


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
    return Interpreter(network, processor, Path(os.path.abspath(model)).name, taught=Taught.read(folder))
