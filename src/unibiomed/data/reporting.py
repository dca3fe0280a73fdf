"""What a report says: the data set's own words where it has some, else sentences made from the regions.

A text of the whole image is told as it is; each finding with an outline is then named and pointed at. A text that
belongs to one region (`REGION_TEXT`) stands with that region's mask: ``<p> LABEL. TEXT </p> [SEG]``.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from unibiomed.data.records import NO_FINDINGS, REGION_TEXT
from unibiomed.data.scene import Scene
from unibiomed.tasks import PHRASE_END, PHRASE_START, SEG, is_no_findings

__all__ = ["Report", "has_own_words", "is_reportable", "report_share", "write_report"]

MAX_REPORTED = 4
ONLY_TEXT_SHARE = 5.0
"""How readily the report is asked of an image of which little else is known."""


@dataclass(frozen=True, slots=True)
class Report:
    """A report as the model should write it.

    Attributes
    ----------
    answer : str
        The words, ``[SEG]`` and ``<p>`` included.
    shown : tuple of int
        For each ``[SEG]`` in order: the region that it stands for.
    form : str or None
        List of ``phrasing.toml`` with questions that ask for such a report; None for the task's own.
    """

    answer: str
    shown: tuple[int, ...] = ()
    form: str | None = None


def has_own_words(scene: Scene) -> bool:
    """Whether the data set has a text on the image; not where a mask that it may speak of was not loaded."""
    abnormal = {i for i, region in enumerate(scene.record.regions) if region.abnormal}
    return scene.record.text is not None and abnormal <= set(scene.known)


def is_reportable(scene: Scene) -> bool:
    """Whether a report is known to be what an expert would say of the image, and not of its anatomy alone."""
    # An answer that points at each finding needs the outline of each.
    outlined = set(scene.findings) <= set(scene.outlined)
    return has_own_words(scene) or (outlined and (bool(scene.findings) or scene.is_normal))


def report_share(scene: Scene) -> float:
    """How readily a report is asked for, as a factor; 0 where nothing can be told."""
    if has_own_words(scene) and not scene.record.regions:
        return ONLY_TEXT_SHARE
    if is_reportable(scene):
        return 1.0
    anatomy = set(scene.structures) & set(scene.outlined)
    return 0.5 if anatomy and not any(region.abnormal for region in scene.record.regions) else 0.0


def write_report(scene: Scene, rng: random.Random | None) -> Report:
    """The report of an image whose `report_share` is not 0.

    Parameters
    ----------
    scene : Scene
        The record and its masks.
    rng : random.Random or None
        Chooses among many structures; None tells all.
    """
    if has_own_words(scene):
        return _in_own_words(scene)
    if scene.is_normal:
        return Report(scene.normal_text())
    if scene.findings:
        return Report(_grounded(scene, scene.findings), scene.findings)
    shown = tuple(index for index in scene.structures if index in scene.outlined)
    if rng and len(shown) > MAX_REPORTED:
        shown = tuple(rng.sample(shown, MAX_REPORTED))
    return Report(_grounded(scene, shown), shown, "report_structures")


def _in_own_words(scene: Scene) -> Report:
    record = scene.record
    text = _plain(record.text or "")
    own = {index: words for index in scene.outlined if (words := _region_words(scene, index))}
    shown = (*scene.findings, *(index for index in scene.structures if index in own))
    if not shown or not set(scene.findings) <= set(scene.outlined):
        if record.label == NO_FINDINGS and not scene.findings:
            # what a program reads the normal image by
            return Report(text if is_no_findings(text) else f"{NO_FINDINGS}. {text}")
        return Report(text, form="report_text")
    form = None if scene.findings else "report_structures"
    if len(shown) == 1 and not own:
        return Report(_phrase(scene, shown[0], text), shown, form)
    # The text of an image may be made of those of its regions: nothing is said twice.
    for words in sorted(own.values(), key=len, reverse=True):
        text = text.replace(words, " ")
    said = [" ".join(text.split()), *(_phrase(scene, index, own.get(index, "")) for index in shown)]
    return Report(" ".join(part for part in said if part), shown, form)


def _grounded(scene: Scene, shown: tuple[int, ...]) -> str:
    """A phrase a region: its own text, or the sentences that its mask tells."""
    phrases = []
    for index in shown:
        words = _region_words(scene, index)
        made = f"{PHRASE_START} {scene.region_text(index)} {PHRASE_END} {SEG}"
        phrases.append(_phrase(scene, index, words) if words else made)
    return " ".join(phrases)


def _phrase(scene: Scene, index: int, words: str) -> str:
    said = f"{scene.label(index)}. {words}" if words else scene.label(index)
    return f"{PHRASE_START} {said} {PHRASE_END} {SEG}"


def _region_words(scene: Scene, index: int) -> str:
    return _plain(scene.record.regions[index].attributes.get(REGION_TEXT, ""))


def _plain(words: str) -> str:
    """Words on one line, without marks of phrases, which are paragraphs where a text comes from a web page."""
    return " ".join(words.replace(PHRASE_START, " ").replace(PHRASE_END, " ").split())
