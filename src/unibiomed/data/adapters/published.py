"""The form in which BiomedParse and UniBiomed keep their data: image and mask folders by split, described in JSON.

Files are named ``IMAGE_MODALITY_SITE.png`` and ``IMAGE_MODALITY_SITE_TARGET.png``, with ``+`` for spaces.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from unibiomed.data.adapters.common import base_record, file_stem, find_places, tidy, without_ending
from unibiomed.data.adapters.regions import Folders, mask_region, target_of
from unibiomed.data.adapters.tables import read_json
from unibiomed.data.adapters.texts import readable
from unibiomed.data.entries import DatasetEntry, Table, Target
from unibiomed.data.records import NO_FINDINGS, REGION_TEXT, SPLITS, Record, Region
from unibiomed.errors import DataError

USUAL_FILES = tuple((f"{kind}{split}.json", split) for kind in ("", "meta_") for split in SPLITS)
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
    """What the JSON files say of one image."""

    path: Path
    where: str
    split: str | None
    volume: str | None = None
    masks: dict[str, list[Path]] = field(default_factory=dict)
    targets: dict[str, Target] = field(default_factory=dict)
    abnormal: set[str] = field(default_factory=set)
    reports: dict[str | None, list[str]] = field(default_factory=dict)
    anatomy: str = ""
    normal: bool = False


class _Layout:
    """The samples of a data set, filled file by file."""

    def __init__(self, entry: DatasetEntry) -> None:
        self.entry = entry
        self.folders = Folders(entry.folder / entry.images)
        self.samples: dict[str, _Sample] = {}

    def find(self, file: object, split: str | None, volume: str | None, *, mask: bool, where: str) -> Path:
        """A file that JSON names: from the data set's folder, from that of its split, or from its volume's."""
        name = str(file)
        homes = [f"{split}_mask" if mask else f"{split}", f"{split}"] if split else []
        places = ["", *(f"{home}/" for home in homes), *(f"{home}/{volume}/" for home in homes if volume)]
        for place in [*places, f"{volume}/" if volume else ""]:
            path = self.folders.one(place + name)
            if path is not None:
                return path
        raise DataError(f"{where}: {'mask' if mask else 'image'} '{name}' is missing; restore it")

    def sample(self, file: object, split: str | None, where: str, volume: str | None = None) -> _Sample:
        """The sample of an image, made when it is first named."""
        path = self.find(file, split, volume, mask=False, where=where)
        name = without_ending(path.relative_to(self.entry.folder / self.entry.images).as_posix())
        known = self.samples.setdefault(name, _Sample(path, where, split, volume))
        if known.split != split or (volume is not None and known.volume not in (None, volume)):
            raise DataError(f"{where}: image '{name}' is in another split or volume in {known.where}; leave one out")
        known.volume = known.volume or volume
        return known

    def add(self, sample: _Sample, word: str, mask: object, where: str, *, abnormal: bool = False) -> Target | None:
        """Join a mask to a sample; masks of one target are united."""
        target = target_of(self.entry, tidy(word.replace("+", " ")), where)
        if target is not None:
            sample.targets[target.name] = target
            masks = sample.masks.setdefault(target.name, [])
            if str(mask or "") not in NO_MASK:
                path = self.find(mask, sample.split, sample.volume, mask=True, where=where)
                masks += [path] if path not in masks else []
            if abnormal:
                sample.abnormal.add(target.name)
        return target

    def read(self, table: Table) -> None:
        """Take in one JSON file, whichever of the three kinds it is."""
        where = f"{self.entry.name}/{table.file}"
        data = read_json(self.entry, table.file)
        split = table.split or next((word for word in SPLITS if word in re.split(r"[^a-z]+", table.file)), None)
        try:
            if "annotations" in data:
                self._images(data, split, where)
            elif "volumes" in data:
                self._volumes(data["volumes"], split, where)
            else:
                self._reports(data, split, where)
        except (AttributeError, KeyError, TypeError) as error:
            raise DataError(f"{where}: is not in the published form ({error}); mend the file") from error

    def _images(self, data: Mapping[str, Any], split: str | None, where: str) -> None:
        files = {item["id"]: item["file_name"] for item in data["images"]}
        for file in files.values():
            self.sample(file, split, where)
        for item in data["annotations"]:
            file = item.get("file_name") or files[item["image_id"]]
            mask = item["mask_file"]
            self.add(self.sample(file, split, where), _target_word(file, mask, where), mask, where)

    def _volumes(self, volumes: Mapping[str, Any], split: str | None, where: str) -> None:
        for volume, described in volumes.items():
            for file in described["slices"]:
                self.sample(file, split, where, str(volume))
            for said in described["expressions"].values():
                files, masks = said["img_file"], said["mask_file"]
                if len(files) != len(masks):
                    raise DataError(f"{where}: '{said['exp']}' of a volume has {len(files)} images, {len(masks)} masks")
                for file, mask in zip(files, masks, strict=True):
                    # "left kidney in abdomen CT" names the left kidney.
                    word = str(said["exp"]).split(" in ")[0]
                    self.add(self.sample(file, split, where, str(volume)), word, mask, where)

    def _reports(self, reports: Mapping[str, Any], split: str | None, where: str) -> None:
        for item in reports.values():
            sample = self.sample(item["image_file"], split, where)
            sample.anatomy = sample.anatomy or tidy(str(item.get("anatomy") or ""))
            word, text = tidy(str(item.get("abnormality") or "")), readable(str(item.get("report") or "").strip('"'))
            target = None
            if word.rstrip(".").lower() in NORMAL:
                sample.normal = True
            else:
                target = self.add(sample, word, item.get("mask_file"), where, abnormal=True)
            if text:
                sample.reports.setdefault(target.name if target else None, []).append(text)


def read_published(entry: DatasetEntry) -> Iterator[Record]:
    """Records of the adapter ``published``, see `unibiomed.data.entries`."""
    layout = _Layout(entry)
    home = PurePosixPath(entry.images)
    usual = [
        Table(str(home / file), split=split) for file, split in USUAL_FILES if (entry.folder / home / file).is_file()
    ]
    for table in entry.tables or usual:
        layout.read(table)
    samples = layout.samples
    official = {name: sample.split for name, sample in samples.items()}
    groups = {name: sample.volume for name, sample in samples.items() if sample.volume}
    places = find_places(entry, {name: {} for name in samples}, official, groups)
    for name, place in sorted(places.items()):
        sample = samples[name]
        known = base_record(entry, name, place, {})
        modality, site = _words(sample.path)
        known["modality"] = known["modality"] or _modality(modality, f"{entry.name}/{name}")
        known["site"] = known["site"] or sample.anatomy or site
        regions = tuple(_regions(entry, sample))
        found = [region.target for region in regions if region.abnormal and region.target in sample.abnormal]
        if known["label"] is None and (found or sample.normal):
            label = found[0] if len(found) == 1 else None
            known["label"] = label[:1].upper() + label[1:] if label else None if found else NO_FINDINGS
        texts = dict.fromkeys(text for said in sample.reports.values() for text in said)
        known["abnormal_known"] = entry.abnormal_known or bool(found) or sample.normal
        yield Record(image=sample.path, regions=regions, text=" ".join(texts) or None, **known)


def _regions(entry: DatasetEntry, sample: _Sample) -> Iterator[Region]:
    for target in entry.targets:
        if target.missing == "absent" and target.name not in sample.targets:
            yield mask_region(target, [])
    for name, target in sample.targets.items():
        said = sample.reports.get(name, [])
        region = mask_region(target, sample.masks[name])
        yield Region(
            target=name,
            mask=region.mask,
            values=region.values,
            abnormal=region.abnormal or name in sample.abnormal,
            attributes=region.attributes | ({REGION_TEXT: " ".join(dict.fromkeys(said))} if said else {}),
            further_masks=region.further_masks,
            objects=region.objects,
        )


def _target_word(image: object, mask: object, where: str) -> str:
    """``TARGET`` of a mask's name: what follows the name of its image."""
    stem, whole = file_stem(image), file_stem(mask)
    if not whole.startswith(f"{stem}_"):
        raise DataError(f"{where}: mask '{mask}' is not named after its image '{image}'; rename it")
    return whole[len(stem) + 1 :]


def _words(path: Path) -> tuple[str, str]:
    """``MODALITY`` and ``SITE`` of an image's name, empty where it does not hold them."""
    parts = [part.replace("+", " ").strip() for part in file_stem(path.name).split("_")]
    return (parts[-2], parts[-1]) if len(parts) >= 3 else ("", "")


def _modality(word: str, where: str) -> str:
    for words, modality in MODALITY_WORDS:
        if re.search(words, word, re.IGNORECASE):
            return modality
    raise DataError(f"{where}: its name does not tell the modality ('{word}'); give it in the entry")
