"""Rule-based labels of chest X-ray reports for the 14 findings of CheXpert.

The labeller searches phrases (``chest_labels.toml``) and expressions of negation and uncertainty near them, similar to
NegBio (Peng et al., 2018) and to CheXpert's labeller (Irvin et al., 2019). It contains neither code nor phrases of
these and is not CheXbert: its scores compare models with each other, but cannot be compared with published values of
CheXbert. On 3,826 real reports of Indiana University with manual labels, some of which were used to choose the phrases,
its F1 is 0.94 for cardiomegaly and for effusion, 0.91 for opacity, 0.90 for atelectasis, 0.86 for pneumothorax and
consolidation, 0.82 for fracture, 0.68 for edema and 0.43 for pneumonia, which it also reports if it is only considered.
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

State = Literal["positive", "uncertain", "negative", "not mentioned"]

NO_FINDING = "No Finding"
DEVICES = "Support Devices"
_PRECEDENCE: tuple[State, ...] = ("positive", "uncertain", "negative", "not mentioned")
_SENTENCE_END = re.compile(r"(?<!\bvs)[.;:!?](?=\s|$|[a-z])|\n")
_AFTER = 60  # characters after a mention in which a negation or uncertainty may follow


@dataclass(frozen=True, slots=True)
class _Finding:
    name: str
    mentions: re.Pattern[str]
    normal: re.Pattern[str] | None


@dataclass(frozen=True, slots=True)
class LabelScore:
    """Scores of one label in [0, 1].

    Parameters
    ----------
    precision, recall, f1 : float
        NaN if the denominator is 0.
    support : int
        Number of references with the label.
    """

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, slots=True)
class ChestAgreement:
    """Agreement of the findings of answers and references.

    Parameters
    ----------
    micro_f1 : float
        F1 over all findings and reports; NaN if there are no findings.
    macro_f1 : float
        Mean F1 of the findings that occur; NaN if none occurs.
    findings : dict of str to LabelScore
        Scores of each of the 14 findings.
    """

    micro_f1: float
    macro_f1: float
    findings: dict[str, LabelScore]


def label_chest_report(text: str) -> dict[str, State]:
    """Label a chest X-ray report with the state of each of CheXpert's 14 findings.

    A positive mention has precedence over an uncertain one, and an uncertain one over a negative one. "No Finding" is
    positive if all other findings except support devices are negative or not mentioned and the text is not empty.

    Parameters
    ----------
    text : str
        Report in English, without the indication, which mentions suspected findings.

    Returns
    -------
    dict of str to {"positive", "uncertain", "negative", "not mentioned"}
        In CheXpert's order, "No Finding" first.

    Raises
    ------
    InputError
        The report is not a string.
    """
    if not isinstance(text, str):
        raise InputError("the report is not a string: give a text")
    states: dict[str, State] = dict.fromkeys(chest_findings(), "not mentioned")
    for sentence in _SENTENCE_END.split(text.lower()):
        sentence = " ".join(sentence.split())
        for finding in _findings():
            for state in _states(sentence, finding):
                states[finding.name] = min(states[finding.name], state, key=_PRECEDENCE.index)
    others = {state for name, state in states.items() if name not in (NO_FINDING, DEVICES)}
    if text.strip() and not others & {"positive", "uncertain"}:
        states[NO_FINDING] = "positive"
    return states


def chest_label_agreement(
    hypotheses: Sequence[str], references: Sequence[str], *, uncertain_counts: bool = True
) -> ChestAgreement:
    """Compute micro and macro F1 of the findings of answers against those of their references.

    Parameters
    ----------
    hypotheses, references : sequence of str
        One report per image.
    uncertain_counts : bool
        Whether uncertain findings count as present, in answers and references.

    Raises
    ------
    InputError
        The lengths differ, or a report is not a string.
    """
    check_lengths(hypotheses=hypotheses, references=references)
    counted = ("positive", "uncertain") if uncertain_counts else ("positive",)
    pairs = [(label_chest_report(h), label_chest_report(r)) for h, r in zip(hypotheses, references, strict=True)]
    scores, hits, predicted, true = {}, 0, 0, 0
    for name in chest_findings():
        p, g = ([pair[side][name] in counted for pair in pairs] for side in (0, 1))
        hit = sum(a and b for a, b in zip(p, g, strict=True))
        scores[name] = LabelScore(
            _ratio(hit, sum(p)), _ratio(hit, sum(g)), _ratio(2 * hit, sum(p) + sum(g)), support=sum(g)
        )
        hits, predicted, true = hits + hit, predicted + sum(p), true + sum(g)
    defined = [score.f1 for score in scores.values() if not math.isnan(score.f1)]
    return ChestAgreement(_ratio(2 * hits, predicted + true), _ratio(sum(defined), len(defined)), scores)


def mentioned_findings(text: str) -> frozenset[str]:
    """Return the findings that a text mentions in any state, except "No Finding" and support devices."""
    states = label_chest_report(text)
    return frozenset(
        name for name, state in states.items() if state != "not mentioned" and name not in (NO_FINDING, DEVICES)
    )


def chest_findings() -> tuple[str, ...]:
    """Return the names of the 14 findings in CheXpert's order."""
    return (NO_FINDING, *(finding.name for finding in _findings()))


def _states(sentence: str, finding: _Finding) -> list[State]:
    """Return the state of each mention of a finding in one sentence."""
    states = [_state(sentence, *match.span()) for match in finding.mentions.finditer(sentence)]
    if not states and finding.normal and finding.normal.search(sentence):
        return ["negative"]
    return states


def _state(sentence: str, start: int, end: int) -> State:
    cues = _cues()
    within = cues["ends_scope"].split(sentence[:start])[-1]
    # the mention itself may contain the negation: "heart is not enlarged"
    uncertain_scope, negated_scope = (
        within + sentence[start:end],
        cues["ends_negation"].split(within)[-1] + sentence[start:end],
    )
    after = cues["ends_scope"].split(sentence[end : end + _AFTER])[0].partition(",")[0]
    if cues["cannot_exclude"].search(uncertain_scope) or cues["uncertainty_after"].search(after):
        return "uncertain"
    if cues["negation_after"].search(after) or cues["negation_before"].search(
        cues["not_negations"].sub(" ", negated_scope)
    ):
        return "negative"
    return "uncertain" if cues["uncertainty_before"].search(uncertain_scope) else "positive"


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
    """Compile phrases to one pattern of whole words with non-capturing groups, so that it can split texts."""
    patterns = (re.sub(r"\((?!\?)", "(?:", phrase) for phrase in phrases)
    return re.compile(rf"(?<![\w-])(?:{'|'.join(patterns)})(?![\w-])")


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else math.nan
