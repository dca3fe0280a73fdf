"""Rules that the names of images suggest: the authors' split, patients, classes by folder."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from unibiomed.data.layouts.words import NORMAL_WORDS, SPLIT_WORDS, tokens
from unibiomed.data.records import NO_FINDINGS

__all__ = ["Said", "label_map", "rules_from_names", "split_map"]

Said = tuple[dict[str, Any], list[str], list[str]]
"""Keys of an entry, why, and what is left to ask."""

PATIENT_WORDS = "patient|patients|pat|pt|case|subject|subj|sub|volunteer|person|participant|study|sts|id"
SHAPES = (
    # What a group looks like, how many images it has at least on average, and what it is called.
    (r"TCGA[_-][A-Z0-9]{2}[_-][A-Z0-9]{4}(?=[_.-]|$)", 1.01, "TCGA cases"),
    (rf"(?i:{PATIENT_WORDS})[_-]?\d+(?=[_.-]|$)", 1.01, "a word for patients with a number"),
    (r"[A-Za-z]+\d+(?=[_-]|$)", 1.3, "letters and a number"),
    (r"\d+(?=[_-]\d)", 1.3, "a number before a further number"),
)
CLASSES = range(2, 31)
MIN_GROUPS = 3


def rules_from_names(names: Sequence[str], told: Collection[str] = (), known: int = 0) -> Said:
    """What the names of all records suggest.

    Parameters
    ----------
    names : sequence of str
        As records are named: file names without ending, with the folders that a pattern leaves open before them.
    told : collection of str
        Keys that are known otherwise, or not wanted; they are not looked for.
    known : int
        So many of the upper folders tell nothing that is not known otherwise.

    Returns
    -------
    tuple
        Keys of the entry among ``split``, ``group``, ``label`` and ``abnormal_known``; the reasons; the questions.
    """
    rules: dict[str, Any] = dict.fromkeys(told)
    reasons: list[str] = []
    questions: list[str] = []
    depth = min(name.count("/") for name in names)
    for level in range(known, depth):
        _folder_rule(names, level, rules, reasons)
    if "split" not in rules:
        _split_in_names(names, rules, reasons)
    if "group" not in rules:
        _group_in_names(names, rules, reasons)
    if "group" not in rules:
        questions.append(
            "each image is its own patient, as far as its name tells; if patients have several, give a group rule, "
            "or images of one patient are on both sides of the split"
        )
    return {key: rule for key, rule in rules.items() if key not in told}, reasons, questions


def _folder_rule(names: Sequence[str], level: int, rules: dict[str, Any], reasons: list[str]) -> None:
    folders = Counter(name.split("/")[level] for name in names)
    pattern = "^" + "[^/]+/" * level + "([^/]+)/"
    if len(folders) < 2:
        return
    if all(folder.lower() in SPLIT_WORDS for folder in folders):
        if "split" not in rules:
            rules["split"] = {"pattern": pattern, "map": split_map(folders)}
            reasons.append(f"the split is that of the folders {_some(folders)}")
    elif len(folders) in CLASSES and not any(re.search(r"\d", folder) for folder in folders):
        if "label" not in rules and not any(set(tokens(folder)) & {"images", "image", "imgs"} for folder in folders):
            rules["label"] = {"pattern": pattern} | label_map(folders)
            reasons.append(f"the label of an image is the name of its folder: {_some(folders)}")
            if NO_FINDINGS in rules["label"].get("map", {}).values():
                rules["abnormal_known"] = True
                reasons.append(f"folders of normal images become '{NO_FINDINGS}'")
    elif "group" not in rules:
        rules["group"] = {"pattern": pattern}
        reasons.append(f"images of one folder are of one patient or case ({len(folders):,} folders)")


def _split_in_names(names: Sequence[str], rules: dict[str, Any], reasons: list[str]) -> None:
    start = _start(names)
    known = "|".join(sorted(SPLIT_WORDS, key=len, reverse=True))
    for form in (start + r"({})[_.-][^/]*$", r"[_.-]({})$"):
        found = [re.search(form.format(f"(?i:{known})"), name) for name in names]
        sides = {match.group(1) for match in found if match is not None}
        if None not in found and len({SPLIT_WORDS[word.lower()] for word in sides}) > 1:
            words = "|".join(sorted(sides, key=lambda word: (-len(word), word)))
            rules["split"] = {"pattern": form.format(words).replace("[^/]*$", ""), "map": split_map(sides)}
            reasons.append(f"the split is named in the file names ({_some(sides)})")
            return


def _group_in_names(names: Sequence[str], rules: dict[str, Any], reasons: list[str]) -> None:
    start = _start(names)
    for shape, often, what in SHAPES:
        found = [re.search(f"{start}({shape})[^/]*$", name) for name in names]
        groups = Counter(match.group(1) for match in found if match is not None)
        years = sum(re.fullmatch(r"(19|20)\d\d", group) is not None for group in groups) > 0.5 * len(groups)
        # A group that holds most images is no patient.
        if (
            None not in found
            and len(groups) >= MIN_GROUPS
            and len(names) >= often * len(groups)
            and max(groups.values()) <= 0.5 * len(names)
            and not years
        ):
            rules["group"] = {"pattern": f"{start}({_as_found(shape, groups)})"}
            example = next(iter(groups))
            reasons.append(f"images are grouped by {what} in their names, such as '{example}' ({len(groups):,} groups)")
            return


def _start(names: Sequence[str]) -> str:
    return "(?:^|/)" if any("/" in name for name in names) else "^"


def _as_found(shape: str, groups: Counter[str]) -> str:
    """The shape of groups with the words that were found in place of those that might have been."""
    heads = sorted({re.split(r"\d", group)[0] for group in groups})
    _, ahead, rest = shape.partition("(?=")
    if shape.startswith("TCGA") or heads == [""] or len(heads) > 3:
        return shape
    words = "|".join(re.escape(head) for head in heads)
    return (words if len(heads) == 1 else f"(?:{words})") + r"\d+" + ahead + rest


def split_map(folders: Sequence[str] | Counter[str] | set[str]) -> dict[str, str]:
    """The splits that words stand for."""
    return {folder: SPLIT_WORDS[folder.lower()] for folder in sorted(folders)}


def label_map(words: Sequence[str] | Counter[str] | set[str]) -> dict[str, Any]:
    """``map`` of a label rule where words need one: with signs for spaces, or for images without findings."""
    tidy = {
        word: NO_FINDINGS if word.lower().replace("_", " ") in NORMAL_WORDS else " ".join(re.split(r"[_\s]+", word))
        for word in sorted(words)
    }
    return {"map": tidy} if any(word != shown for word, shown in tidy.items()) else {}


def _some(words: Counter[str] | set[str]) -> str:
    listed = sorted(words)
    return ", ".join(listed[:6]) + (", ..." if len(listed) > 6 else "")
