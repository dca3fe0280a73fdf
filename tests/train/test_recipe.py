"""Recipes are read whole or refused with one line that names what is wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unibiomed.errors import DataError
from unibiomed.train.mixture import check_names
from unibiomed.train.recipe import DataRecipe, LoraRecipe, read_recipe

NANO = Path(__file__).resolve().parents[2] / "recipes" / "nano.yaml"
GOOD = """
seed: 7
checkpoint_minutes: 2
model: {image_size: 64, width: 32, hidden_size: 64, layers: 1, vocab_size: 300, encoder: random}
data: {power: 0.5, datasets: [one], weights: {one: 2}}
stages:
  - {name: first, kind: encoder, steps: 3, learning_rates: {backbone: 1.0e-3, head: 1}}
  - {name: last, kind: joint, steps: 3, tasks: {segment: 1, ask: 0.5}, learning_rates: {grounding: 1.0e-3}}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


def refused(folder: Path, text: str) -> str:
    with pytest.raises(DataError) as caught:
        read_recipe(write(folder, text))
    message = str(caught.value)
    assert "\n" not in message
    assert "recipe.yaml" in message
    return message


def test_the_nano_recipe() -> None:
    recipe = read_recipe(NANO)
    assert [(stage.name, stage.kind) for stage in recipe.stages] == [
        ("images", "encoder"),
        ("language", "joint"),
        ("scores", "encoder"),
        ("boxes", "boxes"),
    ]
    assert recipe.seed == 9
    assert recipe.model.start and recipe.model.box_prompt and recipe.model.box_teacher == "lite"
    assert all(0 < rate < 0.1 for stage in recipe.stages for rate in stage.learning_rates.values())
    images, language, scores, boxes = recipe.stages
    assert images.presence_targets and scores.presence_targets and boxes.teacher_images and boxes.outline_weight
    assert set(language.learning_rates) == {"language", "region", "scores", "head"}, "the image side is frozen"
    assert set(scores.learning_rates) == {"scores", "context"}
    assert set(boxes.learning_rates) == {"box_neck", "box_decoder"}
    assert not set(recipe.data.held_out or ()) & set(recipe.data.weights)


def test_the_published_recipe() -> None:
    """Table A8 and the published code's settings (reference: losses, points, adapters, schedule)."""
    recipe = read_recipe(NANO.with_name("published.yaml"))
    (stage,) = recipe.stages
    assert (stage.kind, stage.batch, stage.points, stage.turns) == ("joint", 32, 12544, 5)
    assert stage.lora == LoraRecipe(128, 256, 0.05)
    assert set(stage.learning_rates) == {"lora", "embeddings", "projector", "head", "decoder"}
    assert set(stage.learning_rates.values()) == {4e-5}
    assert (stage.weight_decay, stage.clip, stage.warmup, stage.final) == (0.05, 1.0, 0.05, 0.0)
    assert (recipe.seed, recipe.precision, stage.absent_masks) == (42, "bfloat16", True)
    ours = ("presence_weight", "quality_weight", "dense_weight", "align_weight", "label_weight", "distill_weight")
    assert not any(getattr(stage, name) for name in (*ours, "named", "prompted", "augment"))


def test_a_stage_draws_some_data_sets_more(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path, GOOD))
    first, last = recipe.stages
    assert recipe.data_of(first) == recipe.data
    staged = replace(last, weights={"one": 3.0, "two": 0.5})
    assert recipe.data_of(staged) == replace(recipe.data, weights={"one": 6.0, "two": 0.5})


def test_weights_of_data_sets_that_nobody_knows(data_root: Path) -> None:
    recipe = replace(read_recipe(NANO), data=DataRecipe(weights={"colon": 2.0, "kvasir_seg_polyp": 0.9}))
    # those of the catalogue are known, whether they are there or not
    check_names(data_root, recipe)
    check_names(data_root, read_recipe(NANO))
    for name, words in (
        ("colom", "did you mean 'colon'"),
        ("kvasir_seg_polyps", "did you mean 'kvasir_seg_polyp'"),
        ("something else", "known by their folders"),
        ("CT", "weighed in shards only"),
        ("question", "weighed in shards only"),
    ):
        for changed in (
            replace(recipe, data=DataRecipe(weights={name: 2.0})),
            replace(recipe, stages=[replace(recipe.stages[0], weights={name: 2.0})]),
        ):
            with pytest.raises(DataError, match=f"there is no data set '{name}'; .*{words}") as caught:
                check_names(data_root, changed)
            assert "\n" not in str(caught.value)


def test_values_and_defaults(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path, GOOD))
    assert (recipe.seed, recipe.checkpoint_minutes, recipe.model.width) == (7, 2, 32)
    assert recipe.data.datasets == ["one"] and recipe.data.weights == {"one": 2}
    first, last = recipe.stages
    assert (first.batch, first.clip, first.weight_decay, first.warmup, first.points) == (8, 1.0, 0.05, 0.05, 0)
    assert last.tasks == {"segment": 1, "ask": 0.5}
    bare = "model:\ndata:\nstages: [{name: a, kind: text, steps: 1, learning_rates: {head: 1}}]"
    short = read_recipe(write(tmp_path, bare))
    assert short.seed == 42 and short.data.datasets is None and short.model.image_size == 256
    assert (short.precision, short.workers, short.ema, short.evaluate, short.trackers) == ("float32", 1, 0, 8, None)
    assert (short.stages[0].accumulate, short.stages[0].lora, short.model.start) == (1, None, None)


def test_settings_of_a_large_training(tmp_path: Path) -> None:
    text = """
precision: bfloat16
workers: 0
ema: 0.999
trackers: []
model: {start: folder}
stages:
  - {name: a, kind: joint, steps: 2, batch: 8, accumulate: 4, lora: {rank: 16, alpha: 32}, image_size: 96,
     gradient_checkpointing: true, learning_rates: {lora: 1, embeddings: 1, vision: 1, neck: 1, decoder: 1}}
  - {name: b, kind: joint, steps: 2, image_size: 64, lora: {}, learning_rates: {language: 1}}
"""
    recipe = read_recipe(write(tmp_path, text))
    assert (recipe.precision, recipe.workers, recipe.ema, recipe.trackers) == ("bfloat16", 0, 0.999, [])
    assert recipe.model.start == "folder"
    first, second = recipe.stages
    assert first.lora == LoraRecipe(rank=16, alpha=32, dropout=0.05) and second.lora == LoraRecipe(128, 256, 0.05)
    assert first.accumulate == 4 and first.gradient_checkpointing
    assert [recipe.size_of(stage) for stage in recipe.stages] == [96, 64] and recipe.store_size == 96


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        # unknown settings, at every level
        ("seed: 7", "sead: 7", "'sead'"),
        ("width: 32", "widht: 32", "model: unknown setting 'widht'"),
        ("power: 0.5", "powr: 0.5", "data: unknown setting 'powr'"),
        ("kind: joint, steps", "kind: joint, stepz", "stage 2: unknown setting 'stepz'"),
        ("backbone: 1.0e-3", "backbon: 1.0e-3", "'backbon'"),
        ("ask: 0.5", "aks: 0.5", "'aks'"),
        # wrong types
        ("seed: 7", "seed: seven", "'seed' should be int"),
        ("seed: 7", "seed: true", "'seed' should be int"),
        ("checkpoint_minutes: 2", "checkpoint_minutes: often", "'checkpoint_minutes'"),
        ("image_size: 64", "image_size: 64.0", "'image_size' should be int"),
        ("layers: 1", "layers: null", "'layers'"),
        ("datasets: [one]", "datasets: one", "'datasets'"),
        ("weights: {one: 2}", "weights: {one: two}", "'weights'"),
        ("steps: 3, learning_rates", "steps: null, learning_rates", "'steps'"),
        ("backbone: 1.0e-3", "backbone: 1e-3", "write 1.0e-3"),
        ("backbone: 1.0e-3", "backbone: .nan", "'learning_rates'"),
        ("{backbone: 1.0e-3, head: 1}", "0.1", "'learning_rates'"),
        ("data: {power", "data: [] #{power", "data must be a table"),
        ("  - {name: first", "  - first\n  - {name: first", "stage 1 must be a table"),
        # out of range
        ("kind: encoder", "kind: decoder", "'decoder'"),
        ("kind: encoder", "kind: [encoder]", "'kind' should be str"),
        ("name: last", "name: first", "two stages are named 'first'"),
        ("steps: 3, tasks", "steps: 0, tasks", "at least one step"),
        ("steps: 3, tasks", "steps: 3, batch: 0, tasks", "batch of one"),
        ("steps: 3, tasks", "steps: 3, turns: 0, tasks", "one turn"),
        ("steps: 3, tasks", "steps: 3, clip: -1, tasks", "'clip' is negative"),
        ("ask: 0.5", "ask: -0.5", "'tasks' is negative"),
        ("learning_rates: {grounding: 1.0e-3}", "learning_rates: {}", "trains nothing"),
        ("image_size: 64", "image_size: 100", "multiple of 32"),
        ("width: 32", "width: 24", "multiple of 16"),
        ("hidden_size: 64", "hidden_size: 0", "multiple of 64"),
        ("encoder: random", "encoder: magic", "unknown encoder 'magic'"),
        ("steps: 3, tasks", "steps: 3, accumulate: 0, tasks", "one part"),
        (
            "steps: 3, tasks",
            "steps: 3, batch: 8, accumulate: 3, tasks",
            "a batch of 8 cannot be taken in 3 equal parts",
        ),
        ("steps: 3, tasks", "steps: 3, image_size: 80, tasks", "image_size is 80; give a multiple of 32"),
        ("steps: 3, tasks", "steps: 3, gradient_checkpointing: 1, tasks", "'gradient_checkpointing' should be bool"),
        ("steps: 3, tasks", "steps: 3, absent_masks: 0, tasks", "'absent_masks' should be bool"),
        # adapters
        ("steps: 3, tasks", "steps: 3, lora: true, tasks", "'lora' should be LoraRecipe"),
        ("steps: 3, tasks", "steps: 3, lora: {rnk: 4}, tasks", "stage 2: lora: unknown setting 'rnk'"),
        ("steps: 3, tasks", "steps: 3, lora: {rank: 4.5}, tasks", "'rank' should be int"),
        ("steps: 3, tasks", "steps: 3, lora: {rank: 0}, tasks", "rank below 1"),
        ("steps: 3, tasks", "steps: 3, lora: {dropout: 1}, tasks", "dropout of 1 or more"),
        ("steps: 3, tasks", "steps: 3, lora: {alpha: -1}, tasks", "'alpha' is negative"),
        ("steps: 3, tasks", "steps: 3, lora: {}, tasks", "stage 'last': its adapters learn nothing"),
        ("learning_rates: {grounding: 1.0e-3}", "learning_rates: {lora: 1}", "'last': learning_rates has lora, but"),
        # the whole training
        ("seed: 7", "precision: float64", "unknown precision 'float64'; use float32, bfloat16, float16"),
        ("seed: 7", "precision: 16", "'precision' should be str"),
        ("seed: 7", "trackers: [tensorboard, tensorbored]", "unknown trackers 'tensorbored'; use tensorboard"),
        ("seed: 7", "trackers: wandb", "'trackers' should be list[str] | None"),
        ("seed: 7", "ema: 1", "ema is 1; give a decay in [0, 1)"),
        ("seed: 7", "ema: -0.5", "'ema' is negative"),
        ("seed: 7", "workers: -1", "'workers' is negative"),
        ("seed: 7", "evaluate: 1.5", "'evaluate' should be int"),
        ("seed: 7", "checkpoint_steps: -5", "'checkpoint_steps' is negative"),
        ("width: 32", "start: 3", "'start' should be str | None"),
        ("width: 32", "fusion: 1", "'fusion' should be bool"),
        ("seed: 7", "seed: 99999999999999999999999", "seed is 99999999999999999999999; give a number of at most"),
        ("seed: 7", "seed: 7\nseed: 8", "'seed' is given twice"),
        ("steps: 3, tasks", "steps: 3, warmup: 7, tasks", "'last': warmup is 7; it is a share"),
        ("steps: 3, tasks", "steps: 3, absent: 1.5, tasks", "'last': absent is 1.5; it is a share"),
        ("segment: 1, ask: 0.5", "segment: 0, ask: 0", "'last' asks nothing"),
        # presence and boxes
        ("kind: encoder", "kind: encoder, presence_targets: 2", "'first': presence_targets trains the presence score"),
        ("kind: encoder", "kind: encoder, presence_targets: 2.5", "'presence_targets' should be int"),
        ("kind: encoder", "kind: encoder, outline_weight: -1", "'outline_weight' is negative"),
        ("width: 32", "box_prompt: 1", "'box_prompt' should be bool"),
        ("datasets: [one]", "held_out: one", "'held_out' should be list[str] | None"),
        # missing
        ("name: first, ", "", "'name'"),
        ("stages:", "stages: []\nother:", "at least one stage"),
        ("stages:", "stages: 3\nother:", "at least one stage"),
    ],
)
def test_broken_recipes_are_refused(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert GOOD.count(old) == 1
    assert words in refused(tmp_path, GOOD.replace(old, new))


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    assert "not valid YAML" in refused(tmp_path, "stages: [")
    assert "not valid YAML" in refused(tmp_path, "[" * 400)
    assert "not valid YAML" in refused(tmp_path, "seed: 2020-99-99")
    for text in ("", "# nothing", "- a list", "words"):
        assert "nano.yaml" in refused(tmp_path, text)
    (tmp_path / "recipe.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"recipe\.yaml.*cannot be read: not text"):
        read_recipe(tmp_path / "recipe.yaml")
    with pytest.raises(DataError, match=r"none\.yaml.*No such file"):
        read_recipe(tmp_path / "none.yaml")
    with pytest.raises(DataError, match="cannot be read"):
        read_recipe(tmp_path)


LEAVES = st.none() | st.booleans() | st.integers(-9, 99) | st.floats() | st.sampled_from(["", "a", "1e-3"])
VALUES = st.recursive(LEAVES, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.sampled_from("ab"), v, max_size=2))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    where=st.sampled_from(["model", "data", "stages", "seed", "checkpoint_minutes"]),
    inner=st.sampled_from(["", "layers", "datasets", "power", "steps", "kind", "learning_rates", "tasks", "augment"]),
    value=VALUES,
)
def test_any_value_is_read_or_refused_in_one_line(tmp_path: Path, where: str, inner: str, value: object) -> None:
    values = yaml.safe_load(GOOD)
    if not inner or where in ("seed", "checkpoint_minutes"):
        values[where] = value
    elif where == "stages":
        values[where][0][inner] = value
    else:
        values[where][inner] = value
    try:
        read_recipe(write(tmp_path, yaml.safe_dump(values)))
    except DataError as error:
        assert "\n" not in str(error)
