"""Result files: their content, safe names, and an unchanged output folder after a failure."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from unibiomed.errors import InputError, OutputError
from unibiomed.export import draw_overlay, write_interpretation
from unibiomed.export.masks import slug
from unibiomed.findings import Finding, Interpretation

PIXELS = np.full((9, 12, 3), 100, dtype=np.uint8)


def example(*labels: str) -> Interpretation:
    found = []
    for number, label in enumerate(labels):
        mask = np.zeros(PIXELS.shape[:2], dtype=bool)
        mask[number : 2 * number, 2:5] = True
        found.append(Finding.from_mask(label, mask, presence=0.5))
    return Interpretation("segment", "Where?", "Here.", "Here [SEG].", tuple(found), *PIXELS.shape[:2])


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def test_the_files_of_an_interpretation(tmp_path: Path) -> None:
    result = example("spleen", "Liver tumor", "liver tumor")
    boxed = Finding("kidney", "kidney", box=(0, 0, 3, 3))
    result = Interpretation("segment", "Where?", "Here.", "", (*result.findings, boxed), 9, 12)
    paths = write_interpretation(tmp_path / "new" / "folder", PIXELS, result, stem="case 1.nii")
    assert {key: path.name for key, path in paths.items()} == {
        "overlay": "case 1.nii_overlay.png",
        "mask_1": "case 1.nii_1_spleen.png",
        "mask_2": "case 1.nii_2_liver-tumor.png",
        "mask_3": "case 1.nii_3_liver-tumor.png",
        "findings": "case 1.nii_findings.json",
    }
    assert {p.name for p in (tmp_path / "new" / "folder").iterdir()} == {p.name for p in paths.values()}
    for number in (1, 2, 3):
        with Image.open(paths[f"mask_{number}"]) as image:
            mask = np.asarray(image)
        assert mask.dtype == np.uint8 and mask.shape == (9, 12)
        assert np.array_equal(mask, result.findings[number - 1].mask.astype(np.uint8) * 255)  # type: ignore[union-attr]
    with Image.open(paths["overlay"]) as image:
        assert np.array_equal(np.asarray(image), np.asarray(draw_overlay(PIXELS, result)))
    document = json.loads(paths["findings"].read_text(encoding="utf-8"))
    assert Interpretation.from_dict(document) == result
    assert document["files"]["mask_2"] == "case 1.nii_2_liver-tumor.png"


def test_writing_again_replaces_files(tmp_path: Path) -> None:
    write_interpretation(tmp_path, PIXELS, example("a"), stem="x")
    paths = write_interpretation(tmp_path, PIXELS, example("a", "b"), stem="x")
    assert Interpretation.from_dict(json.loads(paths["findings"].read_text())) == example("a", "b")
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize(
    "label", ["../../x", "", "/etc/passwd", "a" * 300, "肝臓", "..", "con\x00\n", "\ud800", "C:\\x"]
)
def test_labels_cannot_lead_out_of_the_folder(tmp_path: Path, label: str) -> None:
    folder = tmp_path / "a" / "b"
    paths = write_interpretation(folder, PIXELS, example(label, label), stem="x")
    assert all(path.parent == folder and path.is_file() for path in paths.values())
    assert len(snapshot(tmp_path)) == 2 + len(paths) == 6


@given(st.text())
def test_slugs_are_safe_file_names(label: str) -> None:
    part = slug(label)
    assert 1 <= len(part) <= 40 and part.strip("-") == part
    assert set(part) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_slugs_keep_letters() -> None:
    assert [slug("Leber-Läsion (links)"), slug("../../x"), slug("  "), slug("肝")] == [
        "leber-lasion-links",
        "x",
        "finding",
        "finding",
    ]


@pytest.mark.parametrize("stem", ["", ".", "..", "../x", "a/b", "a\\b", "a\x00b", "a\nb", "C:x"])
def test_an_invalid_stem_is_refused(tmp_path: Path, stem: str) -> None:
    with pytest.raises(InputError):
        write_interpretation(tmp_path, PIXELS, example("a"), stem=stem)
    assert not snapshot(tmp_path)


def test_an_image_of_another_size_is_refused_before_writing(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        write_interpretation(tmp_path / "new", PIXELS[:5], example("a"), stem="x")
    assert not snapshot(tmp_path)


def fails(folder: Path, stem: str = "x") -> str:
    """Write to an unusable folder; return the message, which must be one line."""
    with pytest.raises(OutputError) as caught:
        write_interpretation(folder, PIXELS, example("a", "b"), stem=stem)
    message = str(caught.value)
    assert message.startswith("cannot write results to ") and len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize("inner", ["file", "file/below", "y" * 300, "new/" + "y" * 300, "nul\x00", "\ud800"])
def test_a_folder_that_cannot_be_created(tmp_path: Path, inner: str) -> None:
    (tmp_path / "file").write_text("mine")
    fails(tmp_path / inner)
    assert snapshot(tmp_path) == {"file": b"mine"}


def test_a_path_that_is_too_long(tmp_path: Path) -> None:
    fails(tmp_path / "new" / "/".join(["long" * 20] * 80))
    assert not snapshot(tmp_path)
    assert "too long" in fails(tmp_path / "new", stem="s" * 250)
    assert not snapshot(tmp_path)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        assert "Permission denied" in fails(tmp_path)
    finally:
        tmp_path.chmod(0o700)


def test_a_folder_with_the_name_of_an_output_file(tmp_path: Path) -> None:
    write_interpretation(tmp_path, PIXELS, example("old"), stem="x")
    (tmp_path / "x_findings.json").unlink()
    (tmp_path / "x_findings.json").mkdir()
    before = snapshot(tmp_path)
    assert "a folder has the name" in fails(tmp_path)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("call", ["mkdtemp", "fsync", "copy2"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EACCES])
def test_a_disk_error_leaves_the_folder_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    write_interpretation(tmp_path, PIXELS, example("old"), stem="x")
    before = snapshot(tmp_path)

    def broken(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    module = {"mkdtemp": "tempfile", "fsync": "os", "copy2": "shutil"}[call]
    monkeypatch.setattr(f"unibiomed.export.masks.{module}.{call}", broken)
    assert os.strerror(code) in fails(tmp_path)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("error", [OSError(errno.EIO, "I/O error"), KeyboardInterrupt()])
@pytest.mark.parametrize("moves", [0, 1, 2, 3])
def test_a_failed_move_is_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moves: int, error: BaseException
) -> None:
    write_interpretation(tmp_path, PIXELS, example("a"), stem="x")
    before = snapshot(tmp_path)
    replace, calls = os.replace, iter(range(1000))

    def fragile(source: Any, target: Any) -> None:
        if next(calls) == moves:
            raise error
        replace(source, target)

    monkeypatch.setattr("unibiomed.export.masks.os.replace", fragile)
    with pytest.raises(OutputError if isinstance(error, OSError) else KeyboardInterrupt):
        write_interpretation(tmp_path, PIXELS, example("b", "c"), stem="x")
    assert snapshot(tmp_path) == before


def test_a_failure_removes_the_folders_it_created(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("unibiomed.export.masks.os.fsync", broken)
    fails(tmp_path / "a" / "b")
    assert not snapshot(tmp_path)
