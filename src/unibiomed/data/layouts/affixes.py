"""How mask files are named after their images: what stands before and behind the name of the image."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unibiomed.data.layouts.words import plain_words

__all__ = ["Affix", "Source", "Sources", "match_names", "stem_of", "without_number"]

ENOUGH = 0.5
"""Share of the mask files that have to find their image for a way of pairing to be believed."""
MANY_LAST_WORDS = 12
SIGNS = "_-. ("
Affix = tuple[str, str, str]
"""Prefix, stem and suffix of a mask's name."""


@dataclass(slots=True)
class Source:
    """Mask files of one kind: those of one word and one way to be named."""

    word: str
    patterns: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    images: set[str] = field(default_factory=set)
    """Names of the images that have one."""


def match_names(pairs: Sequence[tuple[Collection[str], Collection[str]]]) -> tuple[str | None, list[dict[str, Affix]]]:
    """Find the image's name in that of each mask.

    Parameters
    ----------
    pairs : sequence of (names of images, names of masks)
        Without endings; one pair of collections a folder.

    Returns
    -------
    tuple
        What of an image's name is not in the mask's, as a regular expression with the rest in brackets, or None; and
        for each pair the affixes of the masks that have an image.
    """
    masks = sum(len(names) for _, names in pairs)
    direct = [_match(set(stems), names) for stems, names in pairs]
    if sum(map(len, direct)) >= ENOUGH * masks:
        return None, direct
    # "21_training" and "21_manual", "case_0000" and "case": a last word of the image's name is not in the mask's.
    for sign in "_-":
        strip = _last_words([stem for stems, _ in pairs for stem in stems], sign)
        if strip is not None:
            found = [_match({stem_of(stem, strip) for stem in stems}, names) for stems, names in pairs]
            if sum(map(len, found)) >= ENOUGH * masks:
                return strip, found
    return None, direct


def _last_words(stems: Sequence[str], sign: str) -> str | None:
    last = {stem.rpartition(sign)[2] if sign in stem else "" for stem in stems}
    if "" in last or not last:
        return None
    if all(re.fullmatch(r"\d{4}", word) for word in last):
        return rf"^(.+){sign}\d{{4}}$"
    if len(last) > MANY_LAST_WORDS:
        return None
    words = sorted(re.escape(word) for word in last)
    return f"^(.+){sign}{words[0]}$" if len(words) == 1 else f"^(.+){sign}(?:{'|'.join(words)})$"


def stem_of(name: str, strip: str | None) -> str:
    """What masks have of an image's name."""
    match = re.search(strip, name) if strip is not None else None
    return match.group(1) if match is not None else name


def _match(stems: set[str], masks: Collection[str]) -> dict[str, Affix]:
    found: dict[str, Affix] = {}
    for mask in masks:
        behind = [i for i in range(len(mask), 0, -1) if i == len(mask) or mask[i] in SIGNS]
        before = [i for i in range(1, len(mask)) if mask[i - 1] in SIGNS]
        cuts = [("", mask[:i], mask[i:]) for i in behind] + [(mask[:i], mask[i:], "") for i in before]
        affix = next((cut for cut in cuts if cut[1] in stems), None)
        if affix is not None:
            found[mask] = affix
    return found


def without_number(suffix: str) -> str:
    """``"_mask"`` of ``"_mask_1"``: several files of one kind are numbered."""
    return re.sub(r"[_\-. ]*\(?\d+\)?$", "", suffix)


class Sources:
    """Collects mask files and makes patterns of their names."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str], Source] = {}
        self._places: dict[tuple[str, str, str], dict[tuple[str, str], None]] = defaultdict(dict)
        self._suffixes: dict[tuple[str, str, str], set[str]] = defaultdict(set)

    def add(
        self, path: Path, ending: str, affix: Affix, at: str, kind: tuple[str, str], images: Collection[str]
    ) -> None:
        """Note a mask file.

        Parameters
        ----------
        path : Path
            The file.
        ending : str
            Its ending.
        affix : tuple of str
            From `match_names`.
        at : str
            Its folder in a pattern, with ``/`` at the end.
        kind : tuple of str
            Its folder among those for masks, and what that says that it marks.
        images : collection of str
            Names of the images that it belongs to.
        """
        prefix, _, suffix = affix
        key = kind[0], prefix, without_number(suffix)
        source = self._found.setdefault(key, Source(plain_words(f"{prefix} {suffix}") or kind[1]))
        source.files.append(path)
        source.images.update(images)
        self._places[key][at, ending] = None
        self._suffixes[key].add(suffix)

    def list(self) -> list[Source]:
        """All sources with their patterns, sorted by these."""
        for key, source in self._found.items():
            _, prefix, base = key
            suffixes = sorted(self._suffixes[key])
            if len(suffixes) > 1:
                # A number may follow, as in "a_mask_1". Without a word, the sign keeps the masks of 1 and 12 apart.
                numbered = [f"{base}*"] if base else sorted({f"{suffix[0]}*" for suffix in suffixes if suffix})
                suffixes = [*([""] if not base and "" in suffixes else []), *numbered]
            source.patterns = [
                f"{at}{prefix}{{stem}}{suffix}{ending}" for suffix in suffixes for at, ending in self._places[key]
            ]
        return sorted(self._found.values(), key=lambda source: source.patterns)
