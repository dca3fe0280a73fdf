"""The form in which BiomedParse and UniBiomed keep their data: image and mask folders by split, described in JSON.

Files are named ``IMAGE_MODALITY_SITE.png`` and ``IMAGE_MODALITY_SITE_TARGET.png``, with ``+`` for spaces.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from unibiomed.data.adapters.common import (
    Place,
    Row,
    Tell,
    base_record,
    file_stem,
    find_places,
    refuse,
    tidy,
    without_ending,
)
from unibiomed.data.adapters.regions import Folders, NamedFile, mask_region, target_of
from unibiomed.data.adapters.tables import walk_file
from unibiomed.data.adapters.texts import readable
from unibiomed.data.entries import DatasetEntry, Table, Target
from unibiomed.data.records import NO_FINDINGS, REGION_TEXT, SPLITS, Record, Region
from unibiomed.errors import DataError

USUAL_FILES = tuple((f"{kind}{split}.json", split) for kind in ("", "meta_") for split in SPLITS)
OBJECTS = ("volumes",)
NO_ROW: Row = {}
NO_MASK = ("", "empty_mask", "absent.png")
NORMAL = ("no findings", "no finding", "normal", "none", "")
MODALITY_WORDS = (
    (r"^(MRI?|T1|T2|FLAIR|ADC|DWI)\b", "MRI"),
    (r"^CT\b", "CT"),
    (r"^PET\b", "PET"),
    (r"^(X-?Ray|CXR)", "X-ray"),
    (r"^(ultrasound|US)\b", "ultrasound"),
    (r"^endoscop", "endoscopy"),
    (r"^dermoscop", "dermoscopy"),
    (r"^fundus", "fundus"),
    (r"^OCT\b", "OCT"),
    (r"^(pathology|histology|microscopy)", "pathology"),
)


@dataclass(slots=True)
class _Sample:
    """What the JSON files say of one image; there may be millions, so what is empty is one empty thing for all."""

    file: NamedFile
    where: str
    split: str | None
    volume: str | None = None
    masks: tuple[tuple[Target, tuple[NamedFile, ...]], ...] = ()
    abnormal: frozenset[str] = frozenset()
    reports: tuple[tuple[str | None, str], ...] = ()
    anatomy: str = ""
    normal: bool = False


class _Layout:
    """The samples of a data set, filled file by file."""

    def __init__(self, entry: DatasetEntry) -> None:
        self.entry = entry
        self.home = entry.folder / entry.images
        self.folders = Folders(self.home)
        self.samples: dict[str, _Sample] = {}
        self.meant: dict[str, Target | None] = {}

    def find(self, file: object, split: str | None, volume: str | None, *, mask: bool, where: str) -> NamedFile:
        """A file that JSON names: from the data set's folder, from that of its split, or from its volume's."""
        name = str(file)
        homes = [f"{split}_mask" if mask else f"{split}", f"{split}"] if split else []
        places = ["", *(f"{home}/" for home in homes), *(f"{home}/{volume}/" for home in homes if volume)]
        for place in [*places, f"{volume}/" if volume else ""]:
            found = self.folders.place(place + name)
            if found is not None:
                return found
        raise DataError(f"{where}: {'mask' if mask else 'image'} '{name}' is missing; restore it")

    def sample(self, file: object, split: str | None, where: str, volume: str | None = None) -> _Sample:
        """The sample of an image, made when it is first named."""
        found = self.find(file, split, volume, mask=False, where=where)
        name = without_ending(f"{found.below}/{found.name}" if found.below else found.name)
        known = self.samples.setdefault(name, _Sample(found, where, split, volume))
        if known.split != split or (volume is not None and known.volume not in (None, volume)):
            raise DataError(f"{where}: image '{name}' is in another split or volume in {known.where}; leave one out")
        known.volume = known.volume or volume
        return known

    def add(self, sample: _Sample, word: str, mask: object, where: str, *, abnormal: bool = False) -> Target | None:
        """Join a mask to a sample; masks of one target are united."""
        if word not in self.meant:
            self.meant[word] = target_of(self.entry, tidy(word.replace("+", " ")), where)
        target = self.meant[word]
        if target is not None:
            known = {item.name: (item, masks) for item, masks in sample.masks}
            _, masks = known.get(target.name, (target, ()))
            if str(mask or "") not in NO_MASK:
                found = self.find(mask, sample.split, sample.volume, mask=True, where=where)
                masks += (found,) if found not in masks else ()
            known[target.name] = (target, masks)
            sample.masks = tuple(known.values())
            if abnormal:
                sample.abnormal |= {target.name}
        return target

    def read(self, table: Table) -> None:
        """Take in one JSON file, whichever of the three kinds it is."""
        where = f"{self.entry.name}/{table.file}"
        split = table.split or _split_of(table.file)
        try:
            kind = self._kind(table.file)
            if kind == "annotations":
                self._images(table.file, split, where)
            elif kind == "volumes":
                self._volumes(table.file, split, where)
            else:
                self._reports(table.file, split, where)
        except (AttributeError, KeyError, TypeError) as error:
            raise DataError(f"{where}: is not in the published form ({error}); mend the file") from error

    def _kind(self, file: str) -> str | None:
        """The key that tells what a file holds; None for reports."""
        kind = None
        for key, _, value in walk_file(self.entry, file, OBJECTS):
            if key is None and not isinstance(value, dict):
                raise TypeError("not an object with names")
            if key == "annotations":
                return key
            kind = key if key == "volumes" else kind
        return kind

    def _members(self, file: str, key: str, kind: type) -> Iterator[tuple[Any, Any]]:
        """What a list or an object of a file holds, as it comes."""
        there = False
        for found, part, value in walk_file(self.entry, file, OBJECTS):
            if found == key and part is not None:
                yield part, value
            elif found == key:
                if not isinstance(value, kind):
                    raise TypeError(f"'{key}' is of another kind")
                there = True
        if not there:
            raise KeyError(key)

    def _images(self, file: str, split: str | None, where: str) -> None:
        samples: dict[Any, _Sample] = {}
        for _, item in self._members(file, "images", list):
            samples[item["id"]] = self.sample(item["file_name"], split, where)
        for _, item in self._members(file, "annotations", list):
            own, mask = item.get("file_name"), item["mask_file"]
            sample = self.sample(own, split, where) if own else samples[item["image_id"]]
            self.add(sample, _target_word(own or sample.file.name, mask, where), mask, where)

    def _volumes(self, file: str, split: str | None, where: str) -> None:
        for volume, described in self._members(file, "volumes", dict):
            for image in described["slices"]:
                self.sample(image, split, where, str(volume))
            for said in described["expressions"].values():
                images, masks = said["img_file"], said["mask_file"]
                if len(images) != len(masks):
                    raise DataError(
                        f"{where}: '{said['exp']}' of a volume has {len(images)} images, {len(masks)} masks"
                    )
                for image, mask in zip(images, masks, strict=True):
                    # "left kidney in abdomen CT" names the left kidney.
                    word = str(said["exp"]).split(" in ")[0]
                    self.add(self.sample(image, split, where, str(volume)), word, mask, where)

    def _reports(self, file: str, split: str | None, where: str) -> None:
        for key, _, item in walk_file(self.entry, file):
            if key is None:
                continue
            sample = self.sample(item["image_file"], split, where)
            sample.anatomy = sample.anatomy or tidy(str(item.get("anatomy") or ""))
            word, text = tidy(str(item.get("abnormality") or "")), readable(str(item.get("report") or "").strip('"'))
            target = None
            if word.rstrip(".").lower() in NORMAL:
                sample.normal = True
            else:
                target = self.add(sample, word, item.get("mask_file"), where, abnormal=True)
            if text:
                sample.reports += ((target.name if target else None, text),)


def read_published(entry: DatasetEntry, tell: Tell = refuse) -> Iterator[Record]:
    """Records of the adapter ``published``, see `unibiomed.data.entries`."""
    layout = _Layout(entry)
    home = PurePosixPath(entry.images)
    usual = [
        Table(str(home / file), split=split) for file, split in USUAL_FILES if (entry.folder / home / file).is_file()
    ]
    for table in entry.tables or usual:
        layout.read(table)
    samples = layout.samples
    del layout
    places = find_places(
        entry,
        dict.fromkeys(samples, NO_ROW),
        {name: sample.split for name, sample in samples.items()},
        {name: sample.volume for name, sample in samples.items() if sample.volume},
    )
    for name in sorted(places):
        # What became a record is let go of.
        try:
            yield _record(entry, name, samples.pop(name), places.pop(name))
        except DataError as error:
            tell(error)


def _record(entry: DatasetEntry, name: str, sample: _Sample, place: Place) -> Record:
    known = base_record(entry, name, place, NO_ROW)
    modality, site = _words(sample.file.name)
    known["modality"] = known["modality"] or _modality(modality, f"{entry.name}/{name}")
    known["site"] = known["site"] or sample.anatomy or site
    regions = tuple(_regions(entry, sample))
    found = [region.target for region in regions if region.abnormal and region.target in sample.abnormal]
    if known["label"] is None and (found or sample.normal):
        label = found[0] if len(found) == 1 else None
        known["label"] = label[:1].upper() + label[1:] if label else None if found else NO_FINDINGS
    # What is said of one target stands together.
    said = dict.fromkeys(target for target, _ in sample.reports)
    texts = dict.fromkeys(text for target in said for text in _said(sample, target))
    known["abnormal_known"] = entry.abnormal_known or bool(found) or sample.normal
    return Record(image=sample.file.path, regions=regions, text=" ".join(texts) or None, **known)


def _regions(entry: DatasetEntry, sample: _Sample) -> Iterator[Region]:
    known = {target.name for target, _ in sample.masks}
    for target in entry.targets:
        if target.missing == "absent" and target.name not in known:
            yield mask_region(target, [])
    for target, masks in sample.masks:
        said = _said(sample, target.name)
        region = mask_region(target, [mask.path for mask in masks])
        yield Region(
            target=target.name,
            mask=region.mask,
            values=region.values,
            abnormal=region.abnormal or target.name in sample.abnormal,
            attributes=region.attributes | ({REGION_TEXT: " ".join(dict.fromkeys(said))} if said else {}),
            further_masks=region.further_masks,
            objects=region.objects,
        )


def _said(sample: _Sample, target: str | None) -> list[str]:
    return [text for name, text in sample.reports if name == target]


def _target_word(image: object, mask: object, where: str) -> str:
    """``TARGET`` of a mask's name: what follows the name of its image."""
    stem, whole = file_stem(image), file_stem(mask)
    if not whole.startswith(f"{stem}_"):
        raise DataError(f"{where}: mask '{mask}' is not named after its image '{image}'; rename it")
    return whole[len(stem) + 1 :]


def _words(name: str) -> tuple[str, str]:
    """``MODALITY`` and ``SITE`` of an image's name, empty where it does not hold them."""
    parts = [part.replace("+", " ").strip() for part in file_stem(name).split("_")]
    return (parts[-2], parts[-1]) if len(parts) >= 3 else ("", "")


def _modality(word: str, where: str) -> str:
    for words, modality in MODALITY_WORDS:
        if re.search(words, word, re.IGNORECASE):
            return modality
    raise DataError(f"{where}: its name does not tell the modality ('{word}'); give it in the entry")


def _split_of(file: str) -> str | None:
    """The one split that the name of a file speaks of, or else its folders."""
    path = PurePosixPath(file.lower())
    for text in (path.stem, str(path.parent)):
        said = [word for word in SPLITS if word in re.split(r"[^a-z]+", text)]
        if said:
            return said[0] if len(said) == 1 else None
    return None
