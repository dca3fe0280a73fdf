"""Ask every predictor every question, and keep what each says; what is kept is not asked again."""

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

from .changes import CHANGES
from .predictions import Prediction, PredictionStore, safe_name
from .predictors import Predictor, edition_of, fingerprint_of, samples_for
from .predictors.fingerprints import forget_series, image_contents
from .samples import Case, Sample

__all__ = ["predict_cases", "predictions_folder"]


def predictions_folder(out: Path, predictor: str) -> Path:
    """Where the predictions of one predictor are kept."""
    name = safe_name(predictor)
    # a name of nothing but dots is another folder
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
    """Answer all cases.

    Parameters
    ----------
    cases : iterable of Case
        Each is decoded once for all predictors.
    predictors : sequence of Predictor
    out : Path
        Folder of the evaluation.
    total : int, optional
        Number of cases, for the progress bar.
    progress : bool
        Show it.
    unreadable : dict of str to str, optional
        Gets the key of each image that could not be read and the reason; its samples have failed.

    Returns
    -------
    dict of str to Counter
        For each predictor how many samples were ``answered``, ``kept`` from an earlier run and ``failed``.

    Raises
    ------
    InputError
        The folder holds answers of another model of one of the names.
    OutputError
        The folder cannot be written.
    """
    stores = {p.name: PredictionStore(predictions_folder(out, p.name)) for p in predictors}
    for predictor in predictors:
        stores[predictor.name].claim(predictor.name, fingerprint_of(predictor), predictor.note)
    editions = {p.name: edition_of(p) for p in predictors}
    counts: dict[str, Counter[str]] = {p.name: Counter() for p in predictors}
    forget_series()
    for case in tqdm(cases, total=total, desc="asking", unit="image", disable=not progress):
        pixels: np.ndarray | str | None = None
        seen = seen_digest(case)
        for predictor in predictors:
            store, count = stores[predictor.name], counts[predictor.name]
            mine = samples_for(predictor, case.samples)
            digests = {s.id: asked_digest(case, s, editions[predictor.name]) for s in mine}
            asked = [s for s in mine if not store.has(s.id, digests[s.id], seen)]
            count["kept"] += len(mine) - len(asked)
            if not asked:
                continue
            if pixels is None:
                pixels = _pixels(case)
                if isinstance(pixels, str) and unreadable is not None:
                    unreadable.setdefault(case.record.key, pixels)
            if isinstance(pixels, str):
                answers = [Prediction.failed(s.id, pixels) for s in asked]
            else:
                answers = answer_case(predictor, replace(case, samples=tuple(asked)), pixels)
            for prediction in answers:
                store.write(replace(prediction, asked=digests[prediction.sample], seen=seen))
                count["failed" if prediction.error else "answered"] += 1
    return counts


def _pixels(case: Case) -> np.ndarray | str:
    """The image, or why it cannot be read."""
    try:
        return case.pixels()
    except DataError as error:
        return str(error)


def asked_digest(case: Case, sample: Sample, edition: str = "") -> str:
    """What a sample asks, and what its answer is taken from: where it differs, a kept answer is to something else."""
    change = case.change and [*case.change, CHANGES[case.change[0]].levels[case.change[1] - 1]]
    what = [sample.question, sample.target, sample.box, change, edition]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]


def seen_digest(case: Case) -> str:
    """The image that is shown: its file, and what of it is seen how; what is done to it belongs to what is asked."""
    record = case.record
    what = [image_contents(record), record.slice_index, record.window, record.modality, record.site]
    if record.channel is not None:
        what.append(record.channel)
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]


def answer_case(predictor: Predictor, case: Case, pixels: np.ndarray) -> list[Prediction]:
    """One prediction for each sample: a model that crashes, answers twice or not at all has failed there."""
    size = (pixels.shape[0], pixels.shape[1])
    try:
        found = list(predictor.predict(case, pixels))
        times = Counter(p.sample for p in found)
    except OutputError:
        raise
    except UniBiomedError as error:
        return [Prediction.failed(s.id, str(error)) for s in case.samples]
    except Exception as error:  # whatever a model does on one image, the others are judged
        return [Prediction.failed(s.id, f"{type(error).__name__}: {error}") for s in case.samples]
    by_id = {p.sample: p for p in found}
    out = []
    for sample in case.samples:
        if times[sample.id] != 1:
            reason = "answered more than once" if times[sample.id] else "no answer"
            out.append(Prediction.failed(sample.id, reason))
            continue
        try:
            by_id[sample.id].decode(size)
            out.append(by_id[sample.id])
        except DataError as error:
            out.append(Prediction.failed(sample.id, str(error).removeprefix(f"{sample.id}: ")))
    strangers = sorted(times.keys() - {s.id for s in case.samples})
    if strangers and not any(p.error for p in out):
        # an answer to what was not asked: whose it was meant to be is not known
        out = [Prediction.failed(p.sample, f"an answer for the unknown sample '{strangers[0]}'") for p in out]
    return out
