"""The words that docs/style.md excludes do not come back."""

from __future__ import annotations

import re
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
# Words that packages still contain until their texts are rewritten. Remove entries; do not add any.
ALLOWED_UNTIL_REWRITTEN: dict[str, tuple[str, ...]] = {}
# Places where a word is needed.
ALLOWED = {("mask_cut", "src/unibiomed/model/configuration.py")}
# Pages that describe an earlier version with the terms of its tables.
EXCLUDED = {"style.md", "results.md", "results_version_7.md"}


def words() -> list[str]:
    section = STYLE.read_text(encoding="utf-8").split("## Words that must not come back")[1]
    return re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)


def texts() -> dict[str, str]:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    files = [*PACKAGE.rglob("*.py"), *(page for page in pages if page.name not in EXCLUDED)]
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in files}


TEXTS = texts()


def room(name: str) -> str | None:
    """The package of a file that has exceptions."""
    parts = name.split("/")
    top = parts[2] if name.startswith("src/unibiomed/") else ""
    return next((room for room, folders in ROOMS.items() if top in folders), None)


def found(word: str) -> list[str]:
    """Files that contain a word."""
    flags = 0 if word != word.lower() else re.IGNORECASE
    start, end = r"(?<!\w)" if word[0].isalnum() else "", r"(?!\w)"
    pattern = re.compile(start + re.escape(word).replace(r"\ ", r"\s+") + end, flags)
    return sorted(name for name, text in TEXTS.items() if pattern.search(text))


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
