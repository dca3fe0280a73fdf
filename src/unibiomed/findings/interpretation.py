"""The answer to a question about an image, with its findings and their masks.

The constructors validate all values, whether they come from a model or from a JSON file: types, ranges and shapes, and
that boxes and areas agree with the masks. An invalid object cannot be created.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

import numpy as np

from unibiomed.errors import InputError

from .checks import (
    Box,
    check_box,
    check_details,
    check_items,
    check_mask,
    check_number,
    check_optional,
    check_size,
    check_spacing,
    check_text,
)
from .masks import check_rle, mask_box, rle_decode, rle_encode

NO_FINDINGS = "No findings"
"""Label of the single finding, with an empty mask, of an image without abnormalities."""

SCHEMA = 2
"""Version of the JSON form. Version 1 had ``score`` in place of ``presence`` and ``confidence``; it is still read."""
MAX_DECODED_PIXELS = 2**30
MAX_FINDINGS = 1000
MAX_TOKENS = 100_000


@dataclass(frozen=True)
class SearchedTarget:
    """A target that was searched in the whole image.

    Parameters
    ----------
    label : str
        Name of the target.
    presence : float or None
        Presence score in [0, 1]: probability that the target is in the image. None if the model gives none.
    """

    label: str
    presence: float | None = None

    def __post_init__(self) -> None:
        _set(self, "label", check_text(self.label, "label"))
        _set(self, "presence", check_optional(self.presence, "presence", 1.0))


@dataclass(frozen=True, eq=False)
class Finding:
    """One target that was searched or found. For a finding with a mask, use `from_mask`.

    Parameters
    ----------
    label : str
        Name of the target, for example ``"liver tumor"``.
    phrase : str
        The phrase of the answer that this finding belongs to.
    mask : numpy.ndarray or None
        Bool array of shape (height, width) on the pixels of the image, kept read-only; None for a finding without mask.
    presence : float or None
        Presence score in [0, 1] of a segmented target: probability that the target is in the image.
    confidence : float or None
        Confidence in [0, 1] of a classification: probability of the name that was given to a box.
    mask_score : float or None
        Predicted IoU of the mask, in [0, 1].
    box : tuple of int or None
        (x0, y0, x1, y1) in pixels, x1 and y1 exclusive; None if there is no location.
    area_fraction : float
        Fraction of the image that the mask covers, in [0, 1].
    area_mm2 : float or None
        Area of the mask in mm²; None if the pixel spacing is unknown.
    present : bool
        Whether the target was found; for a finding with a mask, whether the mask is not empty.
    searched : bool
        Whether the model searched the target. False for a target that an image of this kind cannot show (its presence
        is 0) or that is not in the model's vocabulary (its presence is None: it is not known to be absent).

    Raises
    ------
    InputError
        If a value has the wrong type or range, or if box, area or `present` contradict the mask.
    """

    label: str
    phrase: str
    mask: np.ndarray | None = None
    presence: float | None = None
    confidence: float | None = None
    mask_score: float | None = None
    box: Box | None = None
    area_fraction: float = 0.0
    area_mm2: float | None = None
    present: bool = True
    searched: bool = True

    def __post_init__(self) -> None:
        _set(self, "label", check_text(self.label, "label"))
        _set(self, "phrase", check_text(self.phrase, "phrase"))
        for name in ("presence", "confidence", "mask_score"):
            _set(self, name, check_optional(getattr(self, name), name, 1.0))
        _set(self, "area_fraction", check_number(self.area_fraction, "area_fraction", 1.0))
        _set(self, "area_mm2", check_optional(self.area_mm2, "area_mm2", math.inf))
        _set(self, "box", None if self.box is None else check_box(self.box))
        if not isinstance(self.present, bool | np.bool_):
            raise InputError("'present' of a finding is not a boolean: give true or false")
        _set(self, "present", bool(self.present))
        if not isinstance(self.searched, bool | np.bool_) or (self.present and not self.searched):
            raise InputError("'searched' of a finding is not valid: give true or false, and true if it is present")
        _set(self, "searched", bool(self.searched))
        if self.mask is not None:
            _set(self, "mask", check_mask(self.mask))
            self._check_mask()

    def _check_mask(self) -> None:
        assert self.mask is not None
        fraction = np.count_nonzero(self.mask) / self.mask.size
        agrees = math.isclose(self.area_fraction, fraction, abs_tol=1e-9) and self.present == (fraction > 0)
        if not agrees or self.box != mask_box(self.mask):
            raise InputError("box, area or 'present' of a finding contradict its mask: use Finding.from_mask")

    @property
    def score(self) -> float | None:
        """Deprecated: use `presence` or `confidence`."""
        warnings.warn(
            "Finding.score is deprecated and will be removed: use presence (masks) or confidence (classification)",
            DeprecationWarning,
            stacklevel=2,
        )
        return self.confidence if self.presence is None else self.presence

    @classmethod
    def from_mask(
        cls,
        label: str,
        mask: np.ndarray,
        *,
        phrase: str | None = None,
        presence: float | None = None,
        mask_score: float | None = None,
        spacing: tuple[float, float] | None = None,
        searched: bool = True,
    ) -> Finding:
        """Create a finding from its mask; box, areas and `present` are computed from the mask.

        Parameters
        ----------
        label : str
            Name of the target.
        mask : numpy.ndarray
            Array of shape (height, width), bool or integer; non-zero pixels belong to the target. An empty mask means
            that the target is absent.
        phrase : str, optional
            Phrase of the answer; default: the label.
        presence, mask_score : float, optional
            Presence score and predicted IoU, in [0, 1].
        spacing : tuple of float, optional
            (row, column) spacing in mm per pixel.
        searched : bool
            False for a target that an image of this kind cannot show; its mask must be empty.

        Returns
        -------
        Finding

        Raises
        ------
        InputError
            If the mask is not valid, a score is outside [0, 1], or the spacing is not two positive numbers.
        """
        inside = check_mask(mask)
        pixels = int(np.count_nonzero(inside))
        sides = check_spacing(spacing)
        return cls(
            label=label,
            phrase=label if phrase is None else phrase,
            mask=inside,
            presence=presence,
            mask_score=mask_score,
            box=mask_box(inside),
            area_fraction=pixels / inside.size,
            area_mm2=None if sides is None else pixels * sides[0] * sides[1],
            present=pixels > 0,
            searched=searched,
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Finding):
            return NotImplemented
        if (self.mask is None) != (other.mask is None) or self._key() != other._key():
            return False
        return self.mask is None or other.mask is None or np.array_equal(self.mask, other.mask)

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[object, ...]:
        """All fields but the mask."""
        return tuple(getattr(self, one.name) for one in fields(self) if one.name != "mask")

    def _to_dict(self) -> dict[str, Any]:
        plain = {one.name: getattr(self, one.name) for one in fields(self)}
        box, mask = plain.pop("box"), plain.pop("mask")
        return {**plain, "box": box and list(box), "mask": None if mask is None else rle_encode(mask)}

    @classmethod
    def _from_dict(cls, data: object, height: int, width: int, schema: int) -> Finding:
        values = _values(cls, data)
        if schema == 1 and isinstance(data, Mapping):
            # A score without a mask was that of a name for a box.
            values["confidence" if data.get("mask") is None else "presence"] = data.get("score")
        if (rle := values.pop("mask", None)) is not None:
            if check_rle(rle)[:2] != (height, width):
                raise InputError("the mask of a finding does not have the size of the image: export the findings again")
            values["mask"] = rle_decode(rle)
        return cls(**values)


@dataclass(frozen=True)
class Interpretation:
    """The answer to one question about one image.

    Parameters
    ----------
    task, question : str
        Task, for example ``"segment"``, and the question.
    text, raw_text : str
        The answer without special tokens, and as generated.
    findings : tuple of Finding
        In the order of the answer; all masks have the shape (height, width).
    height, width : int
        Size of the image in pixels.
    spacing : tuple of float or None
        (row, column) spacing in mm per pixel; None if unknown.
    image, model : str
        Name of the image as given by the user, and name of the model.
    token_probabilities, tokens : tuple of float, tuple of str
        The generated tokens and their probabilities in [0, 1].
    seconds : float
        Duration of the answer.
    notes : tuple of str
        Remarks for the reader, for example that the answer was truncated.
    details : dict
        Input and settings, in JSON types: ``slice`` and number of ``slices``, ``window``, ``modality``, ``box``,
        ``presence_threshold``; ``pixels``, a checksum of the image; and the fields that
        `unibiomed.images.mask_to_slice` needs. ``modality_source`` is ``"given"``, ``"file"`` or ``"recognized"``.
        For ``segment``, ``targets`` lists the target that was ``asked`` for, the names that were ``searched``, and the
        indices of its ``findings``.
    searched : tuple of SearchedTarget
        For ``recognize``, and for ``report`` without findings: the targets that were searched, in descending order of
        presence. Empty if not known.

    Raises
    ------
    InputError
        If a value has the wrong type or range, or a finding does not fit the size of the image.
    """

    task: str
    question: str
    text: str
    raw_text: str
    findings: tuple[Finding, ...]
    height: int
    width: int
    spacing: tuple[float, float] | None = None
    image: str = ""
    model: str = ""
    token_probabilities: tuple[float, ...] = ()
    tokens: tuple[str, ...] = ()
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict, hash=False)
    searched: tuple[SearchedTarget, ...] = ()

    def __post_init__(self) -> None:
        _set(self, "details", check_details(self.details))
        for name in ("task", "question", "text", "raw_text", "image", "model"):
            _set(self, name, check_text(getattr(self, name), name))
        height, width = check_size(self.height, self.width)
        _set(self, "height", height)
        _set(self, "width", width)
        _set(self, "spacing", check_spacing(self.spacing))
        _set(self, "seconds", check_number(self.seconds, "seconds", math.inf))
        _set(self, "notes", tuple(check_text(note, "notes") for note in check_items(self.notes, "notes", MAX_TOKENS)))
        _set(
            self,
            "tokens",
            tuple(check_text(token, "tokens") for token in check_items(self.tokens, "tokens", MAX_TOKENS)),
        )
        odds = check_items(self.token_probabilities, "token_probabilities", MAX_TOKENS)
        _set(self, "token_probabilities", tuple(check_number(p, "token_probabilities", 1.0) for p in odds))
        if len(self.tokens) != len(self.token_probabilities):
            raise InputError("'tokens' and 'token_probabilities' differ in length: give one probability per token")
        _set(self, "findings", tuple(check_items(self.findings, "findings", MAX_FINDINGS)))
        _set(self, "searched", tuple(check_items(self.searched, "searched", MAX_FINDINGS)))
        if not all(isinstance(target, SearchedTarget) for target in self.searched):
            raise InputError("'searched' contains another type: give SearchedTarget objects")
        for finding in self.findings:
            self._check_finding(finding)

    def _check_finding(self, finding: object) -> None:
        if not isinstance(finding, Finding):
            raise InputError("'findings' contains another type: give Finding objects")
        size = f"{self.width} x {self.height} pixels"
        if finding.mask is not None and finding.mask.shape != (self.height, self.width):
            raise InputError(f"the mask of a finding does not have the size of the image: give a mask of {size}")
        if finding.box is not None and (finding.box[2] > self.width or finding.box[3] > self.height):
            raise InputError(f"the box of a finding exceeds the image: give a box within {size}")
        if finding.mask is not None and finding.area_mm2 is not None and self.spacing is not None:
            area = np.count_nonzero(finding.mask) * self.spacing[0] * self.spacing[1]
            if not math.isclose(finding.area_mm2, area, rel_tol=1e-6):
                raise InputError("the area in mm² of a finding contradicts its mask: use Finding.from_mask")

    def to_dict(self) -> dict[str, Any]:
        """Convert to a dictionary of JSON types; masks become COCO run lengths.

        Returns
        -------
        dict
            With ``"schema": 2``; `from_dict` restores an equal interpretation.
        """
        plain = {one.name: getattr(self, one.name) for one in fields(self)}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}
        searched = [{"label": target.label, "presence": target.presence} for target in self.searched]
        findings = [finding._to_dict() for finding in self.findings]
        return {"schema": SCHEMA, **plain, "findings": findings, "searched": searched}

    @classmethod
    def from_dict(cls, data: object) -> Interpretation:
        """Restore an interpretation from the output of `to_dict`, of this schema or schema 1. All values are checked.

        Parameters
        ----------
        data : dict
            As loaded from JSON. Unknown keys are ignored.

        Returns
        -------
        Interpretation

        Raises
        ------
        InputError
            If the schema is unknown, a value is missing or not valid, a mask does not fit the image, or the masks are
            too large together.
        """
        schema = data.get("schema") if isinstance(data, Mapping) else None
        if type(schema) is not int or not 1 <= schema <= SCHEMA:
            raise InputError(f"not a findings file of schema 1 to {SCHEMA}: give a *_findings.json of unibiomed")
        values = _values(cls, data)
        height, width = check_size(values["height"], values["width"])
        items = list(check_items(values["findings"], "findings", MAX_FINDINGS))
        if len(items) * height * width > MAX_DECODED_PIXELS:
            raise InputError("the masks of the findings are too large together: read fewer findings at a time")
        values["findings"] = tuple(Finding._from_dict(item, height, width, schema) for item in items)
        searched = check_items(values.get("searched", ()), "searched", MAX_FINDINGS)
        values["searched"] = tuple(_searched_from_dict(item, schema) for item in searched)
        return cls(**values)


def _searched_from_dict(data: object, schema: int) -> SearchedTarget:
    values = _values(SearchedTarget, data)
    if schema == 1 and isinstance(data, Mapping):
        values["presence"] = data.get("score")
    return SearchedTarget(**values)


def _values(cls: type, data: object) -> dict[str, Any]:
    """Fields of ``cls`` from a JSON object; fields without a default are required."""
    if not isinstance(data, Mapping):
        raise InputError("a finding is not a JSON object: give a *_findings.json of unibiomed")
    for one in fields(cls):
        if one.default is MISSING and one.default_factory is MISSING and one.name not in data:
            raise InputError(f"'{one.name}' is missing: give a *_findings.json of unibiomed")
    return {one.name: data[one.name] for one in fields(cls) if one.name in data}


def _set(target: object, name: str, value: object) -> None:
    object.__setattr__(target, name, value)
