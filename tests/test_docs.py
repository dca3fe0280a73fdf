"""Every command of the documentation runs; every link leads somewhere; every picture is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from unibiomed.cli import main, make_parser
from unibiomed.data import load_records

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def commands(page: Path, language: str) -> list[list[str]]:
    lines = [line for block in blocks(page, language) for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("unibiomed ")]


@pytest.mark.parametrize("page", [p for p in PAGES if commands(p, "bash")], ids=lambda p: p.name)
def test_commands_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments in commands(page, "bash"):
        assert main(arguments) == 0, f"{page.name}: unibiomed {' '.join(arguments)}"
    if ["demo"] in commands(page, "bash"):
        assert (tmp_path / "unibiomed-demo" / "retina_overlay.png").exists()


def test_the_data_set_of_the_documentation_is_read(tmp_path: Path) -> None:
    """The example of docs/data.md, with two patients' images made up."""
    (text,) = blocks(ROOT / "docs" / "data.md", "toml")
    for folder in ("images", "masks"):
        (tmp_path / "my_liver" / folder).mkdir(parents=True)
        for name in ("P1_a", "P1_b", "P2_a"):
            Image.new("L", (8, 6), 255).save(tmp_path / "my_liver" / folder / f"{name}.png")
    (tmp_path / "my_liver" / "dataset.toml").write_text(text)
    records = load_records(tmp_path)
    assert [(r.group, r.regions[0].target) for r in records] == [(p, "liver tumor") for p in ("P1", "P1", "P2")]
    assert records[0].regions[0].load((6, 8)).all()


@pytest.mark.parametrize("page", [p for p in PAGES if commands(p, "text")], ids=lambda p: p.name)
def test_commands_with_data_are_spelled_right(page: Path) -> None:
    for arguments in commands(page, "text"):
        assert callable(make_parser().parse_args(arguments).run)


def test_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["demo"]) == 0
    code = blocks(ROOT / "README.md", "python")
    assert code
    for block in code:
        exec(compile(block, "README.md", "exec"), {})
    assert (tmp_path / "overlay.png").exists()
    assert list((tmp_path / "results").glob("*_findings.json"))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_and_pictures_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_warning_stands_where_users_look() -> None:
    assert "Not for clinical use without validation" in (ROOT / "README.md").read_text()
    assert "Not for clinical use without validation" in make_parser().format_help()
