from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from unibiomed.errors import OutputError
from unibiomed.findings import Interpretation
from unibiomed.interpret.result import default_stem


@pytest.fixture
def result(interpreter, script, picture):
    script.says = ["It is [SEG].", "It is [SEG]."]
    script.presence = [4.0, -4.0]
    return interpreter.interpret(picture, targets=["optic disc", "optic cup"])


def test_save_writes_picture_masks_and_findings(result, tmp_path):
    files = result.save(tmp_path / "deep" / "out", "eye")
    assert {key: path.name for key, path in files.items()} == {
        "overlay": "eye_overlay.png",
        "mask_1": "eye_1_optic-disc.png",
        "mask_2": "eye_2_optic-cup.png",
        "findings": "eye_findings.json",
    }
    assert sorted(p.name for p in (tmp_path / "deep" / "out").iterdir()) == sorted(p.name for p in files.values())
    for key, finding in zip(("mask_1", "mask_2"), result.findings, strict=True):
        mask = np.asarray(Image.open(files[key]))
        assert mask.shape == (61, 97) and mask.dtype == np.uint8
        assert np.array_equal(mask, finding.mask * np.uint8(255))
    assert not np.asarray(Image.open(files["mask_2"])).any()
    again = Interpretation.from_dict(json.loads(files["findings"].read_text()))
    assert again.findings == result.findings and again.text == result.text
    assert Image.open(files["overlay"]).width >= 97


def test_the_overlay_shows_the_mask_and_leaves_the_image_alone(result):
    before = result.pixels.copy()
    overlay = result.overlay()
    assert isinstance(overlay, Image.Image) and overlay.height > result.height
    assert np.array_equal(result.pixels, before)
    assert "optic disc" in result.table() and "not found" in result.table()


def test_without_a_stem_the_images_name_is_used(result, tmp_path):
    assert result.save(tmp_path)["findings"].name == "array_findings.json"


def test_a_folder_that_cannot_be_written(result, tmp_path):
    (tmp_path / "file").write_text("here first")
    with pytest.raises(OutputError):
        result.save(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "here first" and len(list(tmp_path.iterdir())) == 1


def test_a_result_is_equal_to_itself_read_back(result):
    plain = result.to_dict()
    assert "pixels" not in plain and json.loads(json.dumps(plain)) == plain
    with pytest.raises(AttributeError):
        result.text = "changed"


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("scan.png", "scan"),
        ("a/b/Scan.JPEG", "Scan"),
        ("volume.nii.gz", "volume"),
        ("VOLUME.NII.GZ", "VOLUME"),
        ("ct.DCM", "ct"),
        ("1.2.840.10008.5", "1.2.840.10008.5"),
        ("with space & sign?.tif", "with_space___sign"),
        ("größe.bmp", "größe"),
        (".png", "png"),
        ("...", "image"),
        ("", "image"),
    ],
)
def test_stems(name, stem):
    assert default_stem(name) == stem


@given(st.text(max_size=400))
def test_any_stem_can_begin_a_file_name(name):
    stem = default_stem(name)
    assert stem and len(stem.encode()) <= 120
    assert stem.isprintable() and not set(stem) & set('/\\:*?"<>| ') and not stem.startswith(".")
