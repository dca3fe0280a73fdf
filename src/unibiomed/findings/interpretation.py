"""An interpretation of an image: findings with their masks, and the answer they belong to.

Nothing here can be built invalid: the constructors check shapes, ranges and that boxes and areas agree with the masks,
whether the values come from the model or from a JSON file.
"""

from __future__ import annotations

import math
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
"""Label of the one finding, with an all-zero mask, of an image that shows nothing abnormal."""

SCHEMA = 1
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
    score : float or None
        Probability, 0 to 1, that the target is in the image; None where the model gives none.
    """

    label: str
    score: float | None = None

    def __post_init__(self) -> None:
        _set(self, "label", check_text(self.label, "label"))
        _set(self, "score", check_optional(self.score, "score", 1.0))


@dataclass(frozen=True, eq=False)
class Finding:
    """One thing that was looked for or found; build it with `from_mask` where there is a mask.

    Parameters
    ----------
    label : str
        Name of the target, for instance ``"liver tumor"``.
    phrase : str
        The words of the answer that this finding belongs to.
    mask : np.ndarray or None
        (height, width) bool on the image's own pixels, kept read-only; None for a finding in words only.
    score : float or None
        Probability, 0 to 1, that the target is in the image at all.
    mask_score : float or None
        Expected overlap of the mask with the truth, 0 to 1.
    box : tuple of int or None
        (x0, y0, x1, y1) in pixels, x1 and y1 exclusive; None where there is no place.
    area_fraction : float
        Part of the image that the mask covers, 0 to 1.
    area_mm2 : float or None
        Area of the mask in mm²; None when the pixel spacing is unknown.
    present : bool
        Whether the target was found; with a mask, whether the mask has any pixel.
    searched : bool
        Whether the model was asked for it. False for a target that such an image cannot show (its score is 0) or that
        the model does not know: then it was neither found nor is it known to be absent.

    Raises
    ------
    InputError
        A value of the wrong type or range, or a box, area or presence that contradicts the mask.
    """

    label: str
    phrase: str
    mask: np.ndarray | None = None
    score: float | None = None
    mask_score: float | None = None
    box: Box | None = None
    area_fraction: float = 0.0
    area_mm2: float | None = None
    present: bool = True
    searched: bool = True

    def __post_init__(self) -> None:
        _set(self, "label", check_text(self.label, "label"))
        _set(self, "phrase", check_text(self.phrase, "phrase"))
        _set(self, "score", check_optional(self.score, "score", 1.0))
        _set(self, "mask_score", check_optional(self.mask_score, "mask_score", 1.0))
        _set(self, "area_fraction", check_number(self.area_fraction, "area_fraction", 1.0))
        _set(self, "area_mm2", check_optional(self.area_mm2, "area_mm2", math.inf))
        _set(self, "box", None if self.box is None else check_box(self.box))
        if not isinstance(self.present, bool | np.bool_):
            raise InputError("A finding's 'present' must be true or false.")
        _set(self, "present", bool(self.present))
        if not isinstance(self.searched, bool | np.bool_) or (self.present and not self.searched):
            raise InputError("A finding's 'searched' must be true or false, and true where it is present.")
        _set(self, "searched", bool(self.searched))
        if self.mask is not None:
            _set(self, "mask", check_mask(self.mask))
            self._check_mask()

    def _check_mask(self) -> None:
        assert self.mask is not None
        fraction = np.count_nonzero(self.mask) / self.mask.size
        agrees = math.isclose(self.area_fraction, fraction, abs_tol=1e-9) and self.present == (fraction > 0)
        if not agrees or self.box != mask_box(self.mask):
            raise InputError("A finding's box, area or presence contradicts its mask; build it with Finding.from_mask.")

    @classmethod
    def from_mask(
        cls,
        label: str,
        mask: np.ndarray,
        *,
        phrase: str | None = None,
        score: float | None = None,
        mask_score: float | None = None,
        spacing: tuple[float, float] | None = None,
        searched: bool = True,
    ) -> Finding:
        """Build a finding from its mask; box, areas and presence follow from it.

        Parameters
        ----------
        label : str
            Name of the target.
        mask : np.ndarray
            (height, width) bool, or integers where anything but 0 is inside; an empty mask is an absent target.
        phrase : str, optional
            Words of the answer; the label when left out.
        score, mask_score : float, optional
            Presence and expected overlap, 0 to 1.
        spacing : tuple of float, optional
            (row, column) in mm per pixel.
        searched : bool
            False for a target that such an image cannot show; its mask must be empty.

        Returns
        -------
        Finding

        Raises
        ------
        InputError
            Not a mask, a score outside 0 to 1, or a spacing that is not two positive numbers.
        """
        inside = check_mask(mask)
        pixels = int(np.count_nonzero(inside))
        sides = check_spacing(spacing)
        return cls(
            label=label,
            phrase=label if phrase is None else phrase,
            mask=inside,
            score=score,
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
        if (self.mask is None) != (other.mask is None) or self._words() != other._words():
            return False
        return self.mask is None or other.mask is None or np.array_equal(self.mask, other.mask)

    def __hash__(self) -> int:
        return hash(self._words())

    def _words(self) -> tuple[object, ...]:
        numbers = (self.score, self.mask_score, self.box, self.area_fraction, self.area_mm2)
        return (self.label, self.phrase, *numbers, self.present, self.searched)

    def _to_dict(self) -> dict[str, Any]:
        plain = {one.name: getattr(self, one.name) for one in fields(self)}
        box, mask = plain.pop("box"), plain.pop("mask")
        return {**plain, "box": box and list(box), "mask": None if mask is None else rle_encode(mask)}

    @classmethod
    def _from_dict(cls, data: object, height: int, width: int) -> Finding:
        values = _values(cls, data)
        if (rle := values.pop("mask", None)) is not None:
            if check_rle(rle)[:2] != (height, width):
                raise InputError("A finding's mask has another size than the image; export the findings again.")
            values["mask"] = rle_decode(rle)
        return cls(**values)


@dataclass(frozen=True)
class Interpretation:
    """The answer to one question about one image.

    Parameters
    ----------
    task, question : str
        Task family, for instance ``"segment"``, and what was asked.
    text, raw_text : str
        The answer without special tokens, and as generated.
    findings : tuple of Finding
        In the order of the answer; all masks are (height, width).
    height, width : int
        Size of the image in pixels.
    spacing : tuple of float or None
        (row, column) in mm per pixel; None when unknown.
    image, model : str
        Name of the image as the user gave it, and of the model.
    token_probabilities, tokens : tuple of float, tuple of str
        The generated tokens and the probability, 0 to 1, of each.
    seconds : float
        Time the answer took.
    notes : tuple of str
        What a reader should know, for instance that the answer was cut off.
    details : dict
        What was looked at and how, as text, numbers and lists of them: ``slice`` of ``slices``, ``window``,
        ``modality``, ``box``, ``presence_threshold``; ``pixels``, a checksum of the picture; and what
        `unibiomed.images.mask_to_slice` needs. ``modality_source`` is ``"given"``, ``"file"`` or ``"recognized"``;
        ``targets``, for ``segment``, lists what was ``asked``, the names ``searched`` for it, and its ``findings``
        by index.
    searched : tuple of SearchedTarget
        With ``recognize``, and with ``report`` where nothing was found: the targets that were searched, the likeliest
        first. Empty where that is not known.

    Raises
    ------
    InputError
        A value of the wrong type or range, or findings that do not fit the image's size.
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
            raise InputError("'tokens' and 'token_probabilities' must have the same length.")
        _set(self, "findings", tuple(check_items(self.findings, "findings", MAX_FINDINGS)))
        _set(self, "searched", tuple(check_items(self.searched, "searched", MAX_FINDINGS)))
        if not all(isinstance(target, SearchedTarget) for target in self.searched):
            raise InputError("'searched' must hold searched targets only.")
        for finding in self.findings:
            self._check_finding(finding)

    def _check_finding(self, finding: object) -> None:
        if not isinstance(finding, Finding):
            raise InputError("'findings' must hold findings only.")
        if finding.mask is not None and finding.mask.shape != (self.height, self.width):
            raise InputError("A finding's mask has another size than the image.")
        if finding.box is not None and (finding.box[2] > self.width or finding.box[3] > self.height):
            raise InputError(f"A finding's box leaves the image of {self.width} x {self.height} pixels.")
        if finding.mask is not None and finding.area_mm2 is not None and self.spacing is not None:
            area = np.count_nonzero(finding.mask) * self.spacing[0] * self.spacing[1]
            if not math.isclose(finding.area_mm2, area, rel_tol=1e-6):
                raise InputError("A finding's area in mm² contradicts its mask and the pixel spacing.")

    def to_dict(self) -> dict[str, Any]:
        """Return everything as a JSON-ready dictionary; masks become COCO run lengths.

        Returns
        -------
        dict
            With ``"schema": 1``; `from_dict` reads it back to an equal interpretation.
        """
        plain = {one.name: getattr(self, one.name) for one in fields(self)}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}
        searched = [{"label": target.label, "score": target.score} for target in self.searched]
        findings = [finding._to_dict() for finding in self.findings]
        return {"schema": SCHEMA, **plain, "findings": findings, "searched": searched}

    @classmethod
    def from_dict(cls, data: object) -> Interpretation:
        """Read what `to_dict` wrote, believing nothing: every type, range and size is checked.

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
            Another schema, a missing or wrong value, or masks that do not fit the image or are too large together.
        """
        schema = data.get("schema") if isinstance(data, Mapping) else None
        if type(schema) is not int or schema != SCHEMA:
            raise InputError(f"This is not a findings file that this version can read (schema {SCHEMA}).")
        values = _values(cls, data)
        height, width = check_size(values["height"], values["width"])
        items = list(check_items(values["findings"], "findings", MAX_FINDINGS))
        if len(items) * height * width > MAX_DECODED_PIXELS:
            raise InputError("The findings' masks are too large to be read together; read fewer findings at a time.")
        values["findings"] = tuple(Finding._from_dict(item, height, width) for item in items)
        sought = check_items(values.get("searched", ()), "searched", MAX_FINDINGS)
        values["searched"] = tuple(SearchedTarget(**_values(SearchedTarget, item)) for item in sought)
        return cls(**values)


def _values(cls: type, data: object) -> dict[str, Any]:
    """Pick the fields of ``cls`` out of a JSON object; those without a default must be there."""
    if not isinstance(data, Mapping):
        raise InputError("Findings must be JSON objects; this is not a findings file of unibiomed.")
    for one in fields(cls):
        if one.default is MISSING and one.default_factory is MISSING and one.name not in data:
            raise InputError(f"'{one.name}' is missing; this is not a findings file of unibiomed.")
    return {one.name: data[one.name] for one in fields(cls) if one.name in data}


def _set(target: object, name: str, value: object) -> None:
    object.__setattr__(target, name, value)
