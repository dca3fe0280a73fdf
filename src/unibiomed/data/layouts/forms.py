"""Layouts with a description of their own: nnU-Net, COCO, and that of BiomedParse and UniBiomed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unibiomed.data.adapters.common import plain_path
from unibiomed.data.layouts.affixes import stem_of
from unibiomed.data.layouts.names import rules_from_names
from unibiomed.data.layouts.pairs import cut_ending
from unibiomed.data.layouts.proposal import Found, make_target
from unibiomed.data.layouts.survey import Survey, spread
from unibiomed.data.layouts.words import SPLIT_WORDS, modality_of, tokens
from unibiomed.data.records import SPLITS
from unibiomed.errors import DataError

__all__ = ["coco_form", "nnunet_form", "published_form", "split_of_name"]

BACKGROUND = ("background", "ignore", "bg")


def split_of_name(path: str) -> str | None:
    """The split that the name of a file or its folders speaks of."""
    said = {SPLIT_WORDS[word] for word in tokens(re.sub(r"\d+", " ", path)) if word in SPLIT_WORDS and len(word) > 2}
    return said.pop() if len(said) == 1 else None


def nnunet_form(
    survey: Survey, files: Mapping[str, Any], endings: Sequence[str], volumes: Sequence[str]
) -> Found | None:
    """``imagesTr``, ``labelsTr`` and a ``dataset.json`` that names channels and labels."""
    described = files.get("dataset.json")
    if not isinstance(described, dict) or not survey.names.get("imagesTr") or not survey.names.get("labelsTr"):
        return None
    labels, channels = described.get("labels"), described.get("channel_names") or described.get("modality")
    if not isinstance(labels, dict):
        return None
    first = survey.names["labelsTr"][0]
    ending = cut_ending(first, [*volumes, *endings])[1]
    if not ending:
        raise DataError(f"'{survey.folder}': labelsTr/{first} is no mask file that this reads; convert the labels")
    adapter = "volumes" if ending.lower() in volumes else "images"
    names = {
        part: [cut[0] for name in survey.names.get(part, ()) if all(cut := cut_ending(name, [*volumes, *endings]))]
        for part in ("imagesTr", "imagesTs", "labelsTs")
    }
    numbered = all(re.search(r"_\d{4}$", name) for part in ("imagesTr", "imagesTs") for name in names[part])
    strip = r"([^/]+)_\d{4}$" if numbered else None
    found = Found({"adapter": adapter, "images": "imagesTr"})
    found.reasons.append("nnU-Net's layout: imagesTr, labelsTr, and names of the labels in dataset.json")
    learned, test = ({stem_of(name, strip) for name in names[part]} for part in ("imagesTr", "imagesTs"))
    tested = _is_tested(learned, test, set(names["labelsTs"]), found)
    masks = [f"{part}/{{stem}}{ending}" for part in ("labelsTr", "labelsTs")[: 1 + tested]]
    targets = []
    for name, values in _label_values(labels).items():
        word = " ".join(re.split(r"[_\s]+", name.strip()))
        if word.lower() not in BACKGROUND and values:
            targets.append(make_target(word, masks, values))
    keys = found.keys
    if strip is not None:
        keys |= {"stem": strip, "group": {"pattern": strip}}
    listed = [str(value) for value in channels.values()] if isinstance(channels, dict) else []
    told = [said[0] for word in listed if len(said := modality_of(word)) == 1]
    if len(told) == len(listed) > 0:
        if len(set(told)) == 1:
            found.modality = told[0]
            found.reasons.append(f"dataset.json names the channels {', '.join(listed)}: {told[0]}")
        elif numbered and isinstance(channels, dict):
            numbers = {
                f"{int(key):04d}": value for key, value in zip(channels, told, strict=True) if str(key).isdigit()
            }
            found.modality = {"pattern": r"_(\d{4})$", "map": numbers}
            found.reasons.append(f"dataset.json names the channels {', '.join(listed)}")
    keys["targets"] = targets
    found.clues = [str(described.get(key, "")) for key in ("name", "description")] + list(labels)
    licence = described.get("licence") or described.get("license")
    if isinstance(licence, str) and licence.strip():
        keys["licence"] = licence.strip()
        found.reasons.append(f"dataset.json states the licence: {licence.strip()}")
    return found


def _is_tested(learned: set[str], test: set[str], labels: set[str], found: Found) -> bool:
    """Whether ``imagesTs`` is the test split: all of it is labelled, and named otherwise than what is learned from."""
    if not test:
        return False
    if (without := test - labels) or (shared := test & learned):
        why = f"labelsTs lacks {len(without):,}" if without else f"imagesTr also has {len(shared):,}"
        found.questions.append(f"imagesTs was left out: {why} of its {len(test):,} cases")
        return False
    found.keys["images"] = "imagesT[rs]/*"
    found.keys["split"] = {"pattern": "^images(Tr|Ts)/", "map": {"Tr": "train", "Ts": "test"}}
    found.reasons.append(f"imagesTs has labels ({len(test):,} cases): it is the test split")
    return True


def _label_values(labels: Mapping[str, Any]) -> dict[str, list[int]]:
    """Values by name, whichever way round a ``dataset.json`` has them; 0 is the background."""
    named: dict[str, list[int]] = {}
    for key, value in labels.items():
        name, number = (value, key) if str(key).isdecimal() and isinstance(value, str) else (key, value)
        numbers = number if isinstance(number, list) else [number]
        named[str(name)] = [int(n) for n in numbers if str(n).isdecimal() and int(n) > 0]
    return named


def published_form(survey: Survey, files: Mapping[str, Any]) -> Found | None:
    """``train``, ``train_mask`` and ``train.json``, or ``meta_train.json`` for volumes."""
    if not any(f"{split}_mask" in survey.names for split in SPLITS):
        return None
    for split in SPLITS:
        described = files.get(f"{split}.json")
        items = described.get("annotations") if isinstance(described, dict) else None
        flat = isinstance(items, list) and any(isinstance(item, dict) and "mask_file" in item for item in items[:10])
        volumes = files.get(f"meta_{split}.json")
        if flat or (isinstance(volumes, dict) and "volumes" in volumes):
            reason = f"the layout of BiomedParse and UniBiomed: {split}, {split}_mask and their JSON"
            return Found({"adapter": "published"}, [reason])
    return None


def coco_form(survey: Survey, files: Mapping[str, Any]) -> Found | None:
    """Pictures with JSON that lists images, annotations and categories."""
    tables: list[dict[str, str]] = []
    listed: list[tuple[str, list[str]]] = []
    words: dict[str, None] = {}
    found_by: list[str] = []
    for path, content in files.items():
        parts = [
            content.get(key) if isinstance(content, dict) else None for key in ("images", "annotations", "categories")
        ]
        if not all(isinstance(part, list) and all(isinstance(item, dict) for item in part) for part in parts):
            continue
        images, annotations, categories = (part or [] for part in parts)
        used = {item.get("category_id") for item in annotations}
        words |= dict.fromkeys(str(item.get("name")) for item in categories if item.get("id") in used)
        listed.append((path, [plain_path(item.get("file_name")) for item in images]))
        split = split_of_name(path)
        tables.append({"file": path} | ({"split": split} if split else {}))
    if not tables:
        return None
    homes: dict[str, str] = {}
    for place, (path, names) in enumerate(listed):
        homes[path], as_found = _home(survey, path, names)
        if as_found != names:
            found_by.append(path)
            listed[place] = path, as_found
    apart = len(set(homes.values())) > 1
    if apart:
        for table in tables:
            table |= {"folder": home} if (home := homes[table["file"]]) else {}
    found = Found({"adapter": "coco", "images": "." if apart else homes[tables[0]["file"]] or "."})
    found.reasons.append(f"COCO annotations in {', '.join(table['file'] for table in tables)}")
    if found_by:
        found.reasons.append(f"{', '.join(found_by)}: images are found by the last part of their paths")
    if any("split" in table for table in tables) and not all("split" in table for table in tables):
        for table in tables:
            table.pop("split", None)
        found.questions.append("not every COCO file tells its split, so all are split anew")
    found.keys["tables"] = tables
    found.keys["targets"] = [
        make_target(" ".join(re.split(r"[_\s]+", word.strip())), categories=[word]) for word in words if word.strip()
    ]
    found.reasons.append(f"each of its categories is a target: {', '.join(words)}")
    found.clues = list(words)
    above = {path: f"{home}/" if apart and home else "" for path, home in homes.items()}
    names = [above[path] + cut_ending(name, (Path(name).suffix.lower(),))[0] for path, some in listed for name in some]
    if names:
        # a folder of one table is neither a patient nor a class
        rules, reasons, questions = rules_from_names(names, known=max(part.count("/") for part in above.values()))
        if any("split" in table for table in tables):
            rules.pop("split", None)
        found.keys |= {key: rule for key, rule in rules.items() if key in ("group", "split")}
        found.reasons += reasons
        found.questions += questions
    return found


def _home(survey: Survey, path: str, names: Sequence[str]) -> tuple[str, list[str]]:
    """The folder that the pictures of a COCO file are in, and their names in there.

    Of several with pictures of these names, one of its split. Where the paths are those of another machine, the last
    parts of them are looked for, if no two are the same.
    """
    near, split = path.rpartition("/")[0], split_of_name(path)

    def order(where: str) -> tuple[object, ...]:
        return where != near, split_of_name(where) != split, where.count("/"), where

    inside = [name for name in names if not name.startswith("/") and ".." not in name.split("/")]
    last = [name.rpartition("/")[2] for name in names]
    for listed in ([inside] if len(inside) == len(names) else []) + ([last] if len(set(last)) == len(last) else []):
        some = spread(listed, 20)
        for where in sorted(survey.names, key=order):
            if some and all((survey.folder / where / name).is_file() for name in some):
                return where, list(listed)
    example = f" (such as '{names[0]}')" if names else ""
    raise DataError(
        f"'{survey.folder}': the pictures that {path} names{example} are in none of its folders: restore them"
    )
