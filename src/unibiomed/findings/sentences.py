"""Sentences that describe the measurements of a region: generation and parsing.

``"A medium-sized, irregular lesion in the upper left of the image (the patient's left), in three separate parts,
covering about 7 % of it."`` The language model is trained on sentences of this form, so that its output can be parsed
and compared with a mask.
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
"""With more parts than this, the shape of the largest part does not describe the region and is omitted."""
SHARE_WITHOUT_PLACE = 0.5
"""The place of a region that covers a larger fraction of the image than this is ``"centre"``."""

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
    """Statements of a sentence about a region; a field is empty if the sentence does not state it.

    Attributes
    ----------
    noun : str
        Name of the region, for example ``"lesion"``.
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
        """Format as a sentence with a full stop; without `extent`, the sentence states that no region is visible."""
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
    """Convert the measurements of a region to words.

    Parameters
    ----------
    noun : str
        Name of the region, for example ``"lesion"``.
    facts : RegionFacts
        Output of `unibiomed.findings.regions.describe_region`.
    counted : bool
        Whether to state the number of parts.

    Returns
    -------
    RegionWords
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
    """Sentence with the measurements of a region; the parameters are those of `region_words`.

    Returns
    -------
    str
        For example ``"A medium-sized, irregular lesion in the upper left of the image, covering about 7 % of it."``
    """
    return str(region_words(noun, facts, counted=counted))


def parse_region_sentence(sentence: str) -> RegionWords | None:
    """Parse a sentence of the form of `region_sentence`.

    The area, the number of parts and the final full stop may be missing, and text after them is ignored, because a
    generated sentence may be truncated or continue. Letter case and American spelling make no difference.

    Parameters
    ----------
    sentence : str
        One sentence.

    Returns
    -------
    RegionWords or None
        The statements of the sentence; None if it has another form.
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
    """Replace the number in a sentence such as "The image shows about 20 nuclei."; None for other sentences."""
    found = _COUNT.fullmatch(" ".join(sentence.split()))
    return None if found is None else f"{found[1]}{number_words(count)}{found[3]}"


def is_measured(sentence: str) -> bool:
    """Whether a sentence of another form states a position, an area or a number of parts."""
    return _MEASURED.search(" ".join(sentence.split())) is not None


def percent_words(fraction: float) -> str:
    """Format a fraction of the image as a rounded percentage: ``"less than 1 %"``, ``"7 %"``, ``"35 %"``."""
    percent = 100 * fraction
    if percent < 0.95:
        return "less than 1 %"
    return f"{round(percent) if percent < 20 else 5 * round(percent / 5)} %"


def number_words(count: int) -> str:
    """Format a count in words: "three", "about 40", "more than 100"."""
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    if count <= 10:
        return words[count]
    return f"about {10 * round(count / 10)}" if count <= 100 else "more than 100"
