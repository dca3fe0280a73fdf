"""The words that docs/style.md excludes do not come back."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
STYLE = ROOT / "docs" / "style.md"
PACKAGE = ROOT / "src" / "unibiomed"

ROOMS = {
    "data": ("data", "datasets", "conversation", "streaming", "terminology", "tasks.py"),
    "evaluate": ("evaluate", "metrics"),
    "train": ("train",),
    "interpret": ("interpret",),
}
# Pages and modules that are rewritten together with a package.
PAGES = {
    "docs/data.md": "data",
    "docs/dataset_toml.md": "data",
    "docs/evaluation.md": "evaluate",
    "src/unibiomed/cli/evaluate.py": "evaluate",
}
# Words that packages still contain until their texts are rewritten. Remove entries; do not add any.
ALLOWED_UNTIL_REWRITTEN: dict[str, tuple[str, ...]] = {
    "Asker": ("interpret", "train"),
    "floors": ("evaluate",),
    "no_floors": ("evaluate",),
    "word_logits": ("interpret",),
    ".smear": ("train",),
    ".squares": ("train",),
    "heldout": ("train",),
    ".divided": ("train",),
    "class Scene": ("data",),
    "class Turn": ("data",),
    "class Walk": ("data",),
    "other words": ("evaluate", "interpret"),
    "says nothing": ("data", "interpret"),
    "is told": ("data", "interpret"),
    "are told": ("data",),
    "told apart": ("data",),
    "looked at": ("data", "interpret", "train"),
    "words alone": ("evaluate", "interpret"),
    "is believed": ("evaluate",),
    "surest": ("data", "evaluate", "interpret"),
    "anew": ("data", "interpret", "train"),
    "mend": ("data",),
    "mended": ("data",),
    "goes on where": ("evaluate",),
    "taken away": ("data", "evaluate"),
    "nobody": ("data", "interpret"),
    "whoever": ("train",),
}
# Places where a word is needed.
ALLOWED = {
    ("mask_cut", "src/unibiomed/model/configuration.py"),  # the key of older models
    ("heldout", "docs/training.md"),  # the name of a file
}
# Pages that describe an earlier version with the terms of its tables.
EXCLUDED = {"style.md", "results.md", "results_version_7.md"}


def words() -> list[str]:
    section = STYLE.read_text(encoding="utf-8").split("## Words that must not come back")[1]
    return re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)


def texts() -> dict[str, str]:
    """Text of each file, with single spaces."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    files = [*PACKAGE.rglob("*.py"), *(page for page in pages if page.name not in EXCLUDED)]
    return {path.relative_to(ROOT).as_posix(): " ".join(path.read_text(encoding="utf-8").split()) for path in files}


TEXTS = texts()
LOWER = {name: text.lower() for name, text in TEXTS.items()}


def room(name: str) -> str | None:
    """The package of a file that has exceptions."""
    parts = name.split("/")
    top = parts[2] if name.startswith("src/unibiomed/") else ""
    packages = (room for room, folders in ROOMS.items() if top in folders)
    return PAGES.get(name) or next(packages, None)


@cache
def found(word: str) -> list[str]:
    """Files that contain a word."""
    texts = LOWER if word == word.lower() else TEXTS
    pattern = re.compile((r"(?<!\w)" if word[0].isalnum() else "") + re.escape(word) + r"(?!\w)")
    return sorted(name for name, text in texts.items() if word in text and pattern.search(text))


def test_the_list_is_read() -> None:
    assert len(words()) > 30 and "Asker" in words()
    assert set(ALLOWED_UNTIL_REWRITTEN) <= set(words())


@pytest.mark.parametrize("word", words())
def test_no_excluded_word_is_used(word: str) -> None:
    allowed = ALLOWED_UNTIL_REWRITTEN.get(word, ())
    unexpected = [name for name in found(word) if room(name) not in allowed and (word, name) not in ALLOWED]
    assert not unexpected, f"'{word}' is excluded by docs/style.md: {', '.join(unexpected)}"


def test_every_exception_is_needed() -> None:
    """The table of exceptions shrinks with every package that is rewritten."""
    stale = [
        (word, name)
        for word, rooms in ALLOWED_UNTIL_REWRITTEN.items()
        for name in rooms
        if name not in {room(file) for file in found(word)}
    ]
    assert not stale, f"remove these exceptions from tests/test_style.py: {stale}"
