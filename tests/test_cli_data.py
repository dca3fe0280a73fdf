"""The command ``unibiomed data``."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unibiomed.cli import main
from unibiomed.data import load_records


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
    ("words", "pattern"),
    [
        (["show", "chaso"], "did you mean chaos"),
        (["show"], "required: NAME"),
        (["list", "--data", "nowhere"], "not a folder"),
        ([], "required: COMMAND; see unibiomed data --help"),
        (["dance"], "invalid choice: 'dance'"),
        (["add", "nowhere"], "not a folder"),
        (["check", "nowhere"], "not a folder"),
        (["check", ".", "--limit", "0"], "not described yet"),
    ],
)
def test_errors_are_one_line(capsys: pytest.CaptureFixture[str], words: list[str], pattern: str) -> None:
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert err.startswith("unibiomed: ") and pattern in err and err.count("\n") == 1


@pytest.fixture
def undescribed(tmp_path: Path) -> Path:
    """A folder of images with masks, one of them an image twice."""
    for number in range(4):
        for part in ("images", "masks"):
            (tmp_path / "polyps" / part).mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number % 3).integers(0, 256, (16, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "polyps" / "images" / f"p{number}_1.png")
        mask = np.zeros((16, 20), dtype=np.uint8)
        mask[2:9, 3:9] = 255
        Image.fromarray(mask).save(tmp_path / "polyps" / "masks" / f"p{number}_1.png")
    return tmp_path / "polyps"


def test_add_then_check(capsys: pytest.CaptureFixture[str], undescribed: Path) -> None:
    folder = str(undescribed)
    code, out, err = run(capsys, "check", folder)
    assert (code, out) == (2, "") and "not described yet; run: unibiomed data add" in err
    code, out, err = run(capsys, "add", folder, "--dry-run", "--target", "polyp")
    assert (code, err) == (0, "") and 'modality = "endoscopy"' in out and 'name = "polyp"' in out
    assert not (undescribed / "dataset.toml").exists()
    code, out, err = run(capsys, "add", folder, "--target", "polyp", "--licence", "CC0")
    assert (code, err) == (0, "") and "Please check:" in out and f"run: unibiomed data check {folder}" in out
    code, out, err = run(capsys, "add", folder)
    assert (code, out) == (2, "") and "--force" in err

    code, out, err = run(capsys, "check", folder)
    assert out.startswith("polyps: 4 of 4 images looked at, 4 records; ")
    assert "identical files in" in out and "images/p0_1.png = images/p3_1.png" in out
    assert code == (3 if "leak between splits" in out else 0)
    code, out, err = run(capsys, "check", str(undescribed.parent), "--datasets", "polyps", "--json", "--limit", "9")
    assert json.loads(out)[0]["looked_at"] == 4


def test_check_writes_the_duplicates(capsys: pytest.CaptureFixture[str], undescribed: Path) -> None:
    folder = str(undescribed)
    run(capsys, "add", folder)
    code, out, err = run(capsys, "check", folder, "--write-duplicates")
    written = undescribed / "near_duplicates.txt"
    assert "p0_1.png p3_1.png" in written.read_text() and err == f"Written to {written}\n"
    code, out, err = run(capsys, "check", folder, "--write-duplicates")
    assert code == 0 and "no near-duplicates to write" in err, "the list is in use"
    entry = undescribed / "dataset.toml"
    written.write_text("# nothing\n")
    code, out, err = run(capsys, "check", folder, "--write-duplicates")
    assert code == 2 and "--force" in err
    code, out, err = run(capsys, "check", folder, "--write-duplicates", "--force")
    code, out, err = run(capsys, "check", folder, "--write-duplicates", "--force")
    assert code == 0 and "no near-duplicates to write" in err and "1 warning" in out and "duplicates" in out
    code, out, err = run(capsys, "add", folder, "--force")
    assert code == 0 and 'near_duplicates = "near_duplicates.txt"' in entry.read_text()


def test_check_reports_leaks_from_an_external_set(capsys: pytest.CaptureFixture[str], undescribed: Path) -> None:
    root, external = undescribed.parent, undescribed.parent / "CHAOS"
    shutil.copytree(undescribed, external)
    for folder in (undescribed, external):
        run(capsys, "add", str(folder), "--modality", "CT", "--site", "abdomen")
    trained = [record for record in load_records(root, ["polyps"]) if record.split == "train"]
    (external / "images" / "p2_1.png").write_bytes(b"another")
    code, out, _ = run(capsys, "check", str(root), "--json")
    *_, across = json.loads(out)
    assert code == 3 and across["dataset"] == "all together"
    assert {problem["kind"] for problem in across["problems"]} == {"leak between data sets"}
    named = {name for problem in across["problems"] for name in problem["files"] if name.startswith("polyps/")}
    stems = {Path(str(record.image)).name for record in trained} - {"p2_1.png"}
    assert named == {f"polyps/images/{stem}" for stem in stems}
    assert len(json.loads(run(capsys, "check", str(root), "--json", "--datasets", "polyps")[1])) == 1


def test_the_exit_code_of_check_with_errors(capsys: pytest.CaptureFixture[str], undescribed: Path) -> None:
    run(capsys, "add", str(undescribed))
    (undescribed / "masks" / "p1_1.png").write_bytes(b"broken")
    code, out, err = run(capsys, "check", str(undescribed))
    assert (code, err) == (3, "") and "unreadable mask" in out and "masks/p1_1.png" in out


def test_list_does_not_import_numpy() -> None:
    code = (
        "import sys, time; start = time.perf_counter(); from unibiomed.cli import main; main(['data', 'list']);"
        "print(time.perf_counter() - start, sorted({'torch', 'numpy', 'nibabel'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    seconds, modules = done.stderr.split(maxsplit=1)
    assert modules == "[]\n"
    assert float(seconds) < 2  # about 0.15 s on an idle machine


def test_build_warns_without_a_search_for_near_duplicates(capsys: pytest.CaptureFixture[str], root: Path) -> None:
    (root / "mine" / "images").mkdir()
    (root / "mine" / "masks").mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(root / "mine/images" / f"{number}.png")
        Image.fromarray(np.full((20, 20), 255 * (number > 0), np.uint8)).save(root / "mine/masks" / f"{number}.png")
    entry = root / "mine" / "dataset.toml"
    entry.write_text(entry.read_text() + '[[targets]]\nname = "liver"\nmasks = ["masks/{stem}.png"]\n')
    words = ("build", "--data", str(root), "--out", str(root / "shards"), "--workers", "1")
    code, out, err = run(capsys, *words)
    assert code == 0 and "3 records" in out
    assert "mine: not searched for near-duplicates" in err and f"check {root / 'mine'} --write-duplicates" in err
    assert run(capsys, "check", str(root / "mine"), "--write-duplicates")[0] == 0
    code, out, err = run(capsys, *words)
    assert code == 0 and err == ""
    # the folder of the data set itself is no folder of data sets
    code, out, err = run(capsys, "build", "--data", str(root / "mine"), "--out", str(root / "other"))
    assert code == 2 and "is a data set itself: give the folder above it" in err and err.count("\n") == 1
