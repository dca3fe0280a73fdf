"""What a model said, kept: one JSON file a sample, so that a metric can be added without running a model again."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from unibiomed.data.index import replacing, writing
from unibiomed.errors import DataError, InputError
from unibiomed.findings import rle_decode, rle_encode

__all__ = ["Prediction", "PredictionStore", "safe_name"]

SCHEMA = 1
LONGEST_NAME = 180
MODEL = "model.json"
MAX_BYTES = 50_000_000


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer to one sample.

    Parameters
    ----------
    sample : str
        The sample's id.
    text : str
        The answer as the model wrote it, special tokens included.
    labels : tuple of str
        What the answer names: for each mask its label, or the class of a box.
    masks : tuple of dict
        COCO run lengths of each mask on the image's own pixels.
    scores : tuple of float or None
        For each mask, the probability that its target is there; None where the model gives none.
    mask_scores : tuple of float or None
        For each mask, its expected overlap with the truth; None where the model gives none.
    seconds : float or None
        Time of the image's questions, shared among them.
    error : str or None
        Why there is no answer; such a sample counts as a failure.
    asked : str or None
        Digest of what was asked; None in files of older versions.
    seen : str or None
        Digest of the image that was shown; None in files of older versions.
    """

    sample: str
    text: str = ""
    labels: tuple[str, ...] = ()
    masks: tuple[dict[str, Any], ...] = ()
    scores: tuple[float | None, ...] = ()
    mask_scores: tuple[float | None, ...] = ()
    seconds: float | None = None
    error: str | None = None
    asked: str | None = field(default=None, compare=False)
    seen: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for name in ("labels", "scores", "mask_scores"):
            if self.masks and len(getattr(self, name)) != len(self.masks):
                raise DataError(f"{self.sample}: {len(self.masks)} masks, but {len(getattr(self, name))} {name}")
        for value in (*self.scores, *self.mask_scores):
            if value is not None and not 0 <= value <= 1:
                raise DataError(f"{self.sample}: score {value} is not in [0, 1]")

    @classmethod
    def of_masks(
        cls,
        sample: str,
        text: str,
        labels: Sequence[str],
        masks: Sequence[np.ndarray],
        scores: Sequence[float | None] = (),
        mask_scores: Sequence[float | None] = (),
        seconds: float | None = None,
    ) -> Prediction:
        """A prediction from masks as (height, width) bool arrays; a failed one where a score is not in [0, 1]."""
        none: tuple[float | None, ...] = (None,) * len(masks)
        told = [tuple(None if s is None else float(s) for s in part) or none for part in (scores, mask_scores)]
        # a model may give NaN for one sample: the others of the image have their answers
        if wrong := [s for part in told for s in part if s is not None and not 0 <= s <= 1]:
            return cls.failed(sample, f"score {wrong[0]} is not in [0, 1]")
        return cls(sample, text, tuple(labels), tuple(map(rle_encode, masks)), told[0], told[1], seconds)

    @classmethod
    def failed(cls, sample: str, error: str) -> Prediction:
        """A prediction that is not there, and why."""
        return cls(sample, error=" ".join(error.split())[:300] or "unknown error")

    def decode(self, size: tuple[int, int]) -> list[np.ndarray]:
        """The masks, (height, width) bool each.

        Raises
        ------
        DataError
            A mask is broken or of another size than the image.
        """
        masks = self.decode_any()
        for mask in masks:
            if mask.shape != tuple(size):
                raise DataError(
                    f"{self.sample}: the mask is {mask.shape[1]} x {mask.shape[0]} pixels, the image "
                    f"{size[1]} x {size[0]}"
                )
        return masks

    def decode_any(self) -> list[np.ndarray]:
        """As `decode`, where the size of the image is not at hand; sizes were compared when the answer came."""
        try:
            return [rle_decode(rle) for rle in self.masks]
        except InputError as error:
            raise DataError(f"{self.sample}: {error}") from error


def safe_name(name: str) -> str:
    """The name of a predictor as part of the name of a file or folder, on any machine."""
    return "".join(c if c.isalnum() or c in "-_.+" else "_" for c in name)


class PredictionStore:
    """A folder with one JSON file a sample, ``dataset/name.json``, and ``model.json``, which says whose they are.

    Parameters
    ----------
    folder : Path
        Made when the first prediction is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, sample: str) -> Path:
        """Where the prediction of a sample is kept."""
        dataset, _, name = sample.partition("/")
        safe = quote(name, safe=" ()+,=@~")
        if len(safe) > LONGEST_NAME:
            safe = f"{safe[:120]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
        return self.folder / quote(dataset, safe="") / f"{safe}.json"

    def write(self, prediction: Prediction) -> None:
        """Keep a prediction, whole or not at all."""
        path = self.path(prediction.sample)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh = path.with_name(f".{os.getpid()}.{hashlib.sha256(path.name.encode()).hexdigest()[:12]}.tmp")
            fresh.write_text(json.dumps({"schema": SCHEMA, **asdict(prediction)}), encoding="utf-8")
            os.replace(fresh, path)

    def claim(self, name: str, fingerprint: str, note: str = "") -> None:
        """Say whose predictions these are, before any is added.

        A folder of an older version, which does not say, is taken to be of the same model.

        Raises
        ------
        InputError
            They are another model's.
        """
        path = self.folder / MODEL
        try:
            about = json.loads(path.read_text(encoding="utf-8"))
            known = about["fingerprint"]
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            known = None
        if known == fingerprint:
            return
        if known is not None and next(self.paths(), None) is not None:
            raise InputError(
                f"'{self.folder}' holds answers of another model called '{name}': choose another --out, or another "
                "name with TITLE=MODEL"
            )
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as fresh:
            about = {"schema": SCHEMA, "name": name, "fingerprint": fingerprint, "note": note}
            fresh.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")

    def has(self, sample: str, asked: str | None = None, seen: str | None = None) -> bool:
        """Whether a sample has a prediction that was not a failure: those are tried again.

        Parameters
        ----------
        sample : str
        asked, seen : str, optional
            Digests of what is asked now, and of the image that is shown; the answer to anything else does not count.
        """
        try:
            found = self.read(sample)
        except DataError:
            return False
        same = all(now is None or then in (None, now) for now, then in ((asked, found.asked), (seen, found.seen)))
        return found.error is None and same

    def read(self, sample: str) -> Prediction:
        """The prediction of a sample.

        Raises
        ------
        DataError
            There is none, or it is broken.
        """
        path = self.path(sample)
        if not path.exists():
            raise DataError(f"{sample}: no prediction")
        found = read_prediction(path)
        if found.sample != sample:
            raise DataError(f"{sample}: its file holds the prediction of '{found.sample}'")
        return found

    def paths(self) -> Iterator[Path]:
        """All files, for finding those that belong to no sample."""
        return self.folder.glob("*/*.json")


def read_prediction(path: Path) -> Prediction:
    """Read one file, believing nothing.

    Raises
    ------
    DataError
        It is missing, too large, not JSON or not a prediction.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path.name}: larger than {MAX_BYTES // 1_000_000} MB; it is no prediction")
        values = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
        known = {f.name for f in fields(Prediction)}
        if (
            not isinstance(values, dict)
            or values.get("schema") != SCHEMA
            or not known <= values.keys() | {"error", "asked", "seen"}
        ):
            raise DataError(f"{path.name}: not a prediction of schema {SCHEMA}")
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in known}
        _check_types(values)
        return Prediction(**values)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{path.name}: the prediction cannot be read ({str(error)[:100]})") from error


def _refuse(word: str) -> float:
    raise ValueError(f"{word} is no number")


def _check_types(values: dict[str, Any]) -> None:
    def number(value: Any) -> bool:
        return value is None or (type(value) in (int, float) and math.isfinite(value))

    right = {
        "sample": lambda v: isinstance(v, str),
        "text": lambda v: isinstance(v, str),
        "labels": lambda v: isinstance(v, tuple) and all(isinstance(i, str) for i in v),
        "masks": lambda v: isinstance(v, tuple) and all(isinstance(i, dict) for i in v),
        "scores": lambda v: isinstance(v, tuple) and all(map(number, v)),
        "mask_scores": lambda v: isinstance(v, tuple) and all(map(number, v)),
        "seconds": number,
        "error": lambda v: v is None or isinstance(v, str),
        "asked": lambda v: v is None or isinstance(v, str),
        "seen": lambda v: v is None or isinstance(v, str),
    }
    for name, value in values.items():
        if not right[name](value):
            raise ValueError(f"'{name}' is of the wrong type")
