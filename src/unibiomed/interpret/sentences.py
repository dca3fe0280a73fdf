"""Sentences about regions, checked against the masks beside them.

A language model that is shown a region tells its place, size and number of parts about right, not exactly. Such
sentences are written anew from the mask. Where no mask shows the region, its measures are left out, and of what was
emptied nothing is told. (Ours; all other sentences stand as the model wrote them.)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from unibiomed.findings import NO_FINDINGS, Finding
from unibiomed.findings.regions import PATIENT_SIDED, RegionFacts, describe_region
from unibiomed.findings.sentences import (
    RegionWords,
    is_measured,
    parse_region_sentence,
    region_words,
    with_count,
)
from unibiomed.images import MedicalImage
from unibiomed.tasks import PHRASE_END, PHRASE_START, SEG, clean_text
from unibiomed.terminology import find_noun

__all__ = ["CheckedText", "check_description", "check_report", "correct_sentences", "headline"]

MEASURES = {
    "extent": "size",
    "shape": "shape",
    "place": "place",
    "patient_side": "side of the patient",
    "parts": "number of parts",
    "share": "share of the image",
}
"""What the words of a sentence tell, as notes name it."""
NUMBER = "number of objects"
OMITTED = "sentences on size, place or number were left out of the text: no mask shows what they tell"
STEM = 4
"""Letters that singular and plural of a word share."""
OPPOSITE = {"left": "right", "right": "left"}
_BETWEEN = re.compile(r"(?<=[.!?])\s+")
_PHRASE = re.compile(rf"{PHRASE_START}((?:(?!{PHRASE_START}).)*){PHRASE_END}\s*$", re.DOTALL)
_POINTER = re.compile(r"(?:\b(?:it is|sure,?(?: it is)?|they are)\s*)?$", re.IGNORECASE)
_LABEL = re.compile(r"\s*\.\s*[^.\[\]<>]*\.?")
_CLAUSE = re.compile(rf"(?:(?!{PHRASE_START})(?:[^.!?]|[.!?](?=\S)))*")
_SENTENCE = re.compile(_CLAUSE.pattern + r"[.!?]?")
_END = re.compile(r"<\|[a-z_]+\|>")
_DENIAL = re.compile(rf"{NO_FINDINGS}\W*|(?:the|this) [^.]* shows no abnormality\W*", re.IGNORECASE)
_LOOSE_END = re.compile(r"(?:\s*,|\s+(?:and|or|with))+\s*(?=[.;!?]|$)", re.IGNORECASE)


@dataclass(frozen=True)
class CheckedText:
    """The text of an answer, which agrees with the masks beside it.

    Attributes
    ----------
    text : str
    findings : tuple of Finding
        Their phrases are checked too.
    notes : tuple of str
        What was corrected or left out.
    """

    text: str
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()


class _Corrector:
    """Corrects texts and remembers what it did."""

    def __init__(self, *, sided: bool) -> None:
        self.sided = sided
        self.corrected: set[str] = set()
        self.omitted = self.changed = False

    def correct(self, text: str, facts: RegionFacts | None, objects: str = "") -> str:
        """See `correct_sentences`."""
        before = _BETWEEN.split(text.strip())
        after = [self._sentence(sentence, facts, objects) for sentence in before]
        self.changed |= before != after
        return " ".join(filter(None, after))

    def notes(self) -> tuple[str, ...]:
        names = [name for name in (*MEASURES.values(), NUMBER) if name in self.corrected]
        changed = (f"corrected in the text after the mask: {', '.join(names)}",) if names else ()
        return (*changed, *((OMITTED,) if self.omitted else ()))

    def _sentence(self, sentence: str, facts: RegionFacts | None, objects: str) -> str:
        shown = facts is not None and not facts.empty
        if (words := parse_region_sentence(sentence)) is not None:
            if facts is not None and shown:
                return self._written(sentence, words, facts)
            stands = not words.extent  # it says that nothing is visible
        elif (counted := with_count(sentence, facts.parts if facts is not None else 0)) is not None:
            if (stands := shown and _alike(counted, objects)) and counted.casefold() != sentence.casefold():
                self.corrected.add(NUMBER)
                return counted
        else:
            stands = not is_measured(sentence)
        self.omitted |= not stands
        return sentence if stands else ""

    def _written(self, sentence: str, words: RegionWords, facts: RegionFacts) -> str:
        side = OPPOSITE.get(facts.side, "") if words.patient_side and self.sided else ""
        known = find_noun(words.noun)
        noun = words.noun if known is None else known.form(facts.parts)
        counted = known is None or known.counted
        true = region_words(noun, replace(facts, patient_side=side), counted=counted)
        self.corrected |= {name for field, name in MEASURES.items() if getattr(true, field) != getattr(words, field)}
        if noun != words.noun:
            self.corrected.add(MEASURES["parts"])
        return str(true)


def correct_sentences(
    text: str, facts: RegionFacts | None, *, sided: bool = True, objects: str = ""
) -> tuple[str, tuple[str, ...]]:
    """Write the sentences that tell the measures of a region from its mask.

    Parameters
    ----------
    text : str
        Without ``[SEG]`` and marks of phrases.
    facts : RegionFacts or None
        Of the region that the text is about. None, or those of an empty mask, where nothing shows it: sentences that
        tell measures are then left out.
    sided : bool
        Whether such images show the patient's left on the right, so that a sentence may tell a side of the patient.
    objects : str
        What the parts of the region are, such as "Cell nucleus", where the facts are about all of the image and tell
        how many it shows; else a sentence on that number is left out.

    Returns
    -------
    str
        The text; all other sentences stand as they were.
    tuple of str
        Notes on what was corrected and left out.
    """
    corrector = _Corrector(sided=sided)
    return corrector.correct(text, facts, objects), corrector.notes()


def check_report(raw: str, findings: Sequence[Finding], image: MedicalImage, modality: str | None) -> CheckedText:
    """Check an answer that points at its findings with ``<p> words </p> [SEG]``.

    Parameters
    ----------
    raw : str
        As generated.
    findings : sequence of Finding
        One for each ``[SEG]`` in order, with its mask; what is not present is not told. Without a ``[SEG]`` they stand
        as they are.
    image : MedicalImage
    modality : str or None

    Returns
    -------
    CheckedText
        Where nothing that was pointed at is present, and nothing else is told, the text is "No findings".
    """
    corrector = _Corrector(sided=_is_sided(image, modality))
    before, *rest = _END.sub(" ", raw).split(SEG)
    checked = list(findings)
    told: list[str] = []
    begun = False
    for number, after in enumerate(rest):
        finding = checked[number]
        grounded = _PHRASE.search(before)
        if grounded is None:
            begun, words = False, f"{before} {SEG}"
            if not finding.present:
                words, after = _POINTER.sub("", before), _LABEL.sub("", after, count=1)
            told.append(corrector.correct(words, None))
        else:
            ended, opening = _last_sentence(before[: grounded.start()])
            begun = begun and not ended
            phrase = finding.label
            if finding.present and finding.mask is not None:
                facts = describe_region(finding.mask, modality=modality or "", site="", spacing=image.spacing)
                phrase = corrector.correct(finding.phrase, facts, finding.label) or finding.label
                told += [corrector.correct(ended + opening, None), phrase]
                begun = True
            else:
                # of a sentence on several findings the part on this one goes, of any other the whole
                told.append(corrector.correct(ended + (opening if begun else ""), None))
                after = (_CLAUSE if begun else _SENTENCE).sub("", after, count=1)
            checked[number] = replace(finding, phrase=phrase)
        before = after
    told.append(corrector.correct(before, None))
    text = clean_text(" ".join(told) if corrector.changed else raw)
    if not all(finding.present for finding in checked[: len(rest)]):
        text = clean_text(_LOOSE_END.sub("", clean_text(" ".join(told))))
        text = text[:1].upper() + text[1:] if any(map(str.isalnum, text)) else NO_FINDINGS
    if present := [finding.label for finding in checked[: len(rest)] if finding.present]:
        kept = [sentence for sentence in _BETWEEN.split(text) if not _DENIAL.fullmatch(sentence)]
        text = " ".join(kept) or ". ".join(dict.fromkeys(present))
    return CheckedText(text, tuple(checked), corrector.notes())


def check_description(
    text: str, findings: Sequence[Finding], facts: RegionFacts | None, image: MedicalImage, modality: str | None
) -> CheckedText:
    """Check an answer on a box.

    Parameters
    ----------
    text : str
        Without ``[SEG]`` and marks of phrases.
    findings : sequence of Finding
        What the box is called; they get the text as their phrase.
    facts : RegionFacts or None
        Of what is in the box; None where no mask shows it.
    image : MedicalImage
    modality : str or None
    """
    said, notes = correct_sentences(text, facts, sided=_is_sided(image, modality))
    said = said or (findings[0].label if findings and text else text)
    return CheckedText(said, tuple(replace(finding, phrase=said) for finding in findings), notes)


def headline(text: str, findings: Sequence[Finding]) -> str:
    """The answer of ``recognize`` without findings that are not present: the labels of the others, or "No findings".

    Parameters
    ----------
    text : str
        The answer in words; it stands where all its findings are present and it does not deny them.
    findings : sequence of Finding
        All that it names.
    """
    denied = text.casefold().startswith(NO_FINDINGS.casefold()) and any(finding.present for finding in findings)
    if not denied and all(finding.present or finding.label == NO_FINDINGS for finding in findings):
        return text
    return ". ".join(dict.fromkeys(finding.label for finding in findings if finding.present)) or NO_FINDINGS


def _alike(sentence: str, label: str) -> bool:
    """Whether the last word of a sentence names what a label names, be it in the plural: "nuclei", "Cell nucleus"."""
    stem = sentence.rstrip(".").split()[-1].casefold()[:STEM]
    return any(word.startswith(stem) for word in label.casefold().split())


def _is_sided(image: MedicalImage, modality: str | None) -> bool:
    return (modality is None or modality in PATIENT_SIDED) and image.details.get("plane") != "sagittal"


def _last_sentence(text: str) -> tuple[str, str]:
    """The whole sentences of a text, and the beginning of the next one."""
    ends = [match.end() for match in _BETWEEN.finditer(text)]
    return (text[: ends[-1]], text[ends[-1] :]) if ends else ("", text)
