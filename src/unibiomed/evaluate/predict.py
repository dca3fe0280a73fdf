"""Run predictors on the cases of a suite and store their predictions; valid stored predictions are reused."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from unibiomed.errors import DataError, OutputError, UniBiomedError

from .perturbations import PERTURBATIONS
from .predictions import Prediction, PredictionStore, safe_name
from .predictors import Predictor, fingerprint_of, samples_for, source_digest_of
from .predictors.fingerprints import clear_series_cache, image_contents
from .samples import Case, Sample

__all__ = ["image_digest", "predict_case", "predict_cases", "predictions_folder", "question_digest"]


def predictions_folder(out: Path, predictor: str) -> Path:
    """Return the folder of the predictions of one predictor."""
    name = safe_name(predictor)
    # a name that consists of dots would be another folder
    return out / "predictions" / (name if name.strip(".") else "_")


def predict_cases(
    cases: Iterable[Case],
    predictors: Sequence[Predictor],
    out: Path,
    *,
    total: int | None = None,
    progress: bool = True,
    unreadable: dict[str, str] | None = None,
) -> dict[str, Counter[str]]:
    """Run all predictors on all cases.

    Parameters
    ----------
    cases : iterable of Case
        Each image is decoded once for all predictors.
    predictors : sequence of Predictor
    out : Path
        Folder of the evaluation.
    total : int, optional
        Number of cases, for the progress bar.
    progress : bool
        Show a progress bar.
    unreadable : dict of str to str, optional
        Receives the key of each image that cannot be read and the reason. Its samples are failures.

    Returns
    -------
    dict of str to Counter
        For each predictor the number of samples that were ``predicted``, ``reused`` from an earlier run and ``failed``.

    Raises
    ------
    InputError
        The folder holds predictions of another model with the same name.
    OutputError
        The folder cannot be written.
    """
    stores = {p.name: PredictionStore(predictions_folder(out, p.name)) for p in predictors}
    for predictor in predictors:
        stores[predictor.name].register_model(predictor.name, fingerprint_of(predictor), predictor.note)
    sources = {p.name: source_digest_of(p) for p in predictors}
    counts: dict[str, Counter[str]] = {p.name: Counter() for p in predictors}
    clear_series_cache()
    for case in tqdm(cases, total=total, desc="predicting", unit="image", disable=not progress):
        pixels: np.ndarray | str | None = None
        image = image_digest(case)
        for predictor in predictors:
            store, count = stores[predictor.name], counts[predictor.name]
            samples = samples_for(predictor, case.samples)
            digests = {s.id: question_digest(case, s, sources[predictor.name]) for s in samples}
            pending = [s for s in samples if not store.has(s.id, digests[s.id], image)]
            count["reused"] += len(samples) - len(pending)
            if not pending:
                continue
            if pixels is None:
                pixels = _read_pixels(case)
                if isinstance(pixels, str) and unreadable is not None:
                    unreadable.setdefault(case.record.key, pixels)
            if isinstance(pixels, str):
                predictions = [Prediction.failed(s.id, pixels) for s in pending]
            else:
                predictions = predict_case(predictor, replace(case, samples=tuple(pending)), pixels)
            for prediction in predictions:
                store.write(replace(prediction, question_digest=digests[prediction.sample], image_digest=image))
                count["failed" if prediction.error else "predicted"] += 1
    return counts


def _read_pixels(case: Case) -> np.ndarray | str:
    """Read the image, or return the reason why it cannot be read."""
    try:
        return case.pixels()
    except DataError as error:
        return str(error)


def question_digest(case: Case, sample: Sample, source: str = "") -> str:
    """Return a digest of the question of a sample.

    A stored prediction with another digest is not reused. `source` is the source digest of the predictor.
    """
    perturbation = case.perturbation and [
        *case.perturbation,
        PERTURBATIONS[case.perturbation[0]].levels[case.perturbation[1] - 1],
    ]
    values = [sample.question, sample.target, sample.box, perturbation, source]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]


def image_digest(case: Case) -> str:
    """Return a digest of the unperturbed image: the content of its file, slice, channel, window, modality and site."""
    record = case.record
    values = [image_contents(record), record.slice_index, record.window, record.modality, record.site]
    if record.channel is not None:
        values.append(record.channel)
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]


def predict_case(predictor: Predictor, case: Case, pixels: np.ndarray) -> list[Prediction]:
    """Return one prediction per sample of a case.

    An exception, a missing prediction or two predictions for the same sample are failures of the samples concerned.
    """
    size = (pixels.shape[0], pixels.shape[1])
    try:
        returned = list(predictor.predict(case, pixels))
        counts = Counter(p.sample for p in returned)
    except OutputError:
        raise
    except UniBiomedError as error:
        return [Prediction.failed(s.id, str(error)) for s in case.samples]
    except Exception as error:  # a model that fails on one image must not stop the evaluation of the others
        return [Prediction.failed(s.id, f"{type(error).__name__}: {error}") for s in case.samples]
    by_id = {p.sample: p for p in returned}
    predictions = []
    for sample in case.samples:
        if counts[sample.id] != 1:
            reason = "more than one prediction" if counts[sample.id] else "no prediction"
            predictions.append(Prediction.failed(sample.id, reason))
            continue
        try:
            by_id[sample.id].decode(size)
            predictions.append(by_id[sample.id])
        except DataError as error:
            predictions.append(Prediction.failed(sample.id, str(error).removeprefix(f"{sample.id}: ")))
    unknown = sorted(counts.keys() - {s.id for s in case.samples})
    if unknown and not any(p.error for p in predictions):
        # it is not known which sample the unknown ID stands for, so none of the predictions can be trusted
        reason = f"a prediction for the unknown sample '{unknown[0]}'"
        predictions = [Prediction.failed(p.sample, reason) for p in predictions]
    return predictions
