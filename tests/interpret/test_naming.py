"""What a drawn box holds: the model's words weighed with how well its own masks fit the box."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unibiomed.interpret.naming import FIT_WEIGHT, Named, box_fit, name_answers, rank_names
from unibiomed.interpret.taught import Taught
from unibiomed.model.generation import Answer
from unibiomed.model.processing import END

HEART = {"left ventricle in heart MRI": "left ventricle", "myocardium in heart MRI": "myocardium"}
SPAN = st.tuples(st.integers(0, 19), st.integers(1, 20)).map(lambda s: (s[0], min(20, s[0] + s[1])))
BOX = st.tuples(SPAN, SPAN).map(lambda s: (s[0][0], s[1][0], s[0][1], s[1][1]))


def filled(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros((20, 20), bool)
    for x0, y0, x1, y1 in boxes:
        mask[y0:y1, x0:x1] = True
    return mask


def said(text: str, probability: float) -> Answer:
    return Answer([1], text + END, [probability], finished=True)


# ---------------------------------------------------------------- fit


@given(BOX, BOX)
def test_the_fit_of_one_part_is_the_iou_of_two_boxes(own: tuple[int, ...], drawn: tuple[int, ...]) -> None:
    one, other = filled(own), filled(drawn)  # type: ignore[arg-type]
    wanted = np.count_nonzero(one & other) / np.count_nonzero(one | other)
    assert box_fit(one, drawn) == pytest.approx(wanted)
    assert box_fit(other, own) == pytest.approx(wanted)


def test_a_box_may_be_that_of_a_part_or_of_all_parts() -> None:
    mask = filled((1, 1, 5, 5), (10, 12, 18, 19))
    assert box_fit(mask, (1, 1, 5, 5)) == box_fit(mask, (10, 12, 18, 19)) == box_fit(mask, (1, 1, 18, 19)) == 1.0
    assert 0 < box_fit(mask, (1, 1, 6, 6)) < 1 and box_fit(mask, (6, 6, 9, 9)) < 0.1
    assert box_fit(np.zeros((20, 20), bool), (0, 0, 20, 20)) == 0.0


# ---------------------------------------------------------------- names


def test_masks_decide_where_words_are_in_doubt() -> None:
    words = [said(name, p) for name, p in zip(HEART, (0.6, 0.4), strict=True)]
    own = words[0]

    def first(**fits: float) -> Named:
        return rank_names(own, words, HEART, {name.replace("_", " "): fit for name, fit in fits.items()})[0]

    assert first().target == "left ventricle" and first().probability == pytest.approx(0.6)
    assert first(left_ventricle=0.9, myocardium=0.9).target == "left ventricle"
    assert first(left_ventricle=0.4, myocardium=0.9).target == "myocardium"
    # as odds: words times e to the weighted fit
    odds = 0.4 * math.exp(FIT_WEIGHT * 0.9), 0.6 * math.exp(FIT_WEIGHT * 0.4)
    assert first(left_ventricle=0.4, myocardium=0.9).probability == pytest.approx(odds[0] / sum(odds))


def test_words_of_the_models_own_are_a_candidate_without_a_mask() -> None:
    words = [said(name, 0.01) for name in HEART]
    own = said("a heart", 0.9)
    ranked = rank_names(own, words, HEART, {})
    assert len(ranked) == 3 and ranked[0].target is None and ranked[0].answer is own
    assert sum(n.probability for n in ranked) == pytest.approx(1.0)
    assert rank_names(own, words, HEART, {"myocardium": 1.0})[0].target == "myocardium"


@torch.inference_mode()
def test_the_probability_of_a_name_is_that_with_which_the_model_writes_it(shared_interpreter, picture) -> None:
    interpreter = shared_interpreter
    encoded = interpreter.encode(picture)
    prompt = interpreter.processor.prompt_ids("What is this?", encoded.tokens)
    names = ["a mass in the left lung", "No findings.", "liver"]
    together = name_answers(interpreter.model, interpreter.processor, encoded.features, prompt, names)
    assert [answer.text for answer in together] == [name + END for name in names]
    for name, answer in zip(names, together, strict=True):
        alone = name_answers(interpreter.model, interpreter.processor, encoded.features, prompt, [name])[0]
        assert answer.probabilities == pytest.approx(alone.probabilities, rel=1e-3)
        ids = torch.tensor([prompt + answer.ids])
        odds = interpreter.model(ids, features=encoded.features).logits[0].softmax(-1)
        wanted = [float(odds[len(prompt) - 1 + i, token]) for i, token in enumerate(answer.ids)]
        assert answer.probabilities == pytest.approx(wanted, rel=1e-3)
        assert interpreter.processor.decode(answer.ids) == name + END


# ---------------------------------------------------------------- what was taught


def test_what_a_box_may_hold_follows_from_the_modality_or_the_answer(tmp_path) -> None:
    regions = {"MRI": HEART, "CT": {"liver in abdomen CT": "liver"}}
    card = {"targets": {}, "findings": {}, "regions": regions}
    (tmp_path / "card.json").write_text(json.dumps(card))
    taught = Taught.read(tmp_path)
    assert taught.held("MRI", "") == HEART and taught.held("PET", "liver in abdomen CT") == {}
    assert taught.held(None, "liver in abdomen CT") == regions["CT"] and taught.held(None, "a liver") == {}
    # cards of older models do not say
    (tmp_path / "card.json").write_text(json.dumps({"targets": {"liver": []}, "findings": {}}))
    old = Taught.read(tmp_path)
    assert old.held("CT", "liver in abdomen CT") == {} and list(old.targets) == ["liver"]


# ---------------------------------------------------------------- as a user has it


def answers(question: str) -> str:
    return "left ventricle in heart MRI" if "green box" in question else "It is [SEG]."


def test_a_box_is_named_by_its_mask(interpreter, script, picture, monkeypatch) -> None:
    interpreter.taught = Taught({}, {}, {"MRI": HEART})
    config = interpreter.model.config
    monkeypatch.setattr(config, "presence_calibration", [1.0, 0.0])
    monkeypatch.setattr(config, "mask_calibration", [1.0, 0.0])
    assert config.scores_trained
    monkeypatch.setattr(
        "unibiomed.interpret.interpreter.name_answers",
        lambda model, processor, features, prompt, names: [said(n, p) for n, p in zip(names, (0.7, 0.3), strict=True)],
    )
    script.says = answers
    # of the targets in the order of the alphabet, the second fills the upper left quarter, the first the image
    whole = torch.full((16, 16), 9.0)
    quarter = script.logits(0)
    script.logits = lambda k: quarter if k else whole
    seen = interpreter.encode(picture)
    result = interpreter.interpret(seen, box=(0, 0, 48, 30), modality="MRI")
    (finding,) = result.findings
    assert (finding.label, finding.box) == ("myocardium", (0, 0, 48, 30)) and result.text == "myocardium in heart MRI"
    assert finding.score == pytest.approx(result.details["names"]["myocardium"]) and finding.score > 0.5
    assert list(result.details["names"]) == ["myocardium", "left ventricle"]
    assert result.notes == ("by its words alone the model would have said 'left ventricle'; the masks decided",)
    asked = len(script.decoded)
    # the image as a whole: the other one fits; and what was outlined once is not outlined again
    result = interpreter.interpret(seen, box=(0, 0, 97, 61), modality="MRI")
    assert result.findings[0].label == "left ventricle" and result.notes == ()
    assert len(script.decoded) == asked
    # without trained scores, or where it is not known what was taught, words stand alone
    interpreter.taught = Taught({})
    result = interpreter.interpret(seen, box=(0, 0, 48, 30), modality="MRI")
    assert result.findings[0].label == "left ventricle" and "names" not in result.details
