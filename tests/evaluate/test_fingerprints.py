from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unibiomed.evaluate.predictors import PredictorContext, source_digest_of, fingerprint_of, make_predictor
from unibiomed.evaluate.predictors.fingerprints import (
    files_digest,
    folder_fingerprint,
    forget_series,
    image_contents,
)
from unibiomed.evaluate.samples import suite_records
from unibiomed.evaluate.suite import Suite
from unibiomed.interpret.interpreter import NANO


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_a_model_is_known_by_what_is_in_its_files(model, tmp_path):
    before = folder_fingerprint(model)
    copied = shutil.copytree(model, tmp_path / "copied")
    (copied / "training.log").write_text("loss 1")
    assert folder_fingerprint(copied) == before
    (model / "model.safetensors").write_bytes(b"WEIGHTS")
    trained = folder_fingerprint(model)
    (model / "config.json").write_text("{ }")
    assert len({before, trained, folder_fingerprint(model)}) == 3


def test_the_template_and_the_tokens_of_a_model_belong_to_it(model):
    seen = {folder_fingerprint(model)}
    for name in ("chat_template.json", "chat_template.jinja", "tokenizer.model", "card.json"):
        (model / name).write_text("{}")
        seen.add(folder_fingerprint(model))
    assert len(seen) == 5


def test_a_series_is_listed_once_in_a_run(tmp_path, monkeypatch, toy_training):
    folder = tmp_path / "series"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.dcm").write_bytes(bytes([number]))
    record = replace(toy_training()[0], image=folder)
    listed = []
    own = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: listed.append(self) or own(self))
    forget_series()
    first = [image_contents(replace(record, slice_index=number)) for number in range(3)]
    assert len(set(first)) == 1 and listed == [folder]
    (folder / "1.dcm").write_bytes(b"another")
    forget_series()
    assert image_contents(record) != first[0]


def test_files_that_are_read_are_known_by_their_times(model):
    before = files_digest(model)
    assert before == files_digest(model)
    (model / "more").mkdir()
    (model / "more" / "mask.png").write_bytes(b"")
    assert files_digest(model) != before


def test_floors_are_known_by_what_they_learned_from(toy_training):
    few = [record for record in toy_training() if record.dataset == "organs"]
    for name in ("mean-shape", "commonest", "nearest"):
        one, two, other = (
            make_predictor(f"floor:{name}", PredictorContext(t)) for t in (toy_training, toy_training, lambda: few)
        )
        assert source_digest_of(one) == source_digest_of(two) != source_digest_of(other)
        assert fingerprint_of(one) == fingerprint_of(other) == f"floor:{name}"
    empty = make_predictor("floor:empty", PredictorContext(list))
    assert (source_digest_of(empty), fingerprint_of(empty)) == ("", "floor:empty")


def test_floors_are_known_by_the_files_that_they_learned_from(toy_root, tmp_path):
    root, suite = shutil.copytree(toy_root, tmp_path / "toy"), Suite("toy")

    def edition():
        return source_digest_of(make_predictor("floor:nearest", PredictorContext(lambda: suite_records(suite, root, "train"))))

    found = [edition(), edition()]
    mask = root / "organs" / "masks" / "train_0_liver.png"
    Image.fromarray(255 - np.asarray(Image.open(mask))).save(mask)
    found.append(edition())
    entry = root / "organs" / "dataset.toml"
    entry.write_text(entry.read_text().replace('"liver tumor"', '"liver cyst"'))
    found.append(edition())
    assert found[0] == found[1] and len(set(found)) == 3


def test_the_model_of_this_package_says_which_it_is(toy_training):
    made = make_predictor("nano", PredictorContext(toy_training, "cpu"))
    assert fingerprint_of(made) == folder_fingerprint(NANO) and source_digest_of(made) == ""
