from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unibiomed.evaluate.predictors import PredictorContext, fingerprint_of, make_predictor, source_digest_of
from unibiomed.evaluate.predictors.fingerprints import (
    clear_series_cache,
    files_digest,
    folder_fingerprint,
    image_contents,
)
from unibiomed.evaluate.record_selection import suite_records
from unibiomed.evaluate.suite import Suite
from unibiomed.interpret.interpreter import NANO


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_fingerprint_depends_on_file_contents(model, tmp_path):
    before = folder_fingerprint(model)
    copied = shutil.copytree(model, tmp_path / "copied")
    (copied / "training.log").write_text("loss 1")
    assert folder_fingerprint(copied) == before
    (model / "model.safetensors").write_bytes(b"WEIGHTS")
    trained = folder_fingerprint(model)
    (model / "config.json").write_text("{ }")
    assert len({before, trained, folder_fingerprint(model)}) == 3


def test_fingerprint_includes_chat_template_and_tokenizer(model):
    fingerprints = {folder_fingerprint(model)}
    for name in ("chat_template.json", "chat_template.jinja", "tokenizer.model", "card.json"):
        (model / name).write_text("{}")
        fingerprints.add(folder_fingerprint(model))
    assert len(fingerprints) == 5


def test_series_is_listed_once(tmp_path, monkeypatch, toy_training):
    folder = tmp_path / "series"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.dcm").write_bytes(bytes([number]))
    record = replace(toy_training()[0], image=folder)
    listed = []
    original = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: listed.append(self) or original(self))
    clear_series_cache()
    first = [image_contents(replace(record, slice_index=number)) for number in range(3)]
    assert len(set(first)) == 1 and listed == [folder]
    (folder / "1.dcm").write_bytes(b"another")
    clear_series_cache()
    assert image_contents(record) != first[0]


def test_files_digest_depends_on_times(model):
    before = files_digest(model)
    assert before == files_digest(model)
    (model / "more").mkdir()
    (model / "more" / "mask.png").write_bytes(b"")
    assert files_digest(model) != before


def test_baselines_depend_on_training_records(toy_training):
    few = [record for record in toy_training() if record.dataset == "organs"]
    for name in ("mean-shape", "most-frequent", "nearest-neighbor"):
        one, two, other = (
            make_predictor(f"baseline:{name}", PredictorContext(t)) for t in (toy_training, toy_training, lambda: few)
        )
        assert source_digest_of(one) == source_digest_of(two) != source_digest_of(other)
        assert fingerprint_of(one) == fingerprint_of(other) == f"baseline:{name}"
    empty = make_predictor("baseline:empty", PredictorContext(list))
    assert (source_digest_of(empty), fingerprint_of(empty)) == ("", "baseline:empty")


def test_baselines_depend_on_training_files(toy_root, tmp_path):
    root, suite = shutil.copytree(toy_root, tmp_path / "toy"), Suite("toy")

    def digest():
        return source_digest_of(
            make_predictor("baseline:nearest-neighbor", PredictorContext(lambda: suite_records(suite, root, "train")))
        )

    found = [digest(), digest()]
    mask = root / "organs" / "masks" / "train_0_liver.png"
    Image.fromarray(255 - np.asarray(Image.open(mask))).save(mask)
    found.append(digest())
    entry = root / "organs" / "dataset.toml"
    entry.write_text(entry.read_text().replace('"liver tumor"', '"liver cyst"'))
    found.append(digest())
    assert found[0] == found[1] and len(set(found)) == 3


def test_unibiomed_model_has_a_fingerprint(toy_training):
    made = make_predictor("nano", PredictorContext(toy_training, "cpu"))
    assert fingerprint_of(made) == folder_fingerprint(NANO) and source_digest_of(made) == ""
