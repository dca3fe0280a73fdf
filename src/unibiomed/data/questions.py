"""Questions that a record answers with certainty: what is it, where, how large, is it there; the ``ask`` task."""

from __future__ import annotations

import random
from collections.abc import Callable

from unibiomed.data.phrasing import ask, attributes, pick_name, rivals
from unibiomed.data.records import NO_FINDINGS
from unibiomed.data.scene import Scene, fill_value, lower_first
from unibiomed.findings.sentences import percent_words
from unibiomed.images.modality import MODALITIES

__all__ = ["made_question"]

Pair = tuple[str, str]
UNTOLD_SITES = ("cells",)
MALIGNANT = {"malignant": "Malignant", "melanoma": "Malignant", "benign": "Benign", "common nevus": "Benign"}
ALIKE = ({"pathology", "dermoscopy", "endoscopy", "fundus"}, {"CT", "PET"})
"""Modalities that are not offered as the wrong one of each other."""


def made_question(scene: Scene, rng: random.Random) -> Pair | None:
    """A question with its sure answer.

    Parameters
    ----------
    scene : Scene
        The record and its masks.
    rng : random.Random
        Chooses the question and its words.

    Returns
    -------
    tuple of str or None
        Question and answer; None where nothing can be asked.
    """
    makers = list(_MAKERS)
    while makers:
        maker = makers.pop(rng.choices(range(len(makers)), [_MAKERS[made] for made in makers])[0])
        pair = maker(scene, rng)
        if pair is not None:
            return pair
    return None


def _ask(scene: Scene, rng: random.Random, kind: str, target: str | None = None) -> str:
    return ask(kind, rng, modality=scene.modality, site=scene.record.site, target=target)


def _modality(scene: Scene, rng: random.Random) -> Pair | None:
    if scene.modality is None:
        return None
    if rng.random() < 0.5:
        return ask("modality", rng, modality=None, site=""), scene.modality
    named, answer = scene.modality, "Yes"
    if rng.random() < 0.5:
        alike = next((group for group in ALIKE if scene.modality in group), {scene.modality})
        named, answer = rng.choice([other for other in MODALITIES if other not in alike]), "No"
    return ask("is_modality", rng, modality=named, site=scene.record.site), answer


def _site(scene: Scene, rng: random.Random) -> Pair | None:
    if scene.record.site in UNTOLD_SITES:
        return None
    return ask("site", rng, modality=None, site=""), scene.record.site


def _presence(scene: Scene, rng: random.Random) -> Pair | None:
    regions = scene.record.regions
    if rng.random() < 0.5:
        if not scene.present:
            return None
        return _ask(scene, rng, "presence", pick_name(regions[rng.choice(scene.present)].target, rng)), "Yes"
    own = [regions[index].target for index in scene.absent]
    foreign = scene.impossible
    if not own and not foreign:
        return None
    if own and (not foreign or rng.random() < 0.6):
        return _ask(scene, rng, "presence", pick_name(rng.choice(own), rng)), "No"
    return _ask(scene, rng, "presence", rng.choice(foreign)), "No"


def _abnormality(scene: Scene, rng: random.Random) -> Pair | None:
    if not scene.record.abnormal_known or not (scene.findings or scene.is_normal):
        return None
    if rng.random() < 0.75:
        return _ask(scene, rng, "abnormality"), "Yes" if scene.findings else "No"
    return _ask(scene, rng, "normality"), "No" if scene.findings else "Yes"


def _region(scene: Scene, rng: random.Random) -> int | None:
    return rng.choice(scene.outlined) if scene.outlined else None


def _side(scene: Scene, rng: random.Random) -> Pair | None:
    index = _region(scene, rng)
    if index is None or not scene.facts(index).side:
        return None
    return _ask(scene, rng, "side", pick_name(scene.record.regions[index].target, rng)), scene.facts(index).side


def _about_region(kind: str, answer: Callable[[Scene, int], str]) -> Callable[[Scene, random.Random], Pair | None]:
    def make(scene: Scene, rng: random.Random) -> Pair | None:
        index = _region(scene, rng)
        if index is None:
            return None
        return _ask(scene, rng, kind, pick_name(scene.record.regions[index].target, rng)), answer(scene, index)

    return make


_place = _about_region("place", lambda scene, index: scene.facts(index).place)
_share = _about_region("share", lambda scene, index: percent_words(scene.facts(index).area_fraction))
_extent = _about_region("extent", lambda scene, index: scene.facts(index).extent)


def _shape(scene: Scene, rng: random.Random) -> Pair | None:
    index = _region(scene, rng)
    if index is None or scene.facts(index).parts > 1:
        return None
    return _ask(scene, rng, "shape", pick_name(scene.record.regions[index].target, rng)), scene.facts(index).shape


def _malignancy(scene: Scene, rng: random.Random) -> Pair | None:
    label = (scene.diagnosis or "").lower()
    answer = next((answer for word, answer in MALIGNANT.items() if label.startswith(word)), None)
    shown = scene.findings or scene.structures
    if answer is None or not shown:
        return None
    return _ask(scene, rng, "malignancy", scene.record.regions[shown[0]].target), answer


def _diagnosis(scene: Scene, rng: random.Random) -> Pair | None:
    if scene.diagnosis is None or "cell type" in scene.record.attributes:
        return None
    if scene.diagnosis == NO_FINDINGS:
        return _ask(scene, rng, "diagnosis"), NO_FINDINGS
    named = scene.diagnosis.lower()
    tumor = any(word in named for word in ("tumor", "glioma", "meningioma", "sarcoma"))
    return _ask(scene, rng, "tumor" if tumor and rng.random() < 0.5 else "diagnosis"), lower_first(scene.diagnosis)


def _rival(scene: Scene, rng: random.Random) -> Pair | None:
    others = rivals(scene.diagnosis or "")
    if not others or not scene.present:
        return None
    if rng.random() < 0.5:
        return _ask(scene, rng, "rival", lower_first(str(scene.diagnosis))), "Yes"
    return _ask(scene, rng, "rival", rng.choice(others)), "No"


def _attribute(scene: Scene, rng: random.Random) -> Pair | None:
    pairs = []
    for name, value in scene.record.attributes.items():
        known = attributes().get(name)
        if known is not None and (scene.findings or not known.region):
            template = known.answers.get(value, known.answers.get("*"))
            if template is not None:
                pairs.append((known.questions, fill_value(template, value)))
    if not pairs:
        return None
    questions, answer = rng.choice(pairs)
    return rng.choice(questions), answer


_MAKERS: dict[Callable[[Scene, random.Random], Pair | None], float] = {
    _modality: 1.0,
    _site: 0.7,
    _presence: 3.0,
    _abnormality: 1.5,
    _side: 0.7,
    _place: 1.0,
    _share: 0.7,
    _extent: 0.7,
    _shape: 0.7,
    _malignancy: 1.5,
    _diagnosis: 1.5,
    _rival: 1.5,
    _attribute: 3.0,
}
