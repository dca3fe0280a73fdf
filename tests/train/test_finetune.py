"""Fine-tuning on one's own folder: what it needs, what it leaves, and that a wrong folder is told in one line."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from unibiomed.data.records import QuestionAnswer, Record, Region
from unibiomed.errors import DataError, ModelError
from unibiomed.model.generation import generate
from unibiomed.model.weights import load_model
from unibiomed.tasks import TASKS
from unibiomed.train import heldout
from unibiomed.train.finetune import _check_asked, finetune, finetune_recipe
from unibiomed.train.packing import IGNORE
from unibiomed.train.start import write_card
from unibiomed.train.views import Viewer

ASKED = """
name = "asked"
licence = "CC0"
adapter = "questions"
modality = "CT"
site = "abdomen"
split = { pattern = '^(train|val|test)' }

[[tables]]
file = "asked.csv"
key = "image"
"""


@pytest.fixture(scope="module")
def tuned(whole_run: Path, data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short fine-tuning of the tiny model."""
    out = tmp_path_factory.mktemp("tuned") / "run"
    result = finetune(data_root, out, str(whole_run / "model"), steps=2, batch=2, progress=False)
    assert result.folder == out / "model"
    return out


def test_scores_before_and_after(tuned: Path) -> None:
    report = json.loads((tuned / "finetune.json").read_text())
    assert set(report["before"]) == set(report["after"]) == {"liver", "polyp"}
    assert all(0 <= value <= 1 for value in [*report["before"].values(), *report["after"].values()])
    assert report["images"] == {"test": 2, "train": 12, "val": 4}


def test_answers_before_and_after(tuned: Path) -> None:
    report = json.loads((tuned / "finetune.json").read_text())
    # no region of the tests has words of its own: a report is made of what its mask tells
    for name in ("answers_before", "answers_after"):
        assert {"classify", "describe", "recognize"} <= set(report[name]) <= set(TASKS) - {"segment"}
        assert all(0 <= value <= 1 for value in report[name].values())


def test_an_answer_is_right_where_it_would_be_written(
    whole_run: Path, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = load_model(whole_run / "model", dtype=torch.float32)
    record = next(record for record in records if record.key == "abdomen/test8")
    record = replace(record, regions=(), questions=(QuestionAnswer("Is it large?", "No.", "closed", "1"),))
    image = Viewer(64).view(record, random.Random(0), 0.0).image
    features, tokens = heldout._look(model.eval(), processor, image)
    prompt = processor.prompt_ids("Is it large?", tokens)
    written = generate(model, processor, features, [prompt], max_new_tokens=12)[0].ids
    wrong = [*written[:-1], 255 - written[-1] % 256]
    share = 1 - 1 / len(written)
    for ids, exact, right in ((written, ("ask",), 1.0), (wrong, ("ask",), 0.0), (wrong, (), share)):
        row = (prompt + ids, [IGNORE] * len(prompt) + ids)
        monkeypatch.setattr(heldout, "encode_turn", lambda *_, row=row: row)
        monkeypatch.setattr(heldout, "EXACT", exact)
        assert heldout.held_out_answers(model, processor, [record], 8)["ask"] == pytest.approx(right)
    assert "ask" not in heldout.held_out_answers(model, processor, [replace(record, questions=())], 8)


def test_data_without_masks(whole_run: Path, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions and answers alone have a score too."""
    folder = tmp_path / "data" / "asked"
    shutil.copytree(data_root / "abdomen" / "images", folder / "images")
    (folder / "dataset.toml").write_text(ASKED)
    rows = [f"{path.name},Is it large?,No" for path in sorted((folder / "images").iterdir())]
    (folder / "asked.csv").write_text("\n".join(["image,question,answer", *rows]) + "\n")
    monkeypatch.chdir(folder.parent)
    with pytest.warns(UserWarning, match="split of 'asked' has no image with targets"):
        result = finetune(Path("asked"), tmp_path / "run", str(whole_run / "model"), steps=1, batch=2, progress=False)
    assert result.after == {} and result.answers_before.keys() == result.answers_after.keys() == {"ask"}
    assert "Dice" not in result.table() and "  ask  " in result.table()


def test_the_model_folder_is_one(tuned: Path, whole_run: Path) -> None:
    before, _ = load_model(whole_run / "model")
    after, processor = load_model(tuned / "model")
    assert dict(after.named_parameters()).keys() == dict(before.named_parameters()).keys()  # adapters are merged
    changed = {name for name, p in after.named_parameters() if not p.equal(dict(before.named_parameters())[name])}
    assert any("language_model.layers" in name for name in changed)
    assert not any("embed_tokens" in name for name in changed)
    assert processor.settings.grounding_size == 64
    assert (tuned / "training.png").stat().st_size > 1000


def test_one_data_set_alone(whole_run: Path, data_root: Path, tmp_path: Path) -> None:
    result = finetune(data_root / "colon", tmp_path, str(whole_run / "model"), steps=1, batch=2, progress=False)
    assert set(result.after) == {"polyp"}
    assert "polyp" in result.table() and "->" in result.table()


def test_the_folder_one_stands_in(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(data_root / "colon" / "images")
    with pytest.raises(ModelError):  # and not that there is no data set of this name
        finetune(Path(".."), tmp_path / "run", str(tmp_path / "nothing"), steps=1)


def test_another_fine_tuning_does_not_go_on_with_this_one(tuned: Path, whole_run: Path, data_root: Path) -> None:
    asked = json.loads((tuned / "asked.json").read_text())
    _check_asked(tuned, asked)
    for name, value in (("data", "0"), ("model", "other"), ("steps", asked["steps"] + 1), ("batch", 99)):
        with pytest.raises(DataError, match=rf"holds another fine-tuning \({name} differ\): choose another --out"):
            _check_asked(tuned, asked | {name: value})
    assert json.loads((tuned / "asked.json").read_text()) == asked


def test_the_card_keeps_what_the_start_was_trained_on(tmp_path: Path) -> None:
    start, model = tmp_path / "start", torch.nn.Linear(2, 3)
    for folder in (start, tmp_path / "new", tmp_path / "published"):
        folder.mkdir()
    regions = [Region(target, Path(f"{target}.png"), abnormal=target == "polyp") for target in ("polyp", "liver")]
    records = [
        Record(f"a/{region.target}", Path("a.png"), "a", "CT", "abdomen", "g", "train", (region,)) for region in regions
    ]
    write_card(start, model, {"old": "CC BY-NC"}, records[:1])
    write_card(tmp_path / "new", model, {"mine": "CC0"}, records[1:], start)
    card = json.loads((tmp_path / "new" / "card.json").read_text())
    assert card["trained_on"] == {"old": "CC BY-NC", "mine": "CC0"} and card["started_from"] == "start"
    assert card["targets"].keys() == {"polyp", "liver"} and card["parameters"] == 9
    assert "polyp" in card["findings"]["CT"] and "liver" not in card["findings"]["CT"]
    assert card["abnormal"] == {"CT": ["polyp"]}
    assert card["regions"] == {
        "CT": {"liver in abdomen CT": "liver", "polyp in abdomen CT": "polyp", "something else in abdomen CT": ""}
    }
    # of a start that does not say what it knows, or only a part of it, not all is known
    older = json.loads((start / "card.json").read_text())
    del older["regions"]
    (start / "card.json").write_text(json.dumps(older))
    write_card(tmp_path / "new", model, {"mine": "CC0"}, records[1:], start)
    card = json.loads((tmp_path / "new" / "card.json").read_text())
    assert card["targets"].keys() == {"polyp", "liver"} and "polyp" in card["findings"]["CT"]
    assert "regions" not in card
    (start / "card.json").unlink()
    write_card(tmp_path / "published", model, {"mine": "CC0"}, records, start)
    assert "targets" not in json.loads((tmp_path / "published" / "card.json").read_text())


def test_what_is_wrong_is_told_first(whole_run: Path, data_root: Path, tmp_path: Path) -> None:
    model = str(whole_run / "model")
    with pytest.raises(ModelError):
        finetune(data_root, tmp_path / "run", str(tmp_path / "nothing"), steps=1)
    with pytest.raises(DataError, match="at least 1"):
        finetune(data_root, tmp_path / "run", model, steps=0)
    shutil.copytree(data_root / "colon" / "images", tmp_path / "new" / "images")
    with pytest.raises(DataError, match="not described yet"):
        finetune(tmp_path / "new", tmp_path / "run", model, steps=1)
    assert not (tmp_path / "run").exists()


def test_defaults_follow_the_size_of_the_model(whole_run: Path) -> None:
    small, _ = load_model(whole_run / "model")
    recipe = finetune_recipe(small.config, "m", 10, 4, None)
    assert {"lora", "backbone"} <= set(recipe.stages[0].learning_rates)
    small.config.shared_vision = False
    large = finetune_recipe(small.config, "m", 10, 4, ["a"])
    # of a large model the image encoder stays as it is
    assert "backbone" not in large.stages[0].learning_rates and large.stages[0].gradient_checkpointing
    assert large.data.datasets == ["a"] and large.stages[0].points == 12544
