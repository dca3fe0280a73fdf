"""MkDocs hooks: files of the repository that are outside `docs/` become part of the web site."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}


def on_files(files: Files, config: Any) -> Files:
    """Add the pages and recipes that the documentation links to."""
    for source, target in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        # Their links are relative to the repository.
        files.append(File.generated(config, target, content=re.sub(r"\]\(docs/", "](", text)))
    for recipe in sorted((ROOT / "recipes").glob("*.yaml")):
        files.append(File.generated(config, f"recipes/{recipe.name}", content=recipe.read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Point links out of `docs/` to the added files."""
    for source, target in PAGES.items():
        markdown = markdown.replace(f"](../{source}", f"]({target}")
    return markdown.replace("](../recipes/", "](recipes/")
