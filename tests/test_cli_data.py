"""``unibiomed data ...`` as a person meets it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from unibiomed.cli import main


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    try:
        code = main(["data", *words])
    except SystemExit as end:
        code = int(end.code or 0)
    return code, *capsys.readouterr()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    text = 'name = "mine"\nlicence = "CC0"\nadapter = "images"\nmodality = "CT"\nsite = "abdomen"\n'
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "dataset.toml").write_text(text)
    return tmp_path


def test_list(capsys: pytest.CaptureFixture[str], root: Path) -> None:
    code, out, err = run(capsys, "list")
    assert (code, err) == (0, "")
    assert out.startswith("name ") and "\nchaos " in out and "\nkvasir_seg_polyp " in out and "\nmine " not in out
    code, out, err = run(capsys, "list", "--data", str(root))
    assert (code, err) == (0, "") and "\nmine " in out


def test_list_as_json(capsys: pytest.CaptureFixture[str], root: Path) -> None:
    code, out, err = run(capsys, "list", "--data", str(root), "--json")
    assert (code, err) == (0, "")
    facts = json.loads(out)
    names = {row["name"]: row for row in facts["datasets"]}
    assert names["mine"]["here"] == "yes" and names["chaos"]["external"] is True
    assert sum(row["external"] for row in facts["datasets"]) == 14
    assert {total["name"] for total in facts["totals"] if total["difference"]} >= {"triplets of A4", "triplets of A5"}


def test_show(capsys: pytest.CaptureFixture[str], root: Path) -> None:
    code, out, err = run(capsys, "show", "BraTS21")
    assert (code, err) == (0, "") and out.startswith("name: brats21\n")
    code, out, err = run(capsys, "show", "mine", "--data", str(root), "--json")
    assert (code, err) == (0, "") and json.loads(out)["entry"]["licence"] == "CC0"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["show", "chaso"], "did you mean chaos"),
        (["show"], "required: NAME"),
        (["list", "--data", "nowhere"], "not a folder"),
        ([], "required: VERB; see unibiomed data --help"),
        (["dance"], "invalid choice: 'dance'"),
    ],
)
def test_complaints_are_one_line(capsys: pytest.CaptureFixture[str], words: list[str], complaint: str) -> None:
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert err.startswith("unibiomed: ") and complaint in err and err.count("\n") == 1


def test_list_is_quick_and_does_without_numpy() -> None:
    code = (
        "import sys, time; start = time.perf_counter(); from unibiomed.cli import main; main(['data', 'list']);"
        "print(time.perf_counter() - start, sorted({'torch', 'numpy', 'nibabel'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    seconds, modules = done.stderr.split(maxsplit=1)
    assert modules == "[]\n"
    assert float(seconds) < 2  # about 0.15 s on an idle machine
