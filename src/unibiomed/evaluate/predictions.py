"""Storage of predictions: one JSON file per sample, so that metrics can be added without running a model again."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from unibiomed.data.index import replacing, writing
from unibiomed.errors import DataError, InputError
from unibiomed.findings import rle_decode, rle_encode

from .deprecated import PREDICTION_KEYS, rename_keys, warn_deprecated

__all__ = ["Prediction", "PredictionStore", "read_prediction", "safe_name"]

SCHEMA = 2
MAX_NAME_LENGTH = 180
MODEL_FILE = "model.json"
MAX_BYTES = 50_000_000


@dataclass(frozen=True, slots=True)
class Prediction:
    """Answer of a model to one sample.

    Parameters
    ----------
    sample : str
        ID of the sample.
    text : str
        Answer as generated, including special tokens.
    labels : tuple of str
        Labels named in the answer: one per mask, or the class of a box.
    masks : tuple of dict
        COCO run-length encoding of each mask at the size of the image.
    scores : tuple of float or None
        Probability per mask that its target is present. None if the model does not report it.
    mask_scores : tuple of float or None
        Predicted IoU per mask. None if the model does not report it.
    seconds : float or None
        Time for the image divided by its number of samples.
    error : str or None
        Reason why there is no answer. Such a sample counts as a failure.
    question_digest : str or None
        Digest of the question. None in files of older versions.
    image_digest : str or None
        Digest of the image. None in files of older versions.
    """

    sample: str
    text: str = ""
    labels: tuple[str, ...] = ()
    masks: tuple[dict[str, Any], ...] = ()
    scores: tuple[float | None, ...] = ()
    mask_scores: tuple[float | None, ...] = ()
    seconds: float | None = None
    error: str | None = None
    question_digest: str | None = field(default=None, compare=False)
    image_digest: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for name in ("labels", "scores", "mask_scores"):
            if self.masks and len(getattr(self, name)) != len(self.masks):
                raise DataError(f"{self.sample}: {len(self.masks)} masks, but {len(getattr(self, name))} {name}")
        for value in (*self.scores, *self.mask_scores):
            if value is not None and not 0 <= value <= 1:
                raise DataError(f"{self.sample}: score {value} is not in [0, 1]")

    @classmethod
    def from_masks(
        cls,
        sample: str,
        text: str,
        labels: Sequence[str],
        masks: Sequence[np.ndarray],
        scores: Sequence[float | None] = (),
        mask_scores: Sequence[float | None] = (),
        seconds: float | None = None,
    ) -> Prediction:
        """Create a prediction from (height, width) bool masks; a score outside of [0, 1] makes it a failure."""
        none: tuple[float | None, ...] = (None,) * len(masks)
        given = [tuple(None if s is None else float(s) for s in part) or none for part in (scores, mask_scores)]
        # one NaN must not invalidate the other predictions of the image
        if invalid := [s for part in given for s in part if s is not None and not 0 <= s <= 1]:
            return cls.failed(sample, f"score {invalid[0]} is not in [0, 1]")
        return cls(sample, text, tuple(labels), tuple(map(rle_encode, masks)), given[0], given[1], seconds)

    @classmethod
    def failed(cls, sample: str, error: str) -> Prediction:
        """Create the record of a failure."""
        return cls(sample, error=" ".join(error.split())[:300] or "unknown error")

    def decode(self, size: tuple[int, int]) -> list[np.ndarray]:
        """Return the masks as (height, width) bool arrays.

        Parameters
        ----------
        size : (int, int)
            Height and width of the image.

        Raises
        ------
        DataError
            A mask is invalid or its size differs from that of the image.
        """
        try:
            masks = [rle_decode(rle) for rle in self.masks]
        except InputError as error:
            raise DataError(f"{self.sample}: {error}") from error
        for mask in masks:
            if mask.shape != tuple(size):
                raise DataError(
                    f"{self.sample}: the mask is {mask.shape[1]} x {mask.shape[0]} pixels, the image "
                    f"{size[1]} x {size[0]}"
                )
        return masks


def safe_name(name: str) -> str:
    """Return the name of a predictor as a valid part of a file name on every platform."""
    return "".join(c if c.isalnum() or c in "-_.+" else "_" for c in name)


class PredictionStore:
    """Folder with one JSON file per sample, ``dataset/name.json``, and ``model.json``, which identifies the model.

    Parameters
    ----------
    folder : Path
        Created when the first prediction is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, sample: str) -> Path:
        """Return the file of a sample."""
        dataset, _, name = sample.partition("/")
        safe = quote(name, safe=" ()+,=@~")
        if len(safe) > MAX_NAME_LENGTH:
            safe = f"{safe[:120]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
        return self.folder / quote(dataset, safe="") / f"{safe}.json"

    def write(self, prediction: Prediction) -> None:
        """Write a prediction atomically."""
        path = self.path(prediction.sample)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{os.getpid()}.{hashlib.sha256(path.name.encode()).hexdigest()[:12]}.tmp")
            temporary.write_text(json.dumps({"schema": SCHEMA, **asdict(prediction)}), encoding="utf-8")
            os.replace(temporary, path)

    def register_model(self, name: str, fingerprint: str, note: str = "") -> None:
        """Record which model the predictions belong to, before any is added.

        A folder of an older version without this record is assumed to belong to the same model.

        Raises
        ------
        InputError
            The folder holds predictions of another model.
        """
        path = self.folder / MODEL_FILE
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))["fingerprint"]
            # baselines were named "floor:NAME" before version 0.2
            stored = re.sub("^floor:", "baseline:", stored)
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            stored = None
        if stored == fingerprint:
            return
        if stored is not None and next(self._paths(), None) is not None:
            raise InputError(
                f"'{self.folder}' holds predictions of another model named '{name}': choose another --out, or name "
                "the model with TITLE=MODEL"
            )
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            values = {"schema": SCHEMA, "name": name, "fingerprint": fingerprint, "note": note}
            temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")

    def has(self, sample: str, question_digest: str | None = None, image_digest: str | None = None) -> bool:
        """Return whether a valid prediction of a sample is stored; failures are repeated.

        Parameters
        ----------
        sample : str
        question_digest, image_digest : str, optional
            Digests of the current question and image. A prediction for other ones is not valid.
        """
        try:
            stored = self.read(sample)
        except DataError:
            return False
        pairs = ((question_digest, stored.question_digest), (image_digest, stored.image_digest))
        return stored.error is None and all(now is None or before in (None, now) for now, before in pairs)

    def read(self, sample: str) -> Prediction:
        """Read the prediction of a sample.

        Raises
        ------
        DataError
            The file is missing or invalid.
        """
        path = self.path(sample)
        if not path.exists():
            raise DataError(f"{sample}: no prediction")
        prediction = read_prediction(path)
        if prediction.sample != sample:
            raise DataError(f"{sample}: its file holds the prediction of '{prediction.sample}'")
        return prediction

    def unmatched_files(self, samples: set[str]) -> list[str]:
        """Return the prediction files that belong to none of the given sample IDs, relative to the folder."""
        # strings, because a hundred thousand Path objects take hundreds of MB
        expected = {str(self.path(sample)) for sample in samples}
        return sorted(str(path.relative_to(self.folder)) for path in self._paths() if str(path) not in expected)

    def _paths(self) -> Iterator[Path]:
        return self.folder.glob("*/*.json")


def read_prediction(path: Path) -> Prediction:
    """Read and validate one prediction file.

    Raises
    ------
    DataError
        The file is missing, too large, not JSON or not a prediction.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path.name}: not a prediction: larger than {MAX_BYTES // 1_000_000} MB")
        values = json.loads(path.read_text(encoding="utf-8"), parse_constant=_reject_constant)
        if isinstance(values, dict) and values.get("schema") == 1:
            warn_deprecated("prediction files of schema 1", "'unibiomed evaluate' to write them again")
            values = {**rename_keys(values, PREDICTION_KEYS), "schema": SCHEMA}
        names = {f.name for f in fields(Prediction)}
        optional = {"error", "question_digest", "image_digest"}
        if not isinstance(values, dict) or values.get("schema") != SCHEMA or not names <= values.keys() | optional:
            raise DataError(f"{path.name}: not a prediction of schema {SCHEMA}")
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in names}
        _check_types(values)
        return Prediction(**values)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{path.name}: the prediction cannot be read ({str(error)[:100]})") from error


def _reject_constant(word: str) -> float:
    raise ValueError(f"{word} is not a number")


def _check_types(values: dict[str, Any]) -> None:
    def number(value: Any) -> bool:
        return value is None or (type(value) in (int, float) and math.isfinite(value))

    def optional_text(value: Any) -> bool:
        return value is None or isinstance(value, str)

    def scores(value: Any) -> bool:
        return isinstance(value, tuple) and all(map(number, value))

    valid = {
        "sample": lambda v: isinstance(v, str),
        "text": lambda v: isinstance(v, str),
        "labels": lambda v: isinstance(v, tuple) and all(isinstance(i, str) for i in v),
        "masks": lambda v: isinstance(v, tuple) and all(isinstance(i, dict) for i in v),
        "scores": scores,
        "mask_scores": scores,
        "seconds": number,
        "error": optional_text,
        "question_digest": optional_text,
        "image_digest": optional_text,
    }
    for name, value in values.items():
        if not valid[name](value):
            raise ValueError(f"'{name}' has the wrong type")
