from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from unibiomed.errors import OutputError
from unibiomed.findings import Interpretation
from unibiomed.interpret import demo
from unibiomed.interpret.demo import TARGETS, demo_file, run_demo


def test_the_image_is_there_and_is_a_real_photograph():
    with demo_file().open("rb") as file, Image.open(file) as picture:
        assert picture.format == "JPEG" and min(picture.size) > 500
        assert np.asarray(picture).std() > 20


def test_the_demo_asks_and_writes(interpreter, script, tmp_path):
    script.says = lambda question: "fundus" if "modality" in question else "It is [SEG]."
    out = tmp_path / "new" / "demo"
    segmented, asked = run_demo(interpreter, out)
    assert [f.label for f in segmented.findings] == list(TARGETS)
    assert asked.text == "fundus"
    assert sorted(p.name for p in out.iterdir()) == [
        "retina.jpg",
        "retina_1_retinal-vessel.png",
        "retina_findings.json",
        "retina_overlay.png",
    ]
    assert (out / "retina.jpg").read_bytes() == demo_file().read_bytes()
    again = Interpretation.from_dict(json.loads((out / "retina_findings.json").read_text()))
    assert again.findings == segmented.findings and again.image == "retina.jpg"
    assert script.questions[0] == "Please segment the retinal vessel in the fundus image."


def test_a_folder_that_cannot_be_written(interpreter, script, picture, monkeypatch, tmp_path):
    Image.fromarray(picture).save(tmp_path / "small.jpg")
    monkeypatch.setattr(demo, "demo_file", lambda: tmp_path / "small.jpg")
    script.says = lambda question: "It is [SEG]."
    (tmp_path / "file").write_text("here first")
    with pytest.raises(OutputError):
        run_demo(interpreter, tmp_path / "file")
    (tmp_path / "retina.jpg").mkdir()
    with pytest.raises(OutputError, match="cannot write"):
        run_demo(interpreter, tmp_path)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")], "no half-written copy is left"
