from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unibiomed.errors import InputError, OutputError
from unibiomed.interpret import Interpreter
from unibiomed.interpret.batch import BatchItem, check_output, interpret_batch, unique


@pytest.fixture
def paths(picture, tmp_path) -> list[str]:
    """A picture, a broken one, one of the same name in another folder, and one that is not there."""
    (tmp_path / "other").mkdir()
    for name in ("eye.png", "other/eye.png"):
        Image.fromarray(picture).save(tmp_path / name)
    (tmp_path / "broken.png").write_bytes((tmp_path / "eye.png").read_bytes()[:500])
    return [str(tmp_path / name) for name in ("eye.png", "broken.png", "other/eye.png", "missing.png")]


def test_the_others_still_run(interpreter, script, paths, tmp_path):
    script.says = ["It is [SEG]."]
    items = list(interpret_batch(interpreter, paths, tmp_path / "out", targets=["liver"]))
    assert [item.path for item in items] == paths
    assert [item.result is not None for item in items] == [True, False, True, False]
    assert [item.error is not None for item in items] == [False, True, False, True]
    assert isinstance(items[1].error, InputError) and "truncated" in items[1].problem
    assert items[1].problem.startswith(f"{paths[1]}: ") and items[3].problem.startswith(f"{paths[3]}: no such file")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        f"{stem}{end}" for stem in ("eye", "eye-2") for end in ("_overlay.png", "_1_liver.png", "_findings.json")
    }
    assert items[2].files["findings"].name == "eye-2_findings.json"


def test_results_of_another_picture_stay_and_those_of_the_same_are_replaced(interpreter, script, picture, tmp_path):
    out, script.says = tmp_path / "out", ["It is [SEG]."]
    for name, pixels in (("a/eye.png", picture), ("b/eye.png", 255 - picture)):
        (tmp_path / name).parent.mkdir()
        Image.fromarray(pixels).save(tmp_path / name)
        list(interpret_batch(interpreter, [str(tmp_path / name)], out, targets=["liver"]))
    ends = ("_overlay.png", "_1_liver.png", "_findings.json")
    assert {path.name for path in out.iterdir()} == {f"{stem}{end}" for stem in ("eye", "eye-2") for end in ends}
    # asked for something else, the first leaves no mask of what was asked before
    (out / "eye_1_mine.txt").write_text("of a user")
    list(interpret_batch(interpreter, [str(tmp_path / "a/eye.png")], out, targets=["spleen"]))
    assert {path.name for path in out.iterdir() if not path.name.startswith("eye-2")} == {
        "eye_overlay.png",
        "eye_1_spleen.png",
        "eye_findings.json",
        "eye_1_mine.txt",
    }


def test_a_findings_file_names_no_other_files_to_take_away(interpreter, script, picture, tmp_path):
    out, script.says = tmp_path / "out", ["It is [SEG]."]
    (item,) = interpret_batch(interpreter, _one(picture, tmp_path), out, targets=["liver"])
    path = item.files["findings"]
    document = json.loads(path.read_text())
    (tmp_path / "precious.png").write_bytes(b"x")
    (out / "eye_notes.png").write_bytes(b"x")
    document["files"] |= {"mask_2": "../precious.png", "mask_3": "eye_notes.png", "mask_4": 5}
    path.write_text(json.dumps(document))
    list(interpret_batch(interpreter, _one(picture, tmp_path), out, targets=["spleen"]))
    assert (tmp_path / "precious.png").exists() and (out / "eye_notes.png").exists()
    assert not (out / "eye_1_liver.png").exists()


def _one(picture: np.ndarray, folder: Path) -> list[str]:
    Image.fromarray(picture).save(folder / "eye.png")
    return [str(folder / "eye.png")]


def test_it_works_one_by_one(interpreter, script, paths):
    items = interpret_batch(interpreter, paths)
    assert script.questions == []
    first = next(items)
    assert first.files is None and len(script.questions) == 1, "nothing is read ahead of who asks"


def test_a_result_that_cannot_be_written_is_that_images_error(interpreter, script, paths, tmp_path):
    (tmp_path / "out").write_text("a file")
    items = list(interpret_batch(interpreter, paths[:1], tmp_path / "out"))
    assert isinstance(items[0].error, OutputError) and items[0].result is None


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_memory_is_an_images_own_error(interpreter, paths, monkeypatch, error):
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Interpreter, "interpret", fail)
    (item,) = interpret_batch(interpreter, paths[:1])
    assert "memory" in item.problem and "shrink the image" in item.problem


def test_our_own_mistakes_are_not_hidden(interpreter, paths, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(Interpreter, "interpret", fail)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        list(interpret_batch(interpreter, paths[:1]))


def test_a_progress_bar_only_when_wanted(interpreter, script, paths, capfd):
    list(interpret_batch(interpreter, paths[:1]))
    assert capfd.readouterr() == ("", "")
    list(interpret_batch(interpreter, paths[:1], progress=True))
    captured = capfd.readouterr()
    assert captured.out == "" and "interpreting" in captured.err


def test_problem_names_the_file_once():
    item = BatchItem("a/b.png", error=InputError("b.png: the file is empty: copy it again"))
    assert item.problem == "a/b.png: the file is empty: copy it again"
    item = BatchItem("a/b.png", error=InputError("the box extends outside"))
    assert item.problem == "a/b.png: the box extends outside"


def test_unique_names():
    taken: set[str] = set()
    assert [unique(name, taken) for name in ("a", "a", "A", "a-2", "b")] == ["a", "a-2", "A-3", "a-2-2", "b"]


def test_check_output_leaves_nothing_behind(tmp_path):
    check_output(tmp_path / "new" / "deep")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "kept").write_text("x")
    check_output(tmp_path / "there")
    assert [p.name for p in (tmp_path / "there").iterdir()] == ["kept"]


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/unibiomed"])
def test_a_folder_that_cannot_be_made(tmp_path, place):
    (tmp_path / "file").write_text("here first")
    if place.startswith("/") and not Path("/proc").is_dir():
        pytest.skip("no /proc here")
    with pytest.raises(OutputError, match="choose another folder with --out") as caught:
        check_output(tmp_path / place)
    assert "\n" not in str(caught.value) and (tmp_path / "file").read_text() == "here first"


def test_findings_of_a_batch_can_be_read_back(interpreter, script, paths, tmp_path):
    script.says = ["No findings."]
    (item,) = interpret_batch(interpreter, paths[:1], tmp_path / "out")
    document = json.loads(item.files["findings"].read_text())
    assert document["image"] == str(paths[0]) and document["findings"][0]["label"] == "No findings"
    assert np.asarray(Image.open(item.files["mask_1"])).shape == (61, 97)


def test_two_files_of_one_name_are_told_apart_in_every_output(interpreter, script, tmp_path):
    script.says = ["No findings."]
    given = []
    for number, folder in enumerate(("P0", "P1", "P2")):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "IM0001"
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(path, "PNG")
        given.append(str(path))
    (tmp_path / "P0" / "IM0001").write_bytes(b"no image")
    items = list(interpret_batch(interpreter, given, tmp_path / "out"))
    assert items[0].result is None and items[0].problem.startswith(f"{given[0]}: ")
    for item, path in zip(items[1:], given[1:], strict=True):
        assert item.path == path == item.result.image == item.result.to_dict()["image"]
        assert json.loads(item.files["findings"].read_text())["image"] == path
    assert [item.files["overlay"].name for item in items[1:]] == ["IM0001_overlay.png", "IM0001-2_overlay.png"]
