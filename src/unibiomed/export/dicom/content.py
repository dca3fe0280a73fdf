"""What is written into a SEG and an SR, apart from what is copied from the source images: plain data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from pydicom.uid import generate_uid

from unibiomed import __version__
from unibiomed.errors import InputError
from unibiomed.findings import NO_FINDINGS, Interpretation
from unibiomed.terminology import match_target

__all__ = ["Algorithm", "Contents", "LookedFor", "Measurement", "Quantity", "Segment", "coded_name", "contents_of"]

Quantity = Literal["volume", "area", "long axis", "short axis"]


@dataclass(frozen=True, slots=True)
class Measurement:
    """A measured size.

    Attributes
    ----------
    quantity : str
        ``"volume"`` in mm³, ``"area"`` in mm², ``"long axis"`` or ``"short axis"`` in mm.
    value : float
        Finite, 0 or more.
    """

    quantity: Quantity
    value: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.value) and self.value >= 0):
            raise InputError(f"the {self.quantity} of a finding must be a number from 0: measure it again")


@dataclass(frozen=True, eq=False)
class Segment:
    """One finding, or one instance of it, that becomes a segment and a measurement group.

    Attributes
    ----------
    label : str
        Name of the target, such as ``"liver tumor"``; it decides on the codes.
    mask : numpy.ndarray
        bool, (slices, rows, columns) in the order of `unibiomed.images.Volume`, or (rows, columns) of one frame.
    probability : float or None
        That the finding is there, 0 to 1.
    fraction : numpy.ndarray or None
        Probability of each pixel, 0 to 1, of the shape of the mask; for SEG of type FRACTIONAL.
    side : str
        ``"left"`` or ``"right"`` of the patient; ``""`` where that is not known.
    measurements : tuple of Measurement
    sentences : tuple of str
        What the text says of it.
    tracking_id, tracking_uid : str
        By which the finding is known in SEG and SR; the label, and a new UID, when left out.
    """

    label: str
    mask: np.ndarray = field(repr=False)
    probability: float | None = None
    fraction: np.ndarray | None = field(default=None, repr=False)
    side: str = ""
    measurements: tuple[Measurement, ...] = ()
    sentences: tuple[str, ...] = ()
    tracking_id: str = ""
    tracking_uid: str = field(default_factory=lambda: str(generate_uid()))

    def __post_init__(self) -> None:
        if self.mask.ndim not in (2, 3) or self.mask.dtype != np.bool_:
            raise InputError(f"the mask of '{self.label}' must be bool of two or three dimensions")
        if self.fraction is not None:
            if self.fraction.shape != self.mask.shape:
                raise InputError(f"the probabilities of '{self.label}' have another shape than its mask")
            if not (np.isfinite(self.fraction).all() and self.fraction.min() >= 0 and self.fraction.max() <= 1):
                raise InputError(f"the probabilities of '{self.label}' must lie between 0 and 1")
        if self.probability is not None and not 0 <= self.probability <= 1:
            raise InputError(f"the probability of '{self.label}' must lie between 0 and 1")
        if self.side not in ("", "left", "right"):
            raise InputError(f"the side of '{self.label}' must be left, right or empty")


@dataclass(frozen=True, slots=True)
class LookedFor:
    """A target that was looked for and has no segment.

    Attributes
    ----------
    label : str
    probability : float or None
        That the target is there, 0 to 1.
    present : bool
        Whether it was found, without a mask.
    searched : bool
        False where it could not be looked for, so that it is not known to be absent.
    """

    label: str
    probability: float | None = None
    present: bool = False
    searched: bool = True


@dataclass(frozen=True, slots=True)
class Algorithm:
    """What made the findings.

    Attributes
    ----------
    name : str
        Of the model.
    version : str
        Of the software, and of the model where it has one.
    """

    name: str = "unibiomed"
    version: str = __version__


@dataclass(frozen=True, eq=False)
class Contents:
    """All that a SEG and SR say.

    Attributes
    ----------
    segments : tuple of Segment
    looked_for : tuple of LookedFor
    text : str
        The whole answer.
    algorithm : Algorithm
    """

    segments: tuple[Segment, ...] = ()
    looked_for: tuple[LookedFor, ...] = ()
    text: str = ""
    algorithm: Algorithm = field(default_factory=Algorithm)


def coded_name(label: str, target: str) -> str:
    """Name that a finding is coded by: the user's word for it where that is a term, else what it was read as.

    Parameters
    ----------
    label, target : str
        The user's word, and the name of the target that was searched for it; may be empty.

    Returns
    -------
    str
    """
    return target if match_target(label) is None and match_target(target) is not None else label


def contents_of(interpretation: Interpretation, *, sentences: Sequence[Sequence[str]] = ()) -> Contents:
    """What a SEG and SR say of the interpretation of one image.

    Parameters
    ----------
    interpretation : Interpretation
    sentences : sequence of sequence of str
        What the text says of each finding; its phrase when left out.

    Returns
    -------
    Contents
        A segment for each finding with a mask. The other findings, and what was searched, are looked for.
    """
    segments, looked_for = [], {}
    for number, finding in enumerate(interpretation.findings):
        if finding.label == NO_FINDINGS:
            continue
        name = coded_name(finding.label, finding.phrase)
        if finding.mask is None or not finding.present:
            score = finding.confidence if finding.presence is None else finding.presence
            looked_for[name.lower()] = LookedFor(name, score, finding.present, finding.searched)
            continue
        words = tuple(sentences[number]) if number < len(sentences) else (finding.phrase,)
        area = () if finding.area_mm2 is None else (Measurement("area", finding.area_mm2),)
        segments.append(
            Segment(
                name,
                finding.mask,
                probability=finding.presence,
                measurements=area,
                sentences=tuple(word for word in words if word.strip()),
                tracking_id=f"{finding.label} {number + 1}",
            )
        )
    found = {segment.label.lower() for segment in segments}
    for target in interpretation.searched:
        if target.label.lower() not in found:
            looked_for.setdefault(target.label.lower(), LookedFor(target.label, target.presence))
    return Contents(
        tuple(segments),
        tuple(looked_for.values()),
        interpretation.text,
        Algorithm(f"unibiomed {interpretation.model}".strip(), __version__),
    )
