"""The sentence that tells the facts of a region, written from them and read back.

``"A medium-sized, irregular lesion in the upper left of the image (the patient's left), in three separate parts,
covering about 7 % of it."`` The language model learns this form, so that what it writes can be compared with a mask.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .regions import RegionFacts

__all__ = [
    "RegionWords",
    "is_measured",
    "number_words",
    "parse_region_sentence",
    "percent_words",
    "region_sentence",
    "region_words",
    "with_count",
]

SHAPED_PARTS = 3
"""Of more parts than this, the shape of the largest one does not describe the whole."""
SHARE_WITHOUT_PLACE = 0.5
"""A region that covers more of the image than this is on no side of it."""

_PLACE = "(?:upper|lower) (?:left|middle|right)|left|right|cent(?:re|er)"
_NUMBER = "two|three|four|five|six|seven|eight|nine|ten|about \\d+|more than 100|\\d+"
_SENTENCE = re.compile(
    r"an? (?P<extent>tiny|small|medium-sized|large)(?:, (?P<shape>round|oval|elongated|irregular))? (?P<noun>.+?)"
    rf" (?:in|on) the (?P<place>{_PLACE}) of the image(?: \(the patient's (?P<patient_side>left|right)\))?"
    rf"(?:, in (?P<parts>no|one|{_NUMBER}) separate parts?)?"
    r"(?:, covering (?:about )?(?P<share>(?:less than )?\d+(?:\.\d+)? ?%) of it)?(?P<rest>.*)",
    re.IGNORECASE | re.DOTALL,
)
_NOT_VISIBLE = re.compile(r"no (?P<noun>.+?) (?:is|are) visible in the image\.?", re.IGNORECASE | re.DOTALL)
_COUNT = re.compile(rf"(the image shows )(?P<count>{_NUMBER})( [\w-]+(?: [\w-]+)?\.?)", re.IGNORECASE)
_MEASURED = re.compile(
    rf"\bthe (?:{_PLACE})(?: \w+)? of the (?:image|picture|scan|slice)\b|\bthe patient's (?:left|right)\b"
    r"|\bcovering (?:about|less)\b|\d ?% of (?:it|the image)\b|\bseparate parts?\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class RegionWords:
    """What a sentence claims of a region; each is empty where it claims nothing.

    Attributes
    ----------
    noun : str
        What the region is called, ``"lesion"``.
    extent, shape, place, patient_side : str
        As in `RegionFacts`.
    parts : str
        Number of separate parts in words, see `number_words`.
    share : str
        Share of the image in words, see `percent_words`.
    """

    noun: str
    extent: str = ""
    shape: str = ""
    place: str = ""
    patient_side: str = ""
    parts: str = ""
    share: str = ""

    def __str__(self) -> str:
        """The sentence, with a full stop; without an extent, that no such region is visible."""
        if not self.extent:
            return f"No {self.noun} is visible in the image."
        words = f"{self.extent}, {self.shape} {self.noun}" if self.shape else f"{self.extent} {self.noun}"
        where = f"{'on' if self.place in ('left', 'right') else 'in'} the {self.place} of the image"
        side = f" (the patient's {self.patient_side})" if self.patient_side else ""
        parts = f", in {self.parts} separate parts" if self.parts else ""
        about = "" if self.share.startswith("less") else "about "
        share = f", covering {about}{self.share} of it" if self.share else ""
        return f"A{'n' if words[:1].lower() in 'aeiou' else ''} {words} {where}{side}{parts}{share}."


def region_words(noun: str, facts: RegionFacts, *, counted: bool = True) -> RegionWords:
    """The words for the facts of a region.

    Parameters
    ----------
    noun : str
        What the region is, such as ``"lesion"``.
    facts : RegionFacts
        From `unibiomed.findings.regions.describe_region`.
    counted : bool
        Tell the number of parts.
    """
    if facts.empty:
        return RegionWords(noun)
    central = facts.area_fraction > SHARE_WITHOUT_PLACE
    return RegionWords(
        noun,
        extent=facts.extent,
        shape=facts.shape if facts.parts <= SHAPED_PARTS else "",
        place="centre" if central else facts.place,
        patient_side="" if central else facts.patient_side,
        parts=number_words(facts.parts) if counted and facts.parts > 1 else "",
        share=percent_words(facts.area_fraction),
    )


def region_sentence(noun: str, facts: RegionFacts, *, counted: bool = True) -> str:
    """The sentence that tells the facts of a region; the parameters are those of `region_words`.

    Returns
    -------
    str
        For example ``"A medium-sized, irregular lesion in the upper left of the image, covering about 7 % of it."``
    """
    return str(region_words(noun, facts, counted=counted))


def parse_region_sentence(sentence: str) -> RegionWords | None:
    """Read a sentence as `region_sentence` writes it.

    The share, the number of parts and the final full stop may be missing, and words after them are ignored: a generated
    sentence may be cut or go on. Letter case and American spelling do not matter.

    Parameters
    ----------
    sentence : str
        One sentence.

    Returns
    -------
    RegionWords or None
        What it claims; None for any other sentence.
    """
    text = " ".join(sentence.split())
    if nothing := _NOT_VISIBLE.fullmatch(text):
        return RegionWords(nothing["noun"])
    found = _SENTENCE.fullmatch(text)
    if found is None:
        return None
    claims = {name: (value or "").lower() for name, value in found.groupdict().items() if name not in ("noun", "rest")}
    claims["place"] = claims["place"].replace("center", "centre")
    claims["share"] = re.sub(r" ?%", " %", claims["share"])
    return RegionWords(found["noun"], **claims)


def with_count(sentence: str, count: int) -> str | None:
    """A sentence such as "The image shows about 20 nuclei." with another number; None for any other sentence."""
    found = _COUNT.fullmatch(" ".join(sentence.split()))
    return None if found is None else f"{found[1]}{number_words(count)}{found[3]}"


def is_measured(sentence: str) -> bool:
    """Whether a sentence in other words tells a place in the image, a share of it or a number of parts."""
    return _MEASURED.search(" ".join(sentence.split())) is not None


def percent_words(fraction: float) -> str:
    """Share of an image as people say it: ``"less than 1 %"``, ``"7 %"``, ``"35 %"`` (steps of 5 from 20 on)."""
    percent = 100 * fraction
    if percent < 0.95:
        return "less than 1 %"
    return f"{round(percent) if percent < 20 else 5 * round(percent / 5)} %"


def number_words(count: int) -> str:
    """A count as people say it: words up to ten, then tens, then "more than 100"."""
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    if count <= 10:
        return words[count]
    return f"about {10 * round(count / 10)}" if count <= 100 else "more than 100"
