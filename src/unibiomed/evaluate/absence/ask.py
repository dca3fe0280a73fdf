"""Ask one model for every pair of one image, and what is abnormal in it."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from unibiomed.data.scene import Scene
from unibiomed.errors import DataError, OutputError, UniBiomedError
from unibiomed.tasks import SEG, make_question

from ..predictions import Prediction
from ..predictors import Predictor, Presence, edition_of, fingerprint_of
from ..rows import blank_row
from ..run import answer_case, seen_digest
from ..samples import Case, Sample, make_cases
from ..scorers import SCORERS, Judged
from ..suite import Suite
from .answers import Answer, Asked, Recognized
from .pairs import PRESENT, Pair

__all__ = ["Question", "ask_image", "asked_digest", "question_of"]


class Question:
    """One image with all that is known of it.

    Parameters
    ----------
    case : Case
        Its one sample is that of ``recognize``, if any.
    scene : Scene
        With all masks, or stand-ins of one pixel for those of an image that cannot be read.
    pixels : numpy.ndarray or str
        (height, width, 3) uint8, or why the image or one of its masks cannot be read.
    """

    def __init__(self, case: Case, scene: Scene, pixels: np.ndarray | str) -> None:
        self.case, self.scene, self.pixels = case, scene, pixels


def question_of(suite: Suite, case: Case) -> Question:
    """Read an image with its masks, and make the question of ``recognize`` where the suite has it."""
    record = case.record
    pixels: np.ndarray | str
    try:
        pixels = case.pixels()
        masks = case.masks((pixels.shape[0], pixels.shape[1]))
    except DataError as error:
        pixels = str(error)
        masks = {j: np.full((1, 1), r.mask is not None) for j, r in enumerate(record.regions) if r.box is None}
    samples: tuple[Sample, ...] = ()
    if "recognize" in suite.tasks:
        alone = replace(suite, tasks=["recognize"], limit=0)
        found = next(make_cases(alone, [record], unreadable={}), None)
        samples = found.samples if found is not None else ()
    return Question(replace(case, samples=samples), Scene(record, masks), pixels)


def asked_digest(predictor: Predictor, question: Question, pairs: Sequence[Pair]) -> str:
    """Digest of the model, the image and all that is asked."""
    recognize = [[s.question, s.labels] for s in question.case.samples if s.task in predictor.tasks]
    model = [fingerprint_of(predictor), edition_of(predictor)]
    what = [seen_digest(question.case), model, [[p.target, p.kind] for p in pairs], recognize]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]


def ask_image(predictor: Predictor, question: Question, pairs: Sequence[Pair], asked: str) -> Answer:
    """Ask a model about one image.

    Parameters
    ----------
    predictor : Predictor
    question : Question
    pairs : sequence of Pair
        What to ask for.
    asked : str
        From `asked_digest`.

    Returns
    -------
    Answer
        A pair that got no answer counts as wrong: a target that is there is missed, any other is drawn.

    Raises
    ------
    OutputError
        Something cannot be written.
    """
    started = time.perf_counter()
    record, failure = question.case.record, None
    told: Sequence[Presence | str] = _presence(predictor, question, pairs) if pairs else []
    out = []
    for pair, presence in zip(pairs, told, strict=True):
        if isinstance(presence, str):
            failure = presence
            wrong = pair.kind != PRESENT
            out.append(Asked(pair.target, pair.kind, float(wrong), wrong))
        else:
            score = None if presence.score is None else round(float(presence.score), 6)
            out.append(Asked(pair.target, pair.kind, score, bool(presence.drawn)))
    recognized = None
    for sample in (s for s in question.case.samples if s.task in predictor.tasks):
        recognized, problem = _recognized(predictor, question, sample)
        failure = problem or failure
    return Answer(
        record.key,
        record.dataset,
        record.modality,
        f"{record.dataset}/{record.group}",
        asked,
        tuple(out),
        recognized,
        round(time.perf_counter() - started, 3),
        failure,
    )


def _presence(predictor: Predictor, question: Question, pairs: Sequence[Pair]) -> Sequence[Presence | str]:
    """For each pair the answer, or why there is none."""
    if isinstance(question.pixels, str):
        return [question.pixels] * len(pairs)
    ask = getattr(predictor, "presence_of", None)
    if ask is None:
        return _by_segment(predictor, question.case, question.pixels, pairs, question.scene.modality)
    try:
        found = [Presence(*one) for one in ask(question.pixels, [p.target for p in pairs], question.scene.modality)]
    except OutputError:
        raise
    except UniBiomedError as error:
        return [str(error)] * len(pairs)
    except Exception as error:  # whatever a model does on one image, the others are judged
        return [f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"] * len(pairs)
    if len(found) != len(pairs):
        return [f"{len(found)} answers to {len(pairs)} questions"] * len(pairs)
    return [one if one.score is None or 0 <= one.score <= 1 else "score not in [0, 1]" for one in found]


def _by_segment(
    predictor: Predictor, case: Case, pixels: np.ndarray, pairs: Sequence[Pair], modality: str | None
) -> list[Presence | str]:
    samples = tuple(
        Sample(
            f"{case.record.key}#segment/{pair.target}",
            "segment",
            make_question("segment", target=pair.target, modality=modality),
            f"It is {SEG}.",
            target=pair.target,
            regions=(pair.region,),
            modality=modality,
            kind="foreign" if pair.region is None else "own",
        )
        for pair in pairs
    )
    size = (pixels.shape[0], pixels.shape[1])
    return [_drawn(one, size) for one in answer_case(predictor, replace(case, samples=samples), pixels)]


def _drawn(prediction: Prediction, size: tuple[int, int]) -> Presence | str:
    if prediction.error is not None:
        return prediction.error
    scores = [score for score in prediction.scores if score is not None]
    return Presence(max(scores, default=None), any(mask.any() for mask in prediction.decode(size)))


def _recognized(predictor: Predictor, question: Question, sample: Sample) -> tuple[Recognized, str | None]:
    """The answer to ``recognize``, scored as in other suites, and why there is none."""
    case, row = question.case, blank_row(question.case, sample)
    if isinstance(question.pixels, str):
        prediction, size = Prediction.failed(sample.id, question.pixels), (1, 1)
    else:
        size = (question.pixels.shape[0], question.pixels.shape[1])
        prediction = answer_case(predictor, replace(case, samples=(sample,)), question.pixels)[0]
    row.failure = prediction.error
    masks = prediction.decode(size)
    truths = case.truths(sample, question.scene.masks, size)
    SCORERS["recognize"](row, Judged(sample, prediction, masks, truths, case.record.spacing))
    return Recognized(question.scene.is_normal, bool(row.found), bool(row.exact)), prediction.error
