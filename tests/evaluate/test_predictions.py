from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unibiomed.errors import DataError, InputError
from unibiomed.evaluate.predictions import Prediction, PredictionStore

SAMPLE = "organs/test_0#segment/liver"
MASK = np.zeros((5, 7), dtype=bool)
MASK[1:3, 2:6] = True
WHOLE = Prediction.from_masks(SAMPLE, "It is [SEG].", ["liver"], [MASK], [0.25], [None], 1.5)


@pytest.fixture
def store(tmp_path):
    return PredictionStore(tmp_path / "predictions")


def keep(store, values) -> None:
    """Write a file that may be invalid."""
    path = store.path(SAMPLE)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(values if isinstance(values, str) else json.dumps(values))


def stored(store) -> dict:
    store.write(WHOLE)
    return json.loads(store.path(SAMPLE).read_text())


def test_round_trip(store):
    assert not store.has(SAMPLE)
    store.write(WHOLE)
    assert store.has(SAMPLE) and store.read(SAMPLE) == WHOLE
    assert np.array_equal(store.read(SAMPLE).decode((5, 7))[0], MASK)
    # no temporary file is left
    assert [path.name for path in store.folder.rglob("*") if path.is_file()] == [store.path(SAMPLE).name]
    assert store.unmatched_files({SAMPLE}) == [] and len(store.unmatched_files(set())) == 1


@settings(max_examples=40)
@given(
    masks=st.lists(st.integers(0, 2**20 - 1), max_size=3),
    text=st.text(max_size=20),
    score=st.none() | st.floats(0, 1),
    seconds=st.none() | st.floats(0, 1e6),
)
def test_any_prediction_round_trips(tmp_path_factory, masks, text, score, seconds):
    store = PredictionStore(tmp_path_factory.getbasetemp() / "any")
    arrays = [np.array([m >> i & 1 for i in range(20)], dtype=bool).reshape(4, 5) for m in masks]
    labels = [f"{text}{i}" for i in range(len(masks))]
    given_ = Prediction.from_masks(SAMPLE, text, labels, arrays, [score] * len(masks), [score] * len(masks), seconds)
    store.write(given_)
    found = store.read(SAMPLE)
    assert found == given_
    assert all(np.array_equal(a, b) for a, b in zip(found.decode((4, 5)), arrays, strict=True))


def test_numpy_scores_are_converted(store):
    store.write(Prediction.from_masks(SAMPLE, "", ["liver"], [MASK], [np.float32(0.5)], [np.float64(0.25)]))
    assert store.read(SAMPLE).scores == (0.5,) and store.read(SAMPLE).mask_scores == (0.25,)


def test_file_names(store):
    long = "x" * 400
    samples = [
        "organs/a#segment/liver",
        "organs/a#segment/left/right: lobe?",
        "organs/a#segment/Leber ü",
        "organs/../../escaped",
        "two words/a",
        f"organs/{long}1",
        f"organs/{long}2",
    ]
    paths = [store.path(sample) for sample in samples]
    assert len(set(paths)) == len(paths)
    for sample, path in zip(samples, paths, strict=True):
        assert path.parent.parent == store.folder and len(path.name) < 200
        store.write(Prediction(sample, "x"))
        assert store.read(sample).sample == sample
    assert len(store.unmatched_files(set())) == len(samples) and store.unmatched_files(set(samples)) == []


def test_failures_are_stored_and_repeated(store):
    store.write(Prediction.failed(SAMPLE, "out of\n  memory"))
    assert store.read(SAMPLE).error == "out of memory" and not store.has(SAMPLE)
    store.write(WHOLE)
    assert store.has(SAMPLE)
    assert Prediction.failed(SAMPLE, "").error == "unknown error"
    assert len(Prediction.failed(SAMPLE, "x" * 9999).error) == 300


def test_missing_prediction(store):
    with pytest.raises(DataError, match="no prediction"):
        store.read(SAMPLE)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[1]", "null", '"x"', "[" * 100_000, "\x00\x00"],
    ids=["empty", "cut", "list", "null", "text", "deep", "zeros"],
)
def test_broken_file_is_replaced(store, one_line, text):
    keep(store, text)
    assert not store.has(SAMPLE)
    with pytest.raises(DataError) as caught:
        store.read(SAMPLE)
    one_line(caught.value)
    store.write(WHOLE)
    assert store.read(SAMPLE) == WHOLE


def test_truncated_file_is_invalid(store):
    whole = json.dumps(stored(store))
    for length in range(0, len(whole) - 1, 7):
        keep(store, whole[:length])
        assert not store.has(SAMPLE)


@pytest.mark.parametrize("schema", [None, 0, 3, "1", [1]])
def test_unknown_schema_is_refused(store, schema):
    keep(store, stored(store) | {"schema": schema})
    with pytest.raises(DataError, match="not a prediction of schema 2"):
        store.read(SAMPLE)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sample", 1),
        ("text", None),
        ("labels", "liver"),
        ("labels", [1]),
        ("masks", ["x"]),
        ("scores", ["0.5"]),
        ("scores", [True]),
        ("mask_scores", {}),
        ("seconds", "1"),
        ("error", 1),
    ],
)
def test_fields_of_the_wrong_type_are_refused(store, field, value):
    keep(store, stored(store) | {field: value})
    with pytest.raises(DataError, match=f"'{field}' has the wrong type"):
        store.read(SAMPLE)


def test_missing_field_is_refused(store):
    values = stored(store)
    del values["scores"]
    keep(store, values)
    with pytest.raises(DataError, match="not a prediction"):
        store.read(SAMPLE)


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -0.1, 1.1])
def test_scores_are_probabilities(score):
    with pytest.raises(DataError, match=r"is not in \[0, 1\]"):
        Prediction(SAMPLE, scores=(score,))
    with pytest.raises(DataError, match=r"is not in \[0, 1\]"):
        Prediction(SAMPLE, mask_scores=(score,))


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -0.1, 1.1])
def test_invalid_score_fails_its_sample_only(store, score):
    for scores in ([score], [0.5, score]):
        made = Prediction.from_masks(SAMPLE, "", ["liver"], [MASK], *([s] for s in scores))
        assert made.error == f"score {score} is not in [0, 1]" and made.masks == ()
        store.write(made)
        assert store.read(SAMPLE) == made


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("field", ["scores", "seconds"])
def test_non_finite_numbers_are_refused_in_files(store, field, word):
    text = json.dumps(stored(store) | {field: "HERE" if field == "seconds" else ["HERE"]})
    keep(store, text.replace('"HERE"', word))
    with pytest.raises(DataError):
        store.read(SAMPLE)


def test_each_mask_has_a_label_and_scores(store):
    with pytest.raises(DataError, match="1 masks, but 2 labels"):
        Prediction.from_masks(SAMPLE, "", ["a", "b"], [MASK])
    with pytest.raises(DataError, match="2 masks, but 1 scores"):
        Prediction.from_masks(SAMPLE, "", ["a", "b"], [MASK, MASK], [0.5])
    keep(store, stored(store) | {"labels": []})
    with pytest.raises(DataError, match="1 masks, but 0 labels"):
        store.read(SAMPLE)


def test_mask_of_another_size(one_line):
    with pytest.raises(DataError, match="the mask is 7 x 5 pixels, the image 5 x 7") as caught:
        WHOLE.decode((7, 5))
    one_line(caught.value)


@pytest.mark.parametrize(
    "rle",
    [
        {},
        {"size": [5, 7]},
        {"size": 5, "counts": "1"},
        {"size": [5, 7], "counts": "12"},
        {"size": [[5], 7], "counts": ""},
    ],
)
def test_invalid_rle(store, rle):
    keep(store, stored(store) | {"masks": [rle]})
    with pytest.raises(DataError):
        store.read(SAMPLE).decode((5, 7))


def test_file_of_another_sample(store):
    keep(store, stored(store) | {"sample": "organs/other"})
    with pytest.raises(DataError, match="holds the prediction of 'organs/other'"):
        store.read(SAMPLE)


def test_prediction_of_another_question_is_invalid(store):
    store.write(replace(WHOLE, question_digest="first"))
    assert store.has(SAMPLE) and store.has(SAMPLE, "first") and not store.has(SAMPLE, "second")
    # older versions wrote no digest
    values = stored(store)
    del values["question_digest"]
    keep(store, values)
    assert store.has(SAMPLE, "second") and store.read(SAMPLE) == WHOLE
    keep(store, values | {"question_digest": 3})
    assert not store.has(SAMPLE)


def test_folder_belongs_to_one_model(store, one_line):
    store.register_model("m", "one", "a note")
    # there are no predictions yet
    store.register_model("m", "two")
    store.write(WHOLE)
    store.register_model("m", "two")
    with pytest.raises(InputError, match="predictions of another model named 'm': choose another --out") as caught:
        store.register_model("m", "three")
    one_line(caught.value)
    assert json.loads((store.folder / "model.json").read_text())["fingerprint"] == "two"
    assert store.unmatched_files({SAMPLE}) == []


@pytest.mark.parametrize("text", [None, "", "[]", "3", "{}", '{"fingerprint"'])
def test_folder_without_model_record(store, text):
    store.write(WHOLE)
    if text is not None:
        (store.folder / "model.json").write_text(text)
    store.register_model("m", "one")
    with pytest.raises(InputError):
        store.register_model("m", "two")


def test_schema_1_is_read(store):
    values = stored(store) | {"schema": 1, "asked": "question", "seen": "image"}
    keep(store, {k: v for k, v in values.items() if not k.endswith("_digest")})
    with pytest.warns(FutureWarning, match="prediction files of schema 1 is deprecated"):
        prediction = store.read(SAMPLE)
    assert prediction == WHOLE and (prediction.question_digest, prediction.image_digest) == ("question", "image")
    with pytest.warns(FutureWarning):
        assert store.has(SAMPLE, "question", "image")


def test_fingerprints_of_baselines_before_the_renaming(store):
    store.register_model("empty", "floor:empty")
    store.write(WHOLE)
    store.register_model("empty", "baseline:empty")
