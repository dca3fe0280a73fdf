"""One image, many questions: the model's answers as findings."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from unibiomed.errors import InputError, ModelError
from unibiomed.findings import MAX_DECODED_PIXELS, Box, Finding
from unibiomed.images import MedicalImage, check_box, check_modality, draw_box, from_array, read_image
from unibiomed.model.cut import mask_cut
from unibiomed.model.generation import MAX_NEW_TOKENS, Answer, generate
from unibiomed.model.modeling import ImageFeatures, UniBiomedModel
from unibiomed.model.processing import UniBiomedProcessor
from unibiomed.model.weights import load_model
from unibiomed.tasks import (
    NO_FINDINGS,
    choose_task,
    clean_text,
    is_no_findings,
    make_question,
    read_class,
    read_phrases,
)

from .naming import Name, Outline, box_fit, outline_targets, rank_names, word_logits
from .result import Result
from .scores import derived_scores, text_score, trained_scores
from .taught import Taught

NANO = Path(__file__).parent.parent / "weights" / "nano"
ImageLike = str | os.PathLike[str] | np.ndarray | Image.Image | MedicalImage
MAX_QUESTIONS = 64
SHOWN_NAMES = 3


@dataclass
class EncodedImage:
    """An image the model has looked at: ask as often as you like.

    Attributes
    ----------
    image : MedicalImage
    features : ImageFeatures
        Of the image as it is.
    tokens : int
        Language-model tokens of the image.
    box : tuple of int or None
        What was drawn on it.
    outlines : dict
        By modality and name, targets that were looked for to name what a box holds; None for those without a mask.
    """

    image: MedicalImage
    features: ImageFeatures
    tokens: int
    box: Box | None = None
    outlines: dict[tuple[str | None, str], Outline | None] = field(default_factory=dict)


class Interpreter:
    """A loaded model that answers questions about images.

    Parameters
    ----------
    model : UniBiomedModel
    processor : UniBiomedProcessor
    name : str
        Shown in results.
    presence_threshold : float, optional
        With trained scores, a target whose presence score is lower is reported absent and its mask emptied; with 0
        none is.
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
        self.taught = taught or Taught({})
        self.model = model.eval()
        self.processor = processor
        self.name = name
        own = model.config.presence_threshold
        self.presence_threshold = own if presence_threshold is None else presence_threshold

    # ---------------------------------------------------------------- looking

    @torch.inference_mode()
    def encode(self, image: ImageLike, *, box: Box | None = None, **reading: Any) -> EncodedImage:
        """Look at an image once; the result may be given to :meth:`interpret` in its place.

        Parameters
        ----------
        image : path, array, PIL image or MedicalImage
        box : tuple of int, optional
            Drawn on the image, as the region questions of the paper have it.
        **reading
            ``slice_index`` and ``window`` of :func:`unibiomed.images.read_image`.
        """
        medical = _as_image(image, **reading)
        pixels = medical.pixels if box is None else self._draw(medical.pixels, box)
        inputs = self.processor.image(pixels)
        device = self.model.device
        tiles = inputs.tile_pixels
        features = self.model.encode_image(
            inputs.grounding_pixels.to(device),
            None if tiles is None else tiles.to(device),
            None if tiles is None else [len(tiles)],
        )
        return EncodedImage(medical, features, inputs.tokens, box)

    def _draw(self, pixels: np.ndarray, box: Box) -> np.ndarray:
        height, width = pixels.shape[:2]
        x0, y0, x1, y1 = check_box(box, height, width)
        if self.processor.settings.tile_size:
            return draw_box(pixels, (x0, y0, x1, y1))
        # a model that sees everything at one small size learned the outline at that size
        side = self.processor.settings.grounding_size
        small = np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC))
        left, top = x0 * side // width, y0 * side // height
        right, bottom = max(-(-x1 * side // width), left + 1), max(-(-y1 * side // height), top + 1)
        return draw_box(small, (left, top, right, bottom))

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
            One of ``segment``, ``recognize``, ``report``, ``classify``, ``describe``, ``ask``. When left out it follows
            from what is given: targets, a question, a box, or nothing (``recognize``).
        targets : str or sequence of str
            What to outline; the letter case of targets that the model was taught does not matter.
        box : sequence of int, optional
            x0, y0, x1, y1 in pixels, x1 and y1 exclusive.
        question : str, optional
            The question of ``ask``; for other tasks it replaces the task's own words, for one target at most.
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
            If the model's values are not numbers.
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
        medical = _as_image(seen, slice_index=slice_index, window=window)
        checked = None if box is None else check_box(box, medical.height, medical.width)
        if encoded is None or checked is not None:
            encoded = self.encode(medical, box=checked)
        modality = modality or medical.modality
        spelled = [None if t is None else self.taught.spelling(t) for t in asked]
        questions = [make_question(task, target=t, modality=modality, text=question) for t in spelled]
        answers = self.answer(encoded, questions, max_new_tokens=max_new_tokens)
        self._check_numbers(all(math.isfinite(p) for a in answers for p in a.probabilities))
        findings, notes = self._findings(task, answers, asked, encoded, checked, modality)
        named: list[Name] = []
        if task == "classify" and checked is not None and question is None:
            named = self._name_box(image, encoded, questions[0], clean_text(answers[0].text), modality)
        if named:
            first = named[0]
            findings = [Finding(first.label, first.words, score=first.probability, box=checked)]
            alone = max(named, key=lambda name: name.in_words)
            if alone is not first:
                notes.append(f"by words alone it would be '{alone.label}'; the masks decided")
        notes += [warning for name in asked if name and (warning := self.taught.warning(name))]
        if names and task != "segment":
            notes.append(f"targets have no effect on the task '{task}'; they belong to 'segment'")
        return Result(
            task=task,
            question=" ".join(questions),
            text=named[0].words if named else _answer_text(task, answers, findings),
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
                "modality": modality,
                "box": checked,
                "presence_threshold": self.presence_threshold if self.model.config.scores_trained else None,
                "pixels": hashlib.sha256(np.ascontiguousarray(medical.pixels).tobytes()).hexdigest()[:16],
            },
            pixels=medical.pixels,
        )

    def answer(
        self, encoded: EncodedImage, questions: Sequence[str], *, max_new_tokens: int = MAX_NEW_TOKENS
    ) -> list[Answer]:
        """The model's raw answers to questions about one image, made in one batch.

        Raises
        ------
        InputError
            If a question is longer than the model can read.
        """
        # a zero character marks the image's place while a prompt is made
        prompts = [self.processor.prompt_ids(q.replace("\0", " "), encoded.tokens) for q in questions]
        longest = self.model.config.mllm_config.text_config.max_position_embeddings
        if max(map(len, prompts), default=0) + max_new_tokens > longest:
            raise InputError(
                f"the image, the question and an answer of {max_new_tokens} tokens need more than the {longest} tokens "
                "this model can hold: shorten the question"
            )
        return generate(self.model, self.processor, encoded.features, prompts, max_new_tokens=max_new_tokens)

    def _name_box(
        self, image: ImageLike | EncodedImage, boxed: EncodedImage, question: str, said: str, modality: str | None
    ) -> list[Name]:
        """What a box may hold, the likeliest first; nothing where it is not known what the model was taught."""
        box, targets = boxed.box, self.taught.held(modality, said)
        assert box is not None, "no box was drawn"
        if len(targets) < 2 or not self.model.config.scores_trained:
            return []
        fits: dict[str, float] = {}
        # where all are names of one target, its mask cannot tell them apart
        if len(wanted := sorted(set(targets.values()))) > 1:
            plain = image if isinstance(image, EncodedImage) and image.box is None else self.encode(boxed.image)
            self._outline(plain, wanted, modality)
            for name in wanted:
                if outline := plain.outlines[modality, name]:
                    down, right = outline.mask.shape[0] / boxed.image.height, outline.mask.shape[1] / boxed.image.width
                    scaled = (box[0] * right, box[1] * down, box[2] * right, box[3] * down)
                    fits[name] = outline.presence * box_fit(outline.mask, scaled)
        prompt = self.processor.prompt_ids(question, boxed.tokens)
        words: dict[str, float] = {}
        for part in _parts(list(targets), MAX_QUESTIONS):
            words |= dict(zip(part, word_logits(self.model, self.processor, boxed.features, prompt, part), strict=True))
        self._check_numbers(all(map(math.isfinite, (*fits.values(), *words.values()))))
        return rank_names(words, targets, fits)

    def _outline(self, plain: EncodedImage, targets: Sequence[str], modality: str | None) -> None:
        """Look for targets in an image, those that were not looked for before."""
        for part in _parts([name for name in targets if (modality, name) not in plain.outlines], MAX_QUESTIONS):
            asked = self.answer(plain, [make_question("segment", target=name, modality=modality) for name in part])
            prompts = {name: a.prompts for name, a in zip(part, asked, strict=True) if a.prompts is not None}
            found = outline_targets(self.model, plain.features, prompts)
            plain.outlines.update({(modality, name): found.get(name) for name in part})

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
                            f"the answer names '{phrase.label}', but its presence score is below {threshold:g}, "
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
            self._check_numbers(bool(torch.isfinite(best).all()))
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

    def _check_numbers(self, finite: bool) -> None:
        if not finite:
            kind = str(self.model.dtype).removeprefix("torch.")
            cure = "get the model again" if kind == "float32" else "use float32"
            raise ModelError(f"the values of the model '{self.name}' are not numbers in {kind}: {cure}")


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


def _as_image(image: ImageLike, **reading: Any) -> MedicalImage:
    reading = {name: value for name, value in reading.items() if value is not None}
    if isinstance(image, MedicalImage):
        if reading:
            raise InputError("a window or slice can only be chosen while an image file is read")
        return image
    if isinstance(image, str | os.PathLike):
        return read_image(image, **reading)
    if "slice_index" in reading:
        raise InputError("an array has no slices to choose from: give the slice itself")
    return from_array(image, **reading)


def _parts(names: Sequence[str], most: int) -> list[Sequence[str]]:
    return [names[start : start + most] for start in range(0, len(names), most)]


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
