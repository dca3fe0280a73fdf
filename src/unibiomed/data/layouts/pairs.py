"""Which mask file belongs to which image: found from the names of folders and files."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from unibiomed.data.layouts.affixes import Affix, Source, Sources, match_names, stem_of, without_number
from unibiomed.data.layouts.survey import Survey
from unibiomed.data.layouts.words import IMAGE_WORDS, MASK_WORDS, plain_words, tokens
from unibiomed.errors import DataError

__all__ = ["Files", "Pairing", "cut_ending", "find_pairs", "folder_pattern", "is_mask_folder"]

ENOUGH = 0.5
MANY_FOLDERS = 20
_MASK_TOKEN = re.compile(
    r"[_\-. ](?:masks?|labels?|labelmap|segm?|segmentations?|gt|ground_?truth|annotations?|contours?|roi)"
    r"(?=$|[_\-. ()\d])",
    re.IGNORECASE,
)
Role = tuple[tuple[str, ...], str, tuple[str, ...]]
"""Folders above the one that is named for images or masks, that one, and those below it."""


@dataclass(frozen=True, slots=True)
class Files:
    """Images or masks of one folder: names without ending, and the ending of each."""

    folder: str
    endings: dict[str, str]


@dataclass(frozen=True, slots=True)
class Pairing:
    """Images with their masks: keys of an entry, names of records, image files, masks by kind, and reasons."""

    keys: dict[str, str]
    names: list[str]
    files: list[Path]
    sources: list[Source]
    reasons: list[str]


@dataclass(frozen=True, slots=True)
class _Link:
    """A folder of images with one of masks; `at` is the latter in a pattern.

    `kind` is its name among folders of masks, and what that says that it marks.
    """

    images: Files
    masks: Files
    at: str
    kind: tuple[str, str]


def cut_ending(name: str, endings: Sequence[str]) -> tuple[str, str]:
    """A file name without its ending, and the ending as it is written."""
    ending = next((ending for ending in endings if name.lower().endswith(ending)), "")
    return (name[: -len(ending)], name[-len(ending) :]) if ending else (name, "")


def is_mask_folder(path: str) -> bool:
    """Whether a folder is one for masks; the deepest folder with a name for images or masks decides."""
    for part in reversed(path.split("/")):
        if part.lower() in IMAGE_WORDS:
            return False
        if _is_word(part, MASK_WORDS):
            return True
    return False


def _is_word(part: str, words: Iterable[str]) -> bool:
    parts = tokens(part)
    return part.lower() in words or (bool(parts) and (parts[-1] in words or parts[0] in words))


def find_pairs(survey: Survey, folders: Sequence[Files]) -> Pairing | None:
    """Pair images with masks.

    Parameters
    ----------
    survey : Survey
        The folder.
    folders : sequence of Files
        All pictures, or all volumes, by folder.

    Returns
    -------
    Pairing or None
        None where no image has a mask.

    Raises
    ------
    DataError
        The layout is clear, and cannot be described by an entry.
    """
    beside = _beside(survey, folders)
    if beside is not None:
        return beside
    masks = [item for item in folders if is_mask_folder(item.folder)]
    images = [item for item in folders if not is_mask_folder(item.folder)]
    if not masks:
        images, masks = _by_equal_names(folders)
    return _apart(survey, images, masks) if images and masks else None


def _beside(survey: Survey, folders: Sequence[Files]) -> Pairing | None:
    """Masks in the folders of their images, told by a word in their names."""
    split: list[tuple[Files, Files]] = []
    for item in folders:
        marked = {name: ending for name, ending in item.endings.items() if _MASK_TOKEN.search(name)}
        others = {name: ending for name, ending in item.endings.items() if name not in marked}
        if marked and others:
            split.append((Files(item.folder, others), Files(item.folder, marked)))
    strip, found = match_names([(images.endings, masks.endings) for images, masks in split])
    if not any(found) or sum(map(len, found)) < ENOUGH * sum(len(masks.endings) for _, masks in split):
        return None
    images = [images for images, _ in split]
    _, _, at = _common(survey, images)
    links = [_Link(images, masks, at, ("", "")) for images, masks in split]
    suffixes = {suffix or prefix for affixes in found for prefix, _, suffix in affixes.values()}
    told = sorted({without_number(suffix) or suffix for suffix in suffixes}, key=lambda word: (-len(word), word))
    reason = f"masks lie beside their images, with {', '.join(repr(word) for word in told[:6])} in their names"
    pairing = _assemble(survey, images, links, strip, found, reason)
    words = "|".join(re.escape(word) for word in told)
    words = words if len(told) == 1 else f"(?:{words})"
    pairing.keys["exclude"] = words + (r"[_-]?\d*$" if suffixes - set(told) else "$")
    return pairing


def _by_equal_names(folders: Sequence[Files]) -> tuple[list[Files], list[Files]]:
    """One folder of images and others named after what they mark, with files of the same names."""
    named = [item for item in folders if _is_word(item.folder.rpartition("/")[2], IMAGE_WORDS)]
    if len(named) != 1:
        return [], []
    own, above = set(named[0].endings), named[0].folder.rpartition("/")[0]
    masks = [
        item
        for item in folders
        if item is not named[0]
        and item.folder.rpartition("/")[0] == above
        and len(own & set(item.endings)) >= ENOUGH * len(item.endings)
        and not any(ending.lower() in (".jpg", ".jpeg") for ending in item.endings.values())
    ]
    return named, masks


def _apart(survey: Survey, images: Sequence[Files], masks: Sequence[Files]) -> Pairing | None:
    """Masks in folders of their own."""
    links: list[_Link] = []
    for item in masks:
        above, role, below = _role(item.folder, MASK_WORDS)
        for image in images:
            own = _role(image.folder, IMAGE_WORDS)
            more = _one_more(own[2], below) if own[0] == above else None
            if more is not None:
                kind = f"{role}/{more}", plain_words(more) or plain_words(role)
                links.append(_Link(image, item, _mask_place(item.folder, own), kind))
    strip, found = match_names([(link.images.endings, link.masks.endings) for link in links])
    score: Counter[str] = Counter()
    for link, affixes in zip(links, found, strict=True):
        score[_role(link.images.folder, IMAGE_WORDS)[1]] += len(affixes)
    # Where two folders fit the masks equally well, the one that is named for images.
    best = max(score, key=lambda role: (score[role], _is_word(role, IMAGE_WORDS)), default="")
    if not score[best]:
        return None
    chosen = [item for item in images if _role(item.folder, IMAGE_WORDS)[1] == best]
    used = [place for place, link in enumerate(links) if link.images in chosen]
    where = _some([item.folder or "the folder itself" for item in chosen])
    reason = f"images are in {where}, their masks in {_some([links[place].masks.folder for place in used])}"
    return _assemble(survey, chosen, [links[i] for i in used], strip, [found[i] for i in used], reason)


def _role(folder: str, words: Iterable[str]) -> Role:
    parts = folder.split("/") if folder else []
    at = next((i for i in range(len(parts) - 1, -1, -1) if _is_word(parts[i], words)), len(parts) - 1)
    return (tuple(parts[:at]), parts[at], tuple(parts[at + 1 :])) if parts else ((), "", ())


def _one_more(own: tuple[str, ...], below: tuple[str, ...]) -> str | None:
    """The folder that the masks have and the images have not, empty if none; None where they differ otherwise."""
    if below == own:
        return ""
    if len(below) == len(own) + 1:
        if below[:-1] == own:
            return below[-1]
        if below[1:] == own:
            return below[0]
    return None


def _mask_place(folder: str, image: Role) -> str:
    """A mask folder in a pattern, with ``{parent}`` for the part that it shares with the folder of its images."""
    parts, inner = folder.split("/"), image[2]
    for start in range(len(parts) - len(inner), -1, -1) if inner else ():
        if tuple(parts[start : start + len(inner)]) == inner:
            return "/".join([*parts[:start], "{parent}", *parts[start + len(inner) :]]) + "/"
    return f"{folder}/" if folder else ""


def folder_pattern(folders: Sequence[str], endings: set[str]) -> tuple[str, str, str]:
    """``images`` of an entry for some folders; its fixed part; and where ``{parent}`` puts a mask beside its image.

    The pattern of several folders asks for the ending, where there is one.
    """
    if len(folders) == 1:
        return folders[0] or ".", folders[0], f"{folders[0]}/" if folders[0] else ""
    parts = [folder.split("/") for folder in folders]
    fixed = 0
    while all(len(part) > fixed + 1 for part in parts) and len({part[fixed] for part in parts}) == 1:
        fixed += 1
    open_parts = [names.pop() if len(names) == 1 else "*" for names in (set(n) for n in zip(*parts, strict=True))][
        fixed:
    ]
    base = "".join(f"{part}/" for part in parts[0][:fixed])
    last = f"*{next(iter(endings))}" if len(endings) == 1 else "*"
    return base + "/".join([*open_parts, last]), base.rstrip("/"), f"{base}{{parent}}/"


def _common(survey: Survey, images: Sequence[Files]) -> tuple[str, str, str]:
    if len({item.folder.count("/") + bool(item.folder) for item in images}) > 1:
        raise DataError(f"'{survey.folder}': images lie at several depths; put them into folders side by side")
    endings = {ending for item in images for ending in item.endings.values()}
    return folder_pattern([item.folder for item in images], endings)


def _assemble(
    survey: Survey,
    images: Sequence[Files],
    links: Sequence[_Link],
    strip: str | None,
    found: Sequence[dict[str, Affix]],
    reason: str,
) -> Pairing:
    pattern, base, _ = _common(survey, images)
    places = {link.at for link in links if link.masks.folder}
    if len(places) > 1 and not any("{parent}" in place for place in places) and _too_many(survey, images):
        links = [replace(link, at=_above(link, base)) for link in links]
    names: list[str] = []
    files: list[Path] = []
    by_stem: dict[tuple[str, str], list[str]] = defaultdict(list)
    for item in images:
        parent = item.folder.removeprefix(base).strip("/")
        for name, ending in item.endings.items():
            names.append(f"{parent}/{name}" if parent else name)
            files.append(survey.folder / item.folder / f"{name}{ending}")
            by_stem[item.folder, stem_of(name, strip)].append(names[-1])
    sources = Sources()
    for link, affixes in zip(links, found, strict=True):
        for mask, affix in affixes.items():
            ending = link.masks.endings[mask]
            path = survey.folder / link.masks.folder / f"{mask}{ending}"
            sources.add(path, ending, affix, link.at, link.kind, by_stem[link.images.folder, affix[1]])
    keys = {"images": pattern} | ({"stem": strip} if strip is not None else {})
    return Pairing(keys, names, files, sources.list(), [reason])


def _too_many(survey: Survey, images: Sequence[Files]) -> bool:
    """Whether folders of masks cannot be named one by one: images of one name, many folders, or more than are known."""
    names = [name for item in images for name in item.endings]
    repeated = len(set(names)) < len(names)
    return len(images) > 1 and (repeated or len(images) > MANY_FOLDERS or not survey.whole)


def _above(link: _Link, base: str) -> str:
    """The folder of masks in a pattern, with ``{above}`` for the folders that it shares with its images."""
    shared, fixed = link.images.folder.rpartition("/")[0], f"{base}/" if base else ""
    return f"{fixed}{{above}}{link.masks.folder.removeprefix(shared)}/"


def _some(words: Iterable[str]) -> str:
    listed = sorted(set(words))
    return ", ".join(listed[:4]) + (", ..." if len(listed) > 4 else "")
