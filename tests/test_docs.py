"""The commands and the Python code of the documentation run; links, images, options and messages exist."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unibiomed.cli import main, make_parser
from unibiomed.data import load_records
from unibiomed.interpret.demo import demo_file
from unibiomed.train.recipe import read_recipe

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FOLDER_PAGES = [ROOT / "README.md", ROOT / "docs" / "data.md", ROOT / "docs" / "tutorials" / "finetune.md"]
PYTHON_PAGES = [ROOT / "README.md", ROOT / "docs" / "tutorials" / "segment.md"]
LAUNCHERS = ("torchrun ", "accelerate launch ")


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def commands(page: Path, language: str) -> list[list[str]]:
    """Arguments of each ``unibiomed`` command, including those of launchers."""
    lines = [line for block in blocks(page, language) for line in block.replace("\\\n", " ").splitlines()]
    split = [shlex.split(line) for line in lines if line.startswith(("unibiomed ", *LAUNCHERS))]
    return [words[words.index("unibiomed") + 1 :] for words in split]


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from parsers(below)


def anchors(page: Path) -> set[str]:
    """Anchors of the headings of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", [p for p in PAGES if commands(p, "bash")], ids=name)
def test_commands_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments in commands(page, "bash"):
        assert main(arguments) == 0, f"{name(page)}: unibiomed {' '.join(arguments)}"
    if ["demo"] in commands(page, "bash"):
        assert (tmp_path / "unibiomed-demo" / "retina_overlay.png").exists()


def test_the_example_of_a_data_set_is_read(tmp_path: Path) -> None:
    """The example of docs/data.md, with generated images of two patients."""
    (text,) = blocks(ROOT / "docs" / "data.md", "toml")
    for folder in ("images", "masks"):
        (tmp_path / "my_liver" / folder).mkdir(parents=True)
        for name in ("P1_a", "P1_b", "P2_a"):
            Image.new("L", (8, 6), 255).save(tmp_path / "my_liver" / folder / f"{name}.png")
    (tmp_path / "my_liver" / "dataset.toml").write_text(text)
    records = load_records(tmp_path)
    assert [(r.group, r.regions[0].target) for r in records] == [(p, "liver tumor") for p in ("P1", "P1", "P2")]
    assert records[0].regions[0].load((6, 8)).all()


@pytest.mark.parametrize("page", [p for p in PAGES if commands(p, "text")], ids=name)
def test_commands_that_need_data_are_valid(page: Path) -> None:
    for arguments in commands(page, "text"):
        assert callable(make_parser().parse_args(arguments).run)
        for argument in arguments:
            assert not argument.startswith("recipes/") or (ROOT / argument).exists(), argument


@pytest.mark.parametrize("page", FOLDER_PAGES, ids=name)
def test_a_folder_is_described_and_checked(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments in commands(page, "text"):
        if arguments[:2] == ["data", "add"]:
            for number in range(4):
                pixels = np.random.default_rng(number).integers(0, 256, (32, 32), np.uint8)
                for folder, values in (("images", pixels), ("masks", np.tri(32, dtype=np.uint8) * 255)):
                    (tmp_path / arguments[2] / folder).mkdir(parents=True, exist_ok=True)
                    Image.fromarray(values).save(tmp_path / arguments[2] / folder / f"P{number}.png")
        if arguments[:2] in (["data", "add"], ["data", "check"]):
            assert main(arguments) == 0, f"{name(page)}: unibiomed {' '.join(arguments)}"
        if arguments[:2] == ["data", "add"]:
            assert load_records(tmp_path, [arguments[2]])[0].regions[0].target == "liver tumor"


@pytest.mark.parametrize("page", [p for p in PAGES if p.is_relative_to(ROOT / "docs")], ids=name)
def test_options_and_benchmarks_exist(page: Path) -> None:
    """Options and scripts in the text exist; commands in blocks are parsed by another test."""
    scripts = {f"benchmarks/{path.name}": path.read_text() for path in (ROOT / "benchmarks").glob("*.py")}
    known = {option for parser in parsers(make_parser()) for option in parser._option_string_actions}
    known.update(re.findall(r'add_argument\("(--[a-z-]+)"', "".join(scripts.values())))
    for code in re.findall(r"`([^`\n]+)`", page.read_text()):
        assert set(re.findall(r"benchmarks/\w+\.py", code)) <= scripts.keys(), f"{name(page)}: {code}"
        assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", code)) <= known, f"{name(page)}: {code}"


def test_messages_of_troubleshooting_exist() -> None:
    """Each message is in the code, with values for the dots."""
    code = "".join(path.read_text() for path in sorted((ROOT / "src").rglob("*.py")))
    code = re.sub(r"[\"']\s*\n\s*f?[\"']", "", code)
    rows = re.findall(r"^\| `([^`]+)` \|", (ROOT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE)
    assert len(rows) > 10
    for row in rows:
        assert re.search("[^\n]*".join(re.escape(part) for part in row.split("…")), code), row


def test_the_stages_of_nano_are_described() -> None:
    recipe = read_recipe(ROOT / "recipes" / "nano.yaml")
    text = " ".join((ROOT / "docs" / "how_it_works.md").read_text().split())
    section = text.split("trained in these stages")[1].split(" ## ")[0]
    assert re.findall(r"\*\*(\w+)\*\*", section) == [stage.name for stage in recipe.stages]


@pytest.mark.parametrize("page", PYTHON_PAGES, ids=name)
def test_python_code_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("unibiomed-demo").mkdir()
    Path("unibiomed-demo", "retina.jpg").write_bytes(demo_file().read_bytes())
    code = blocks(page, "python")
    assert code
    # The blocks of a page are one program.
    exec(compile("\n".join(code), name(page), "exec"), {})
    assert (tmp_path / "overlay.png").exists()
    assert list((tmp_path / "results").glob("*_findings.json"))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_and_images_exist(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", page.read_text()):
        if "://" not in target:
            other = page.parent / target if target else page
            assert other.exists(), f"{name(page)} links to {target}"
            assert not anchor or anchor in anchors(other), f"{name(page)} links to {target}#{anchor}"


def test_the_clinical_warning() -> None:
    assert "Not for clinical use without validation" in (ROOT / "README.md").read_text()
    assert "Not for clinical use without validation" in make_parser().format_help()
