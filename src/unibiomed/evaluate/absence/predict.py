"""Prediction of all pairs of one image and of its findings."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from unibiomed.data.scene import Scene
from unibiomed.errors import DataError, OutputError, UniBiomedError
from unibiomed.tasks import SEG, make_question

from ..predict import image_digest, predict_case
from ..predictions import Prediction
from ..predictors import Predictor, Presence, fingerprint_of, source_digest_of
from ..sample_scores import unscored_sample
from ..samples import IN_CONTEXT, OUT_OF_CONTEXT, Case, Sample, make_cases
from ..suite import Suite
from ..task_scorers import SCORERS, ScorerInput
from .answers import ImageAnswers, PairAnswer, RecognitionAnswer
from .pairs import PRESENT, Pair

__all__ = ["ImageQuestions", "predict_image", "questions_digest", "read_questions"]


@dataclass(frozen=True)
class ImageQuestions:
    """One image with its ground truth.

    Parameters
    ----------
    case : Case
        Its only sample is that of ``recognize``, if there is one.
    scene : Scene
        With all masks, or placeholders of one pixel if the image cannot be read.
    pixels : numpy.ndarray or str
        (height, width, 3) uint8, or the reason why the image or one of its masks cannot be read.
    """

    case: Case
    scene: Scene
    pixels: np.ndarray | str


def read_questions(suite: Suite, case: Case) -> ImageQuestions:
    """Read an image with its masks, and make the sample of ``recognize`` if the suite has this task."""
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
        recognize = replace(suite, tasks=["recognize"], limit=0)
        made = next(make_cases(recognize, [record], unreadable={}), None)
        samples = made.samples if made is not None else ()
    return ImageQuestions(replace(case, samples=samples), Scene(record, masks), pixels)


def questions_digest(predictor: Predictor, questions: ImageQuestions, pairs: Sequence[Pair]) -> str:
    """Return a digest of the model, the image and all questions."""
    recognize = [[s.question, s.labels] for s in questions.case.samples if s.task in predictor.tasks]
    model = [fingerprint_of(predictor), source_digest_of(predictor)]
    values = [image_digest(questions.case), model, [[p.target, p.kind] for p in pairs], recognize]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]


def predict_image(predictor: Predictor, questions: ImageQuestions, pairs: Sequence[Pair], digest: str) -> ImageAnswers:
    """Predict all pairs and the findings of one image.

    Parameters
    ----------
    predictor : Predictor
    questions : ImageQuestions
    pairs : sequence of Pair
    digest : str
        From `questions_digest`.

    Returns
    -------
    ImageAnswers
        A failure counts as wrong: a present target is missed, any other target has a false mask.

    Raises
    ------
    OutputError
        A file cannot be written.
    """
    started = time.perf_counter()
    record, failure = questions.case.record, None
    predicted: Sequence[Presence | str] = _predict_presence(predictor, questions, pairs) if pairs else []
    answers = []
    for pair, presence in zip(pairs, predicted, strict=True):
        if isinstance(presence, str):
            failure = presence
            wrong = pair.kind != PRESENT
            answers.append(PairAnswer(pair.target, pair.kind, float(wrong), wrong))
        else:
            score = None if presence.score is None else round(float(presence.score), 6)
            answers.append(PairAnswer(pair.target, pair.kind, score, bool(presence.has_mask)))
    recognized = None
    for sample in (s for s in questions.case.samples if s.task in predictor.tasks):
        recognized, reason = _recognize(predictor, questions, sample)
        failure = reason or failure
    return ImageAnswers(
        record.key,
        record.dataset,
        record.modality,
        f"{record.dataset}/{record.group}",
        digest,
        tuple(answers),
        recognized,
        round(time.perf_counter() - started, 3),
        failure,
    )


def _predict_presence(
    predictor: Predictor, questions: ImageQuestions, pairs: Sequence[Pair]
) -> Sequence[Presence | str]:
    """Return the presence of each pair, or the reason of a failure."""
    if isinstance(questions.pixels, str):
        return [questions.pixels] * len(pairs)
    predict_presence = getattr(predictor, "predict_presence", None)
    modality = questions.scene.modality
    if predict_presence is None:
        return _presence_from_masks(predictor, questions.case, questions.pixels, pairs, modality)
    try:
        targets = [pair.target for pair in pairs]
        predicted = [Presence(*one) for one in predict_presence(questions.pixels, targets, modality)]
    except OutputError:
        raise
    except UniBiomedError as error:
        return [str(error)] * len(pairs)
    except Exception as error:  # a model that fails on one image must not stop the evaluation of the others
        return [f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"] * len(pairs)
    if len(predicted) != len(pairs):
        return [f"{len(predicted)} answers to {len(pairs)} questions"] * len(pairs)
    return [one if one.score is None or 0 <= one.score <= 1 else "score not in [0, 1]" for one in predicted]


def _presence_from_masks(
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
            kind=OUT_OF_CONTEXT if pair.region is None else IN_CONTEXT,
        )
        for pair in pairs
    )
    size = (pixels.shape[0], pixels.shape[1])
    return [_presence_of(one, size) for one in predict_case(predictor, replace(case, samples=samples), pixels)]


def _presence_of(prediction: Prediction, size: tuple[int, int]) -> Presence | str:
    if prediction.error is not None:
        return prediction.error
    scores = [score for score in prediction.scores if score is not None]
    return Presence(max(scores, default=None), any(mask.any() for mask in prediction.decode(size)))


def _recognize(predictor: Predictor, questions: ImageQuestions, sample: Sample) -> tuple[RecognitionAnswer, str | None]:
    """Return the answer to ``recognize``, scored as in other suites, and the reason of a failure."""
    case, score = questions.case, unscored_sample(questions.case, sample)
    if isinstance(questions.pixels, str):
        prediction, size = Prediction.failed(sample.id, questions.pixels), (1, 1)
    else:
        size = (questions.pixels.shape[0], questions.pixels.shape[1])
        prediction = predict_case(predictor, replace(case, samples=(sample,)), questions.pixels)[0]
    score.failure = prediction.error
    masks = prediction.decode(size)
    truths = case.truths(sample, questions.scene.masks, size)
    SCORERS["recognize"](score, ScorerInput(sample, prediction, masks, truths, case.record.spacing))
    answer = RecognitionAnswer(questions.scene.is_normal, bool(score.predicted_present), bool(score.exact_match))
    return answer, prediction.error
