"""Looking at a folder that nobody described: what it holds, and the entry that would read it.

Names are listed up to a limit, and a few dozen files are opened. Nothing is guessed silently: a proposal says what told
it, and what could not be told.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unibiomed.data.adapters.common import IMAGE_ENDINGS, VOLUME_ENDINGS
from unibiomed.data.layouts.channels import choose_channel
from unibiomed.data.layouts.folders import classes_form, masks_form, picture_names, pictures_inside
from unibiomed.data.layouts.forms import coco_form, nnunet_form, published_form
from unibiomed.data.layouts.json_files import read_json_files
from unibiomed.data.layouts.known import known_form
from unibiomed.data.layouts.monailabel import name_targets
from unibiomed.data.layouts.proposal import Found, Proposal, make_target
from unibiomed.data.layouts.survey import Survey, survey_folder
from unibiomed.data.layouts.tables import read_tables, text_form
from unibiomed.data.layouts.unread import CURE, unread_form
from unibiomed.data.layouts.words import modality_of, sites_in
from unibiomed.data.published import load_published
from unibiomed.data.similar import NEAR_DUPLICATES
from unibiomed.errors import DataError
from unibiomed.images import MODALITIES, check_modality

__all__ = ["Proposal", "recognise_layout"]

TOLD_BY_FILES = ("published",)
TABLE_ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet", ".xlsx", ".xls")
LICENCE_FILE = re.compile(r"(licen[cs]e|copying|terms)", re.IGNORECASE)
KNOWN = "images with masks, volumes with labels, nnU-Net, COCO, folders of classes, tables of questions or reports"


def recognise_layout(
    folder: str | Path,
    *,
    modality: str | None = None,
    site: str | None = None,
    licence: str | None = None,
    targets: Sequence[str] = (),
) -> Proposal:
    """Look at an unknown folder and say what it seems to be.

    Parameters
    ----------
    folder : str or Path
        Folder of one data set.
    modality : str, optional
        One of `unibiomed.images.MODALITIES`, where files and names do not tell.
    site : str, optional
        Anatomical site, where names do not tell.
    licence : str, optional
        Terms of the data set.
    targets : sequence of str
        Names of the targets, in the order in which the proposal has them.

    Returns
    -------
    Proposal
        The entry, as a dict, with reasons and questions.

    Raises
    ------
    DataError
        The folder is missing, empty or of no layout that is known; its name cannot be that of a data set; or modality
        or site is not given and nothing tells it.
    InputError
        `modality` is unknown.
    """
    place = Path(folder).resolve()
    if not re.fullmatch(r"[\w.-]+", place.name):
        raise DataError(f"'{place.name}' cannot name a data set; rename the folder to letters, digits, '_', '-', '.'")
    given = None if modality is None else check_modality(modality)
    survey = survey_folder(place)
    found = known_form(survey)
    if found is None:
        found = _recognise(survey)
        _name_unused_tables(survey, found)
    if targets:
        _rename(found, targets)
    entry: dict[str, Any] = {"name": place.name, "adapter": found.keys.pop("adapter")}
    if not survey.whole:
        found.questions.append("there are more files than were listed; some rules may not fit all of them")
    clues = _clues(survey)
    _set_modality(entry, found, given, clues)
    _set_site(entry, found, site, clues)
    if entry["adapter"] not in TOLD_BY_FILES:
        _check_told(entry, found)
    entry["licence"] = _licence(survey, found, licence)
    if NEAR_DUPLICATES in survey.names[""]:
        entry["near_duplicates"] = NEAR_DUPLICATES
        found.reasons.append(f"near-identical images are listed in {NEAR_DUPLICATES}")
    reads = {"tables": found.keys.pop("tables", None), "targets": found.keys.pop("targets", None)}
    entry |= found.keys
    entry |= {key: value for key, value in reads.items() if value}
    return Proposal(entry, found.reasons, found.questions)


def _recognise(survey: Survey) -> Found:
    contents, problems = read_json_files(survey)
    try:
        found = _fitting(survey, contents)
        choose_channel(survey, contents, found)
    except DataError as error:
        # what could not be read may be what describes the rest
        raise DataError("; ".join([str(error), *problems])) from error
    found.questions += problems
    return found


def _fitting(survey: Survey, contents: Mapping[str, Any]) -> Found:
    for found in (
        nnunet_form(survey, contents, IMAGE_ENDINGS, VOLUME_ENDINGS),
        published_form(survey, contents),
        coco_form(survey, contents),
    ):
        if found is not None:
            return found
    tables = read_tables(survey, contents)
    masked = masks_form(survey, tables)
    if masked is not None:
        name_targets(contents, masked)
        return masked
    images, names = picture_names(survey)
    told = text_form(tables, images, names) or classes_form(images, names, tables)
    unread = unread_form(survey, contents)
    if told is not None:
        if unread is not None:
            told.questions.append(f"annotations of the form of {unread} are not read: {CURE}, if they are needed")
        return told
    if unread is not None:
        raise DataError(f"'{survey.folder}': annotations of the form of {unread} are not read: {CURE}")
    inside = pictures_inside(survey)
    if inside is not None:
        raise DataError(
            f"'{survey.folder}': the pictures lie inside '{inside}', which is not read; save them as files, with a "
            "table that names them"
        )
    raise DataError(f"'{survey.folder}' is of no layout that is known ({KNOWN}); describe it in dataset.toml by hand")


def _name_unused_tables(survey: Survey, found: Found) -> None:
    """Ask about tables that nothing was taken from: they may tell patients, labels or the split."""
    used = {table["file"] for table in found.keys.get("tables", [])}
    unused = [
        path
        for path in survey.paths(TABLE_ENDINGS)
        if path not in used and not any(path in text for text in found.questions)
    ]
    if unused:
        more = f" and {len(unused) - 3:,} more" if len(unused) > 3 else ""
        found.questions.append(
            f"nothing was taken from {', '.join(unused[:3])}{more}; if patients, labels or the split are in there, add "
            "[[tables]] and rules to the entry"
        )


def _rename(found: Found, names: Sequence[str]) -> None:
    targets = found.keys.get("targets", [])
    if len(targets) != len(names):
        listed = ", ".join(target["name"] for target in targets) or "none"
        raise DataError(f"{len(names)} names of targets were given, and there are {len(targets)} ({listed}); name each")
    for target, name in zip(targets, names, strict=True):
        old = target["name"]
        categories = target.get("categories") or ([old] if found.keys["adapter"] == "coco" else [])
        missing = target.get("missing", "")
        new = make_target(
            name,
            target.get("masks", ()),
            target.get("values", ()),
            missing=missing,
            categories=categories,
            objects=target.get("objects", False),
        )
        target.clear()
        target |= new
        found.questions[:] = [text.replace(f"'{old}'", f"'{name}'") for text in found.questions]
    found.questions[:] = [text for text in found.questions if "(--target)" not in text]
    found.clues += names


def _clues(survey: Survey) -> list[str]:
    """Names that may tell what the images are: the folder's own, then those in it."""
    return [survey.folder.name, *(part for where in survey.names for part in where.split("/") if part)]


def _set_modality(entry: dict[str, Any], found: Found, given: str | None, clues: Sequence[str]) -> None:
    if given is not None or found.modality is not None:
        entry["modality"] = given or found.modality
        return
    for dataset in load_published().named(entry["name"]):
        if len(dataset.modality) == 1:
            entry["modality"] = dataset.modality[0]
            found.reasons.append(f"the paper's catalogue knows '{dataset.name}' as {entry['modality']}")
            return
    for what, words in (("its name", clues[:1]), ("a folder's name", clues[1:])):
        said = {modality: word for word in words for modality in modality_of(word)}
        if len(said) == 1:
            modality, word = next(iter(said.items()))
            entry["modality"] = modality
            found.reasons.append(f"{what} says {modality} ('{word}'): give --modality if that is wrong")
            return


def _set_site(entry: dict[str, Any], found: Found, given: str | None, clues: Sequence[str]) -> None:
    if given is not None:
        entry["site"] = given
        return
    for what, words in (("its name", clues[:1]), ("names in it", [*found.clues, *clues[1:]])):
        said = sites_in(words)
        if len(said) == 1:
            entry["site"] = said[0]
            found.reasons.append(f"{what} says {said[0]}: give --site if that is wrong")
            return


def _check_told(entry: dict[str, Any], found: Found) -> None:
    """Modality and site have to be known; one line says which options are missing."""
    lacks = {"modality": f"--modality ({', '.join(MODALITIES)})", "site": "--site (such as abdomen)"}
    missing = [option for key, option in lacks.items() if key not in entry]
    if missing:
        raise DataError(
            f"'{entry['name']}': {found.reasons[0]}; but nothing tells its "
            f"{' and '.join(key for key in lacks if key not in entry)}: give {' and '.join(missing)}"
        )


def _licence(survey: Survey, found: Found, given: str | None) -> str:
    stated = found.keys.pop("licence", None)
    if given is not None or stated is not None:
        return given or str(stated)
    for name in survey.names[""]:
        if LICENCE_FILE.match(name):
            found.reasons.append(f"the licence is in {name}")
            return f"see {name} in the folder"
    found.questions.append("the licence is unknown (--licence)")
    return "unknown"
