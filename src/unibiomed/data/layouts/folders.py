"""Layouts that names alone tell: images or volumes with masks, and folders of images without any."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unibiomed.data.adapters.common import DICOM_ENDINGS, IMAGE_ENDINGS, VOLUME_ENDINGS
from unibiomed.data.layouts.masks import MAX_VOLUME_BYTES, VOLUMES_LOOKED_AT, look_at_masks
from unibiomed.data.layouts.names import rules_from_names
from unibiomed.data.layouts.pairs import Files, Pairing, cut_ending, find_pairs, folder_pattern, is_mask_folder
from unibiomed.data.layouts.proposal import Found, targets_of_values
from unibiomed.data.layouts.survey import Survey
from unibiomed.data.layouts.tables import TableFile, label_rules
from unibiomed.data.layouts.words import modality_of
from unibiomed.errors import DataError, InputError
from unibiomed.images import read_image, read_volume, read_volume_header

__all__ = ["classes_form", "masks_form", "picture_names", "pictures_inside"]

PICTURE_ENDINGS = (*IMAGE_ENDINGS, *DICOM_ENDINGS)
SERIES = 2
"""Files that a folder of one DICOM series has at least."""


def masks_form(survey: Survey, tables: Sequence[TableFile]) -> Found | None:
    """Volumes with label volumes, or else pictures with masks.

    Raises
    ------
    DataError
        They cannot be described by an entry, or most masks that were opened cannot be read.
    """
    for volumes in (True, False):
        folders = _files(survey, VOLUME_ENDINGS if volumes else PICTURE_ENDINGS, series=volumes)
        pairing = find_pairs(survey, folders) if folders else None
        if pairing is not None:
            return _described(survey, pairing, tables, volumes=volumes)
    return None


def _files(survey: Survey, endings: Sequence[str], *, series: bool) -> list[Files]:
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for where, names in survey.ending_in(endings).items():
        found[where] |= dict(cut_ending(name, endings) for name in names)
    for where, names in survey.ending_in(DICOM_ENDINGS).items() if series else ():
        if len(names) >= SERIES:
            if not where and survey.ending_in(IMAGE_ENDINGS):
                continue  # they are single images, whose masks are pictures
            if not where:
                raise DataError(
                    f"'{survey.folder}' is one DICOM series; put it and its labels into folders side by side"
                )
            above, _, name = where.rpartition("/")
            found[above][name] = ""
    return [Files(where, names) for where, names in sorted(found.items())]


def _described(survey: Survey, pairing: Pairing, tables: Sequence[TableFile], *, volumes: bool) -> Found:
    found = Found({"adapter": "volumes" if volumes else "images", **pairing.keys}, list(pairing.reasons))
    rules, reasons, questions = rules_from_names(pairing.names)
    found.keys |= rules
    found.reasons += reasons
    found.questions += questions
    label_rules(tables, pairing.names, found)
    found.modality = _modality_in_names(pairing.names, found)
    if found.modality is None:
        single = [path for path in pairing.files if path.name.lower().endswith(DICOM_ENDINGS)]
        found.modality = _modality_in_files(pairing.files, found) if volumes else _modality_in_dicom(single, found)
    targets: list[dict[str, Any]] = []
    without = {place: len(set(pairing.names) - source.images) for place, source in enumerate(pairing.sources)}
    for place, source in enumerate(pairing.sources):
        seen = look_at_masks(source.files, volumes=volumes)
        if seen.unreadable:
            opened = seen.files + len(seen.unreadable)
            found.questions.append(
                f"{len(seen.unreadable)} of {opened} masks that were opened cannot be read, such as "
                f"{seen.unreadable[0]} (unibiomed data check names all)"
            )
        missing = "unknown" if without[place] else ""
        targets += targets_of_values(seen, source.word, source.patterns, missing, found)
    if any(without.values()):
        listed = [f"{s.word or 'target'} {without[i]:,}" for i, s in enumerate(pairing.sources) if without[i]]
        found.questions.append(
            f"of {len(pairing.names):,} images, some have no mask ({', '.join(listed)}): nothing is said of them; set "
            'missing = "absent" if it means that there is none'
        )
    names: Counter[str] = Counter()
    for target in targets:
        names[target["name"]] += 1
        if names[target["name"]] > 1:
            target["name"] = f"{target['name']} {names[target['name']]}"
    found.questions[:] = list(dict.fromkeys(found.questions))
    found.keys["targets"] = targets
    found.clues = [source.word for source in pairing.sources]
    return found


def _modality_in_names(names: Sequence[str], found: Found) -> Any:
    """The modality that every file name tells: one for all, or a rule; None where some do not, or say two."""
    words: dict[str, str] = {}
    for name in names:
        told = {piece: said[0] for piece in re.split(r"[^A-Za-z0-9]+", name) if len(said := modality_of(piece)) == 1}
        if len(set(told.values())) != 1:
            return None
        words |= told
    kinds = sorted(set(words.values()))
    if len(kinds) == 1:
        found.reasons.append(f"every file name says {kinds[0]} ({', '.join(sorted(words)[:6])})")
        return kinds[0]
    listed = "|".join(re.escape(word) for word in sorted(words, key=lambda word: (-len(word), word)))
    found.reasons.append(
        f"the file names tell the modality: {', '.join(f'{w} is {m}' for w, m in sorted(words.items()))}"
    )
    return {"pattern": rf"(?:^|[^A-Za-z0-9])({listed})(?=[^A-Za-z0-9]|$)", "map": dict(sorted(words.items()))}


def _modality_in_files(files: Sequence[Path], found: Found) -> str | None:
    """Modality of the first volume that can be read: from its header, or by its Hounsfield units."""
    for path in files[:VOLUMES_LOOKED_AT]:
        try:
            stored = read_volume_header(path)[1]
            small = path.is_file() and path.stat().st_size <= MAX_VOLUME_BYTES
            guessed = read_volume(path).modality if stored is None and small else None
        except InputError:
            continue  # named when the entry is tried
        if stored is not None:
            found.reasons.append(f"the header of '{path.name}' says {stored}")
        elif guessed == "CT":
            found.reasons.append(f"the values of '{path.name}' are Hounsfield units: CT")
        return stored or ("CT" if guessed == "CT" else None)
    return None


def _modality_in_dicom(files: Sequence[Path], found: Found) -> str | None:
    """Modality in the header of the first DICOM image that can be read."""
    for path in files[:VOLUMES_LOOKED_AT]:
        try:
            told = read_image(path).modality
        except InputError:
            continue  # named when the entry is tried
        if told is not None:
            found.reasons.append(f"the header of '{path.name}' says {told}")
        return told
    return None


def picture_names(survey: Survey) -> tuple[str, list[str]]:
    """``images`` of an entry for the pictures of a folder that are no masks, and their names as records.

    Where pictures lie at several depths, those of the depth with most of them. DICOM files where there are no others.
    """
    listed = _files(survey, IMAGE_ENDINGS, series=False) or _files(survey, DICOM_ENDINGS, series=False)
    folders = [item for item in listed if not is_mask_folder(item.folder)]
    depths: Counter[int] = Counter()
    for item in folders:
        depths[item.folder.count("/") + bool(item.folder)] += len(item.endings)
    if not depths:
        return "", []
    depth = depths.most_common(1)[0][0]
    used = [item for item in folders if item.folder.count("/") + bool(item.folder) == depth]
    pattern, base, _ = folder_pattern([item.folder for item in used], set())
    parents = {item.folder: item.folder.removeprefix(base).strip("/") for item in used}
    names = [f"{parents[item.folder]}/{name}".lstrip("/") for item in used for name in item.endings]
    return pattern, names


def classes_form(images: str, names: Sequence[str], tables: Sequence[TableFile]) -> Found | None:
    """Pictures whose folder or table tells what each of them shows as a whole; None where nothing does."""
    if not names:
        return None
    rules, reasons, questions = rules_from_names(names)
    found = Found({"adapter": "images", "images": images, **rules}, reasons, questions)
    label_rules(tables, names, found)
    if "label" not in found.keys:
        return None
    found.reasons.insert(0, f"pictures in {images} without masks, {len(names):,} of them or more")
    return found


def pictures_inside(survey: Survey) -> str | None:
    """The Parquet file of a folder that holds pictures, as the Hugging Face hub writes them; None without one."""
    for where, names in survey.ending_in((".parquet",)).items():
        path = f"{where}/{names[0]}" if where else names[0]
        try:
            import pyarrow as pa  # type: ignore[import-untyped,unused-ignore]
            import pyarrow.parquet as pq  # type: ignore[import-untyped,unused-ignore]

            schema = pq.read_schema(survey.folder / path)
        except (ImportError, OSError, ValueError):
            continue
        if any(pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0 for field in schema):
            return path
    return None
