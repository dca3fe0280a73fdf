"""One record with its masks loaded, and what can be said of it with certainty: labels, sentences, classes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np

from unibiomed.data.phrasing import attributes, concept_of, listed, with_article
from unibiomed.data.records import NO_FINDINGS, PLANE, REGION_TEXT, Record, Region
from unibiomed.findings.regions import RegionFacts, describe_region, split_parts
from unibiomed.findings.sentences import number_words, region_sentence
from unibiomed.tasks import SOMETHING_ELSE
from unibiomed.terminology import absent_targets

__all__ = ["Scene"]

Box = tuple[int, int, int, int]

ELSEWHERE = f"{SOMETHING_ELSE.capitalize()}. The box marks no structure or finding that the model knows."


def named_by_image(record: Record, region: Region) -> bool:
    """Whether the label of an image can mean no other of its regions than this one."""
    alone = region.abnormal and sum(other.abnormal for other in record.regions) == 1
    return alone or concept_of(region.target).labelled


def classes(record: Record) -> dict[str, str]:
    """Answers of ``classify`` that a record can teach, without reading its masks, and the target of each.

    Returns
    -------
    dict of str to str
        ``"liver in abdomen CT"`` to ``"liver"``; ``"something else in abdomen CT"`` to ``""``, which is no target.
    """
    shown, found = record.diagnosis(True), {}
    for region in record.regions:
        # what an image does not show is in no box of it
        if not region.absent and not (region.abnormal and record.label == NO_FINDINGS):
            name = lower_first(_label(record, region, shown))
            found[_class_words(name, record.site, record.modality)] = region.target
    if record.image is not None and any(region.mask is not None for region in record.regions):
        found[_class_words(SOMETHING_ELSE, record.site, record.modality)] = ""
    return found


def _label(record: Record, region: Region, diagnosis: str | None) -> str:
    """The most specific name of a region, with a large first letter, given what the image as a whole is called.

    It is the image's label where that can mean no other region: the data set has a single abnormal target, or the
    words of the field say that the label names this target.
    """
    if named_by_image(record, region) and diagnosis not in (None, NO_FINDINGS):
        return str(diagnosis)
    return region.target[:1].upper() + region.target[1:]


class Scene:
    """What one image is known to show; facts are measured when first asked for.

    Parameters
    ----------
    record : Record
        The image's record.
    masks : mapping of int to numpy.ndarray
        ``(height, width)`` bool of each region, by its place in ``record.regions``. Regions without a mask file may be
        left out; nothing is said of other regions that are. Where only the box of a region is known, it counts on the
        same pixels: the region is there, but nothing is measured and no mask is asked of it.
    """

    def __init__(self, record: Record, masks: Mapping[int, np.ndarray]) -> None:
        regions = record.regions
        self.record = record
        self.masks = {i: mask for i, mask in masks.items() if 0 <= i < len(regions) and regions[i].box is None}
        self.known = tuple(i for i, region in enumerate(regions) if i in self.masks or region.mask is None)
        self.outlined = tuple(i for i in self.known if i in self.masks and self.masks[i].any())
        self.present = tuple(i for i in self.known if i in self.outlined or regions[i].box is not None)
        self.boxable = self.present
        self.absent = tuple(i for i in self.known if i not in self.present)
        self.elsewhere: tuple[Box | None] | None = None
        """The shared box of "something else": None until it is drawn, ``(None,)`` if no such box was found."""
        self._facts: dict[int, RegionFacts] = {}
        self._parts: dict[int, list[Box]] = {}

    @cached_property
    def modality(self) -> str | None:
        """The image's modality; None where the catalogue only guessed it."""
        guessed = self.record.attributes.get("modality source", "").startswith("usual")
        return None if guessed else self.record.modality

    @cached_property
    def impossible(self) -> tuple[str, ...]:
        """Targets that an image of this kind cannot show, without those that the record annotates."""
        own = {region.target for region in self.record.regions}
        return absent_targets(self.modality, self.record.site, own)

    @cached_property
    def findings(self) -> tuple[int, ...]:
        """Abnormal regions that are there, the largest first."""
        shown = [i for i in self.present if self.record.regions[i].abnormal]
        return tuple(sorted(shown, key=lambda i: -int(np.count_nonzero(self.masks.get(i, 0)))))

    @cached_property
    def structures(self) -> tuple[int, ...]:
        """Regions of normal anatomy that are there."""
        return tuple(i for i in self.present if not self.record.regions[i].abnormal)

    @cached_property
    def segmentable(self) -> tuple[int, ...]:
        """Regions whose mask is known, an empty one of those that are absent included."""
        return tuple(i for i in self.known if self.record.regions[i].box is None)

    @cached_property
    def diagnosis(self) -> str | None:
        """The image's label, see `Record.diagnosis`; None where a region that decides was not loaded."""
        abnormal = {i for i, region in enumerate(self.record.regions) if region.abnormal}
        if not self.findings and not abnormal <= set(self.known):
            return None
        return self.record.diagnosis(bool(self.findings))

    @cached_property
    def is_normal(self) -> bool:
        """Whether it is known that nothing abnormal is there."""
        if not self.record.abnormal_known or self.findings:
            return False
        looked_for = [i for i, region in enumerate(self.record.regions) if region.abnormal]
        unlabelled = self.record.label is None and bool(looked_for) and set(looked_for) <= set(self.known)
        return unlabelled or self.diagnosis == NO_FINDINGS

    def box(self, index: int) -> Box | None:
        """Box around a region that is there."""
        return self.record.regions[index].box or self.facts(index).box

    def facts(self, index: int) -> RegionFacts:
        """Facts of a region that has an outline."""
        if index not in self._facts:
            self._facts[index] = self._measure(self.masks[index])
        return self._facts[index]

    def parts(self, index: int) -> list[Box]:
        """Boxes of the separate parts of a region, largest first; none where only one box is known."""
        if self.record.regions[index].box is not None:
            return []
        if index not in self._parts:
            self._parts[index] = split_parts(self.masks[index])
        return self._parts[index]

    def facts_in(self, index: int, box: Box) -> RegionFacts:
        """Facts of the part of a region that lies in a box."""
        if box == self.facts(index).box:
            return self.facts(index)
        x0, y0, x1, y1 = box
        part = np.zeros_like(self.masks[index])
        part[y0:y1, x0:x1] = self.masks[index][y0:y1, x0:x1]
        return self._measure(part)

    def label(self, index: int) -> str:
        """The most specific name of a region, with a large first letter."""
        return _label(self.record, self.record.regions[index], self.diagnosis)

    def plain_label(self, index: int) -> str:
        """`label` as it stands within a sentence."""
        return lower_first(self.label(index))

    def class_words(self, index: int) -> str:
        """Answer of ``classify``: ``"liver in abdomen CT"``."""
        return _class_words(self.plain_label(index), self.record.site, self.modality)

    def other_words(self, task: str) -> str:
        """Answer of ``classify`` or ``describe`` on a box that is around no region."""
        return _class_words(SOMETHING_ELSE, self.record.site, self.modality) if task == "classify" else ELSEWHERE

    def region_text(self, index: int, box: Box | None = None) -> str:
        """Sentences on a region, or on its part in a box: label, extent, shape, place, and what else is known of it."""
        region = self.record.regions[index]
        sentences, whole = [f"{self.label(index)}."], True
        if region.box is None:
            facts = self.facts(index) if box is None else self.facts_in(index, box)
            whole = facts is self.facts(index)
            sentences.append(self._sentence(region.target, facts))
        if whole:
            sentences += self.told(region=True) if region.abnormal else []
            sentences += self.told(region=False) if index == self.present[0] else []
        told = {name: value for name, value in region.attributes.items() if name != REGION_TEXT}
        sentences += [f"{name[:1].upper()}{name[1:]}: {value}." for name, value in told.items()]
        if REGION_TEXT in region.attributes:
            sentences.append(region.attributes[REGION_TEXT])
        return " ".join(sentences)

    def told(self, *, region: bool) -> list[str]:
        """Sentences on the record's attributes: those of an abnormal region, or those of the image."""
        texts = []
        for name, value in self.record.attributes.items():
            known = attributes().get(name)
            if known is not None and known.region == region:
                template = known.told.get(value, known.told.get("*"))
                if template is not None:
                    texts.append(fill_value(template, value))
        return texts

    def normal_text(self) -> str:
        """Report of an image without findings."""
        words = f"{self.record.site} {self.modality} image" if self.modality else "image"
        return f"{NO_FINDINGS}. The {words} shows no abnormality."

    def _sentence(self, target: str, facts: RegionFacts) -> str:
        concept = concept_of(target)
        return region_sentence(concept.noun(facts.parts), facts, counted=concept.counted)

    def _measure(self, mask: np.ndarray) -> RegionFacts:
        record = self.record
        return describe_region(
            mask,
            modality=record.modality,
            site=record.site,
            spacing=record.spacing,
            plane=record.attributes.get(PLANE, ""),
        )


def fill_value(template: str, value: str) -> str:
    """`template` with an attribute's value: as it is, with an article, as a list ("a; b"), or as a count in words."""
    count = number_words(int(value)) if value.isdecimal() else value
    items = [item.strip() for item in value.split(";") if item.strip()]
    return template.format(value=value, a_value=with_article(value), list=listed(items or [value]), count=count)


def _class_words(name: str, site: str, modality: str | None) -> str:
    return f"{name} in {'cell' if site == 'cells' else site} {modality or 'image'}"


def lower_first(label: str) -> str:
    """`label` as it stands within a sentence; acronyms stay: "COVID-19 pneumonia", "polyp"."""
    return label if label[1:2].isupper() or label[1:2] == "-" else label[:1].lower() + label[1:]
