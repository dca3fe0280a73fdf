"""Whether two chest X-ray reports tell the same of the 14 findings of CheXpert, by rules.

This is no CheXbert and not CheXpert's labeler: it looks for phrases (``chest_labels.toml``) and for words of denial and
doubt near them, in the spirit of NegBio (Peng et al., 2018) and of CheXpert's labeler (Irvin et al., 2019), whose code
and phrases it does not hold. Its scores compare models with each other; they cannot be set beside published values of
CheXbert. Against the terms that people gave 3,826 real reports (Indiana University), some of which its phrases were
made with, its F1 is 0.94 for cardiomegaly and for effusion, 0.91 for opacity, 0.90 for atelectasis, 0.86 for
pneumothorax and consolidation, 0.82 for fracture, 0.68 for edema and 0.43 for pneumonia, which it finds wherever a
report only considers it.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

from unibiomed.errors import InputError

from .arguments import check_lengths
from .classification import LabelScore

State = Literal["positive", "uncertain", "negative", "not mentioned"]

NO_FINDING = "No Finding"
DEVICES = "Support Devices"
_STRENGTH: tuple[State, ...] = ("positive", "uncertain", "negative", "not mentioned")
_SENTENCE_END = re.compile(r"(?<!\bvs)[.;:!?](?=\s|$|[a-z])|\n")
_AFTER = 60  # characters in which a denial or doubt may follow


@dataclass(frozen=True, slots=True)
class _Finding:
    name: str
    mentions: re.Pattern[str]
    normal: re.Pattern[str] | None


@dataclass(frozen=True, slots=True)
class ChestAgreement:
    """F1 of the findings that an answer tells against those that its reference tells, all in [0, 1]."""

    micro_f1: float
    """Over all findings and reports together; NaN where nothing is told anywhere."""
    macro_f1: float
    """Mean over the findings that occur; NaN where none does."""
    findings: dict[str, LabelScore]
    """Each of the 14; F1 is NaN where neither side ever tells it."""


def label_chest_report(text: str) -> dict[str, State]:
    """What a chest X-ray report tells of each of CheXpert's 14 findings.

    A positive mention outweighs an uncertain one, and that a negative one. "No Finding" is positive where all others
    but support devices are negative or not mentioned, and never in an empty text.

    Parameters
    ----------
    text : str
        A report in English; the indication should be left out, since it tells what is asked.

    Returns
    -------
    dict of str to {"positive", "uncertain", "negative", "not mentioned"}
        In CheXpert's order, "No Finding" first.

    Raises
    ------
    InputError
        If it is no text.
    """
    if not isinstance(text, str):
        raise InputError("a report must be a text")
    told: dict[str, State] = dict.fromkeys(chest_findings(), "not mentioned")
    for sentence in _SENTENCE_END.split(text.lower()):
        sentence = " ".join(sentence.split())
        for finding in _findings():
            for state in _states(sentence, finding):
                told[finding.name] = min(told[finding.name], state, key=_STRENGTH.index)
    others = {state for name, state in told.items() if name not in (NO_FINDING, DEVICES)}
    if text.strip() and not others & {"positive", "uncertain"}:
        told[NO_FINDING] = "positive"
    return told


def chest_label_agreement(
    hypotheses: Sequence[str], references: Sequence[str], *, uncertain_counts: bool = True
) -> ChestAgreement:
    """F1, micro and macro, of the findings told by answers against those told by their references.

    Parameters
    ----------
    hypotheses, references : sequence of str
        One report each for each image.
    uncertain_counts : bool
        Whether an uncertain mention counts as telling the finding, on both sides.

    Raises
    ------
    InputError
        If the lengths differ, or something is no text.
    """
    check_lengths(hypotheses=hypotheses, references=references)
    counted = ("positive", "uncertain") if uncertain_counts else ("positive",)
    pairs = [(label_chest_report(h), label_chest_report(r)) for h, r in zip(hypotheses, references, strict=True)]
    scores, hits, told, true = {}, 0, 0, 0
    for name in chest_findings():
        p, g = ([pair[side][name] in counted for pair in pairs] for side in (0, 1))
        hit = sum(a and b for a, b in zip(p, g, strict=True))
        scores[name] = LabelScore(
            _share(hit, sum(p)), _share(hit, sum(g)), _share(2 * hit, sum(p) + sum(g)), support=sum(g)
        )
        hits, told, true = hits + hit, told + sum(p), true + sum(g)
    known = [score.f1 for score in scores.values() if not math.isnan(score.f1)]
    return ChestAgreement(_share(2 * hits, told + true), _share(sum(known), len(known)), scores)


def findings_told(text: str) -> frozenset[str]:
    """Which of the findings a text says anything of, be it that they are absent; "No Finding" and devices left out."""
    told = label_chest_report(text)
    return frozenset(
        name for name, state in told.items() if state != "not mentioned" and name not in (NO_FINDING, DEVICES)
    )


def chest_findings() -> tuple[str, ...]:
    """Names of the 14 findings, in CheXpert's order."""
    return (NO_FINDING, *(finding.name for finding in _findings()))


def _states(sentence: str, finding: _Finding) -> list[State]:
    """State of each mention of a finding in one sentence."""
    states = [_state(sentence, *found.span()) for found in finding.mentions.finditer(sentence)]
    if not states and finding.normal and finding.normal.search(sentence):
        return ["negative"]
    return states


def _state(sentence: str, start: int, end: int) -> State:
    cues = _cues()
    within = cues["ends_scope"].split(sentence[:start])[-1]
    # the words of the mention itself may deny it: "heart is not enlarged"
    doubted, denied = within + sentence[start:end], cues["ends_denial"].split(within)[-1] + sentence[start:end]
    after = cues["ends_scope"].split(sentence[end : end + _AFTER])[0].partition(",")[0]
    if cues["cannot_exclude"].search(doubted) or cues["doubts_after"].search(after):
        return "uncertain"
    if cues["denials_after"].search(after) or cues["denials_before"].search(cues["not_denials"].sub(" ", denied)):
        return "negative"
    return "uncertain" if cues["doubts_before"].search(doubted) else "positive"


@cache
def _findings() -> tuple[_Finding, ...]:
    return tuple(
        _Finding(name, _any_of(item["mentions"]), _any_of(item["normal"]) if "normal" in item else None)
        for name, item in _phrases()["findings"].items()
    )


@cache
def _cues() -> dict[str, re.Pattern[str]]:
    return {name: _any_of(phrases) for name, phrases in _phrases()["cues"].items()}


@cache
def _phrases() -> dict:
    return tomllib.loads(files("unibiomed.metrics").joinpath("chest_labels.toml").read_text(encoding="utf-8"))


def _any_of(phrases: Sequence[str]) -> re.Pattern[str]:
    """Any of the phrases, as whole words; the groups in them catch nothing, so that texts can be split by them."""
    plain = (re.sub(r"\((?!\?)", "(?:", phrase) for phrase in phrases)
    return re.compile(rf"(?<![\w-])(?:{'|'.join(plain)})(?![\w-])")


def _share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
