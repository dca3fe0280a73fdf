"""Findings: agreement with pycocotools, JSON round trips, and invalid input, which always raises InputError."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco

from unibiomed.errors import InputError
from unibiomed.findings import Finding, Interpretation, mask_box, rle_decode, rle_encode

# pycocotools warns with numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

MASKS = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40))
SCORES = st.none() | st.floats(0, 1)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@st.composite
def interpretations(draw: st.DrawFn) -> Interpretation:
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    spacing = draw(st.none() | st.tuples(st.floats(0.01, 50), st.floats(0.01, 50)))
    masked = st.builds(
        lambda label, mask, phrase, presence, iou: Finding.from_mask(
            label, mask, phrase=phrase, presence=presence, mask_score=iou, spacing=spacing
        ),
        st.text(),
        hnp.arrays(bool, (height, width)),
        st.none() | st.text(),
        SCORES,
        SCORES,
    )
    boxed = st.builds(Finding, label=st.text(), phrase=st.text(), confidence=SCORES, box=st.just((0, 0, width, height)))
    odds = draw(st.lists(st.floats(0, 1), max_size=4))
    return Interpretation(
        task=draw(st.text()),
        question=draw(st.text()),
        text=draw(st.text()),
        raw_text=draw(st.text()),
        findings=tuple(draw(st.lists(masked | boxed, max_size=3))),
        height=height,
        width=width,
        spacing=spacing,
        image=draw(st.text()),
        model=draw(st.text()),
        token_probabilities=tuple(odds),
        tokens=tuple("t" for _ in odds),
        seconds=draw(st.floats(0, 1e6)),
        notes=tuple(draw(st.lists(st.text(), max_size=2))),
    )


def example() -> dict[str, Any]:
    mask = np.zeros((6, 8), dtype=bool)
    mask[1:4, 2:7] = True
    finding = Finding.from_mask("liver", mask, presence=0.9, mask_score=0.8, spacing=(2.0, 0.5))
    absent = Finding.from_mask("spleen", np.zeros((6, 8), dtype=bool), presence=0.1, spacing=(2.0, 0.5))
    return Interpretation(
        task="segment",
        question="Where is the liver?",
        text="It is here.",
        raw_text="It is [SEG].",
        findings=(finding, absent),
        height=6,
        width=8,
        spacing=(2.0, 0.5),
        tokens=("It", " is"),
        token_probabilities=(0.5, 1.0),
    ).to_dict()


def test_from_mask_computes_box_and_areas() -> None:
    mask = np.zeros((10, 20), dtype=np.uint8)
    mask[2:5, 4:14] = 255
    finding = Finding.from_mask("liver", mask, presence=np.float32(0.5), spacing=(2.0, 0.5))  # type: ignore[arg-type]
    assert finding.box == (4, 2, 14, 5)
    assert finding.area_fraction == pytest.approx(30 / 200)
    assert finding.area_mm2 == pytest.approx(30.0)
    assert finding.present is True and finding.phrase == "liver" and type(finding.presence) is float


def test_an_empty_mask_means_absent() -> None:
    finding = Finding.from_mask("liver", np.zeros((3, 4), dtype=bool), spacing=(1.0, 1.0))
    assert (finding.present, finding.box, finding.area_fraction, finding.area_mm2) == (False, None, 0.0, 0.0)


def test_the_mask_is_a_read_only_copy() -> None:
    mask = np.ones((3, 4), dtype=bool)
    finding = Finding.from_mask("liver", mask)
    mask[:] = False
    assert finding.mask is not None and finding.mask.all()
    with pytest.raises(ValueError, match="read-only"):
        finding.mask[0, 0] = False


@pytest.mark.parametrize(
    "wrong",
    [
        {"box": (0, 0, 1, 1)},
        {"area_fraction": 0.5},
        {"present": False},
        {"presence": float("nan")},
        {"presence": 1.5},
        {"confidence": True},
        {"label": 3},
    ],
)
def test_an_inconsistent_finding_is_refused(wrong: dict[str, Any]) -> None:
    right: dict[str, Any] = {
        "label": "a",
        "phrase": "a",
        "mask": np.ones((2, 2), dtype=bool),
        "box": (0, 0, 2, 2),
        "area_fraction": 1,
    }
    assert Finding(**right).present
    with pytest.raises(InputError):
        Finding(**{**right, **wrong})


@pytest.mark.parametrize("mask", [np.ones((2, 2, 2), bool), np.ones((2, 2)), np.ones((0, 3), bool), [[True]]])
def test_an_invalid_mask_is_refused(mask: Any) -> None:
    with pytest.raises(InputError):
        Finding.from_mask("liver", mask)


@pytest.mark.parametrize("spacing", [(0.0, 1.0), (-1.0, 1.0), (float("nan"), 1.0), (1.0,), "ab", 3])
def test_an_invalid_spacing_is_refused(spacing: Any) -> None:
    with pytest.raises(InputError, match="spacing"):
        Finding.from_mask("liver", np.ones((2, 2), dtype=bool), spacing=spacing)


@given(MASKS)
def test_run_lengths_agree_with_pycocotools(mask: np.ndarray) -> None:
    theirs = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    ours = rle_encode(mask)
    assert ours == {"size": list(mask.shape), "counts": theirs["counts"].decode()}
    assert np.array_equal(rle_decode(theirs), mask)
    assert np.array_equal(rle_decode(json.loads(json.dumps(ours))), mask)
    x, y, width, height = coco.toBbox(theirs)
    assert mask_box(mask) == ((x, y, x + width, y + height) if mask.any() else None)


def test_run_lengths_of_long_runs_agree_with_pycocotools() -> None:
    mask = np.zeros((3000, 2500), dtype=bool)
    mask[:, 1200:2400] = True
    mask[17, 30:2000:7] = True
    assert np.array_equal(rle_decode(rle_encode(mask)), coco.decode(rle_encode(mask)).astype(bool))
    assert np.array_equal(rle_decode(rle_encode(mask)), mask)


@given(st.integers(1, 9), st.integers(1, 9), st.text(st.characters(min_codepoint=40, max_codepoint=120)))
def test_damaged_run_lengths_are_refused_or_sum_to_the_size(height: int, width: int, counts: str) -> None:
    try:
        mask = rle_decode({"size": [height, width], "counts": counts})
    except InputError:
        return
    assert mask.shape == (height, width)
    assert np.array_equal(mask, coco.decode({"size": [height, width], "counts": counts.encode()}).astype(bool))


@pytest.mark.parametrize(
    "rle",
    [
        None,
        {},
        {"size": [2, 2]},
        {"size": [2, 2], "counts": ""},
        {"size": [2, 2], "counts": [4]},
        {"size": [2, 2], "counts": "5"},
        {"size": [2, 2], "counts": "é"},
        {"size": [2, 2], "counts": "oooooooooooo0"},
        {"size": [2, -2], "counts": "4"},
        {"size": [2.0, 2], "counts": "4"},
        {"size": [True, 4], "counts": "4"},
        {"size": [10**9, 10**9], "counts": "4"},
        {"size": [10**400, 1], "counts": "4"},
    ],
)
def test_invalid_run_lengths_are_refused(rle: Any) -> None:
    with pytest.raises(InputError):
        rle_decode(rle)


@settings(max_examples=60)
@given(interpretations())
def test_json_round_trip_of_an_interpretation(interpretation: Interpretation) -> None:
    text = json.dumps(interpretation.to_dict(), allow_nan=False)
    again = Interpretation.from_dict(json.loads(text))
    assert again == interpretation
    assert hash(again) == hash(interpretation)
    for ours, theirs in zip(again.findings, interpretation.findings, strict=True):
        assert (ours.mask is None) == (theirs.mask is None)
        assert ours.mask is None or np.array_equal(ours.mask, theirs.mask)  # type: ignore[arg-type]


def test_a_file_of_schema_1_is_read() -> None:
    data = example()
    old = {**data, "schema": 1, "searched": [{"label": "liver", "score": 0.9}]}
    name = {"label": "polyp", "phrase": "polyp", "score": 0.7, "box": [0, 0, 2, 2]}
    old["findings"] = [*({**one, "score": one["presence"]} for one in data["findings"]), name]
    for finding in old["findings"]:
        finding.pop("presence", None), finding.pop("confidence", None)
    read = Interpretation.from_dict(json.loads(json.dumps(old)))
    assert [(f.presence, f.confidence) for f in read.findings] == [(0.9, None), (0.1, None), (None, 0.7)]
    assert read.searched[0].presence == 0.9
    assert Interpretation.from_dict(read.to_dict()) == read and read.to_dict()["schema"] == 2


def test_the_old_name_of_the_score_warns() -> None:
    masked = Finding.from_mask("liver", np.ones((2, 2), dtype=bool), presence=0.9)
    for finding, score in ((masked, 0.9), (Finding("polyp", "polyp", confidence=0.7), 0.7)):
        with pytest.warns(DeprecationWarning, match="use presence"):
            assert finding.score == score


def test_interpretations_with_different_masks_are_not_equal() -> None:
    one, two = example(), example()
    two["findings"][0] = Finding.from_mask("liver", np.eye(6, 8, dtype=bool))._to_dict()
    assert Interpretation.from_dict(one) != Interpretation.from_dict(two)
    flipped = Finding.from_mask("a", np.array([[1, 0, 1], [0, 1, 1]]))
    assert flipped != Finding.from_mask("a", np.array([[1, 1, 0], [1, 0, 1]]))


def test_unknown_keys_are_ignored_and_optional_keys_may_be_missing() -> None:
    data = {**example(), "files": {}, "later": 1}
    for name in ("tokens", "token_probabilities", "seconds", "notes", "model", "image"):
        del data[name]
    assert Interpretation.from_dict(data).tokens == ()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("schema",), 0),
        (("schema",), 3),
        (("schema",), True),
        (("height",), 7),
        (("height",), 10**30),
        (("height",), 0),
        (("width",), "8"),
        (("width",), None),
        (("spacing",), [1.0, 2.0]),
        (("spacing",), [0, 1]),
        (("seconds",), float("nan")),
        (("seconds",), -1),
        (("seconds",), 10**400),
        (("text",), None),
        (("question",), ["a"]),
        (("tokens",), ["It"]),
        (("tokens",), "It"),
        (("token_probabilities",), [0.5, float("inf")]),
        (("notes",), "note"),
        (("notes",), [1]),
        (("findings",), {}),
        (("findings",), [None]),
        (("findings",), [{}]),
        (("findings",), [{"label": "a", "phrase": "a"}] * 1001),
        (("findings", 0, "label"), 1),
        (("findings", 0, "presence"), float("nan")),
        (("findings", 0, "confidence"), "0.9"),
        (("findings", 0, "mask_score"), -0.1),
        (("findings", 0, "area_mm2"), float("inf")),
        (("findings", 0, "area_fraction"), None),
        (("findings", 0, "box"), [2, 1, 7]),
        (("findings", 0, "box"), [2, 1, 7.0, 4]),
        (("findings", 0, "box"), [0, 0, 8, 6]),
        (("findings", 0, "present"), "yes"),
        (("findings", 0, "mask"), "text"),
        (("findings", 0, "mask", "size"), [8, 6]),
        (("findings", 0, "mask", "size"), [2**40, 2**40]),
        (("findings", 0, "mask", "counts"), "00"),
        (("findings", 0, "mask", "counts"), None),
    ],
)
def test_an_invalid_value_in_a_file_raises_a_one_line_input_error(path: tuple[Any, ...], value: object) -> None:
    data = example()
    assert Interpretation.from_dict(data)
    place: Any = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(InputError) as caught:
        Interpretation.from_dict(data)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


def test_too_many_masks_are_refused_before_decoding() -> None:
    data = example()
    data["height"] = data["width"] = 10_000
    giant = {"size": [10_000, 10_000], "counts": rle_encode(np.zeros((100, 100), bool))["counts"]}
    data["findings"] = [{**data["findings"][1], "mask": giant}] * 11
    with pytest.raises(InputError, match="too large"):
        Interpretation.from_dict(data)


@pytest.mark.parametrize("name", ["schema", "task", "question", "text", "raw_text", "findings", "height", "width"])
def test_a_missing_value_is_refused(name: str) -> None:
    data = example()
    del data[name]
    with pytest.raises(InputError):
        Interpretation.from_dict(data)


@settings(max_examples=300)
@given(st.data())
def test_random_json_in_any_field_is_read_or_refused(data: st.DataObject) -> None:
    document = example()
    target: Any = data.draw(st.sampled_from([document, document["findings"][0], document["findings"][0]["mask"]]))
    target[data.draw(st.sampled_from(sorted(target)))] = data.draw(JSON)
    try:
        again = Interpretation.from_dict(document)
    except InputError:
        return
    assert Interpretation.from_dict(again.to_dict()) == again


@given(JSON)
def test_random_json_documents_are_refused(document: object) -> None:
    with pytest.raises(InputError):
        Interpretation.from_dict(document)
