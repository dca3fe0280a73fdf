"""Going on from a model folder, this package's or the authors', and other ways to compute the same training."""

from __future__ import annotations

import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from unibiomed.errors import DataError, ModelError
from unibiomed.model.modeling import UniBiomedModel
from unibiomed.model.weights import load_model
from unibiomed.tasks import TASKS
from unibiomed.train import trainer
from unibiomed.train.loading import Share
from unibiomed.train.optimizer import parts_of
from unibiomed.train.recipe import LoraRecipe, ModelRecipe, Recipe
from unibiomed.train.stages import JointStage
from unibiomed.train.trainer import train

from .conftest import TINY, joint_recipe, log_rows, logged, losses, stage_recipe, state_of, tiny_recipe, weights
from .several import in_processes, run, run_divided

pytestmark = pytest.mark.usefixtures("no_plot")

PARITY = Path(__file__).resolve().parent.parent / "parity"
LORA = LoraRecipe(rank=4, alpha=8, dropout=0.05)


def from_start(folder: Path, stage: dict[str, object] | None = None, **more: object) -> Recipe:
    return joint_recipe(stage, **({"model": ModelRecipe(start=str(folder))} | more))


# ---------------------------------------------------------------- from a folder of this package


def test_going_on_from_an_exported_folder(whole_run: Path, data_root: Path, tmp_path: Path) -> None:
    folder = train(from_start(whole_run / "model", {"steps": 1}), data_root, tmp_path / "run", progress=False)
    before, old = load_model(whole_run / "model", dtype=torch.float32)
    after, processor = load_model(folder, dtype=torch.float32)
    # the sizes are the folder's, not the recipe's defaults
    assert (processor.settings.grounding_size, after.config.image_size) == (TINY.image_size, TINY.image_size)
    assert processor.tokenizer.get_vocab() == old.tokenizer.get_vocab()
    assert not (tmp_path / "run" / "processor").exists()
    theirs = dict(after.named_parameters())
    changes = {name: float((p - theirs[name]).abs().max().detach()) for name, p in before.named_parameters()}
    moved = {parts_of(name)[0] for name, change in changes.items() if change > 0}
    assert {"backbone", "neck", "decoder", "scores", "layers", "projector", "head"} <= moved
    assert max(changes.values()) < 0.01  # one step from where it was, not from anywhere else


def test_another_image_size_on_the_way(whole_run: Path, data_root: Path, tmp_path: Path) -> None:
    stages = [
        stage_recipe("joint", steps=1, name="large", image_size=96),
        stage_recipe("joint", steps=1, name="small"),
    ]
    recipe = from_start(whole_run / "model", stages=stages, evaluate=1)
    folder = train(recipe, data_root, tmp_path, progress=False)
    model, processor = load_model(folder)
    assert (model.config.image_size, processor.settings.grounding_size, processor.settings.tokens_per_tile) == (
        64,
        64,
        4,
    )
    folder = train(replace(recipe, stages=stages[:1]), data_root, tmp_path / "large", progress=False)
    model, processor = load_model(folder)
    assert (model.config.image_size, processor.settings.grounding_size, processor.settings.tokens_per_tile) == (
        96,
        96,
        9,
    )


def test_a_start_that_is_none(data_root: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not a folder"):
        train(from_start(tmp_path / "none"), data_root, tmp_path / "run", progress=False)


# ---------------------------------------------------------------- from the authors' format


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny official checkpoint of the parity cases, with two tiles an image at most."""
    spec = importlib.util.spec_from_file_location("made_up_folder", PARITY / "made_up_folder.py")
    assert spec is not None and spec.loader is not None
    made_up_folder = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made_up_folder)
    made_up = made_up_folder.load_made_up()
    state = {
        name: torch.from_numpy(made_up.tensor(name, shape)) for name, shape in made_up_folder.official_shapes().items()
    }
    config = json.loads(made_up_folder.config_text(made_up)) | {"max_dynamic_patch": 2}
    ids = {token: 256 + i for i, token in enumerate(made_up.SPECIAL_TOKENS)}
    folder = tmp_path_factory.mktemp("official") / "official"
    return made_up_folder.write_folder(folder, json.dumps(config), state, ids)


def test_the_published_kind_of_stage(
    official: Path, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Own vision tower, whole images, adapters, points: as `recipes/published.yaml` says, but for the sizes."""
    rates = {name: 1e-3 for name in ("lora", "embeddings", "projector", "head", "decoder")}
    stage = stage_recipe("joint", steps=2, batch=1, lora=LORA, learning_rates=rates, points=200, augment=0.0)
    stage = replace(stage, dense_weight=0.0, presence_weight=0.0, quality_weight=0.0, label_weight=0.0)
    stage = replace(stage, gradient_checkpointing=True, tasks=dict.fromkeys(TASKS, 0.0) | {"segment": 1.0})
    seen: list[dict[str, Any]] = []
    real = JointStage.losses

    def watched(self: JointStage, batch: dict[str, Any], counts: Any = None) -> dict[str, torch.Tensor]:
        seen.append(batch)
        return real(self, batch, counts)

    monkeypatch.setattr(JointStage, "losses", watched)
    folder = train(from_start(official, stages=[stage], evaluate=1), data_root, tmp_path, progress=False)
    assert len((tmp_path / "heldout.csv").read_text().splitlines()) == 3  # a liver and a polyp, in whole images
    assert logged(tmp_path) == [("joint", "0"), ("joint", "1")]
    for row in log_rows(tmp_path):
        assert {part.split("=")[0] for part in row["parts"].split()} == {"text", "mask"}
    for batch in seen:
        assert batch["grounding_pixels"].shape == (1, 3, 1024, 1024)
        assert batch["truth"].shape[1:] == (256, 256)
        assert batch["tile_pixels"].shape == (sum(batch["tile_counts"]), 3, 448, 448)
        assert len(batch["truth_seeds"]) == len(batch["truth"]) > 0
    assert any(bool(batch["truth"].any()) for batch in seen)
    before, _ = load_model(official, dtype=torch.float32)
    after, processor = load_model(folder, dtype=torch.float32)
    assert not after.config.shared_vision and not after.config.scores_trained
    assert processor.settings.max_tiles == 2
    theirs = dict(after.named_parameters())
    assert theirs.keys() == dict(before.named_parameters()).keys()
    with torch.no_grad():
        moved = {parts_of(n)[0] for n, p in before.named_parameters() if not torch.equal(p.half().float(), theirs[n])}
    # the adapters are merged into the layers; vision tower, SAM2's encoder and score heads stay as they are
    assert moved == {"layers", "embeddings", "projector", "head", "decoder", "features"}


@pytest.mark.slow
def test_the_published_kind_of_model_divided(official: Path, data_root: Path, tmp_path: Path) -> None:
    """The layers of its vision tower are units of their own; masks of points, and no scores that are taught."""
    rates = {name: 1e-3 for name in ("lora", "vision", "projector", "head", "decoder")}
    quiet = {name: 0.0 for name in ("dense_weight", "presence_weight", "quality_weight", "label_weight")}
    more: dict[str, object] = {"steps": 1, "lora": replace(LORA, dropout=0.0), "learning_rates": rates, "augment": 0.0}
    recipe = from_start(official, more | {"points": 200, "gradient_checkpointing": True} | quiet)
    in_processes(run_divided, recipe, data_root, tmp_path / "two")
    run(recipe, data_root, tmp_path / "one")
    assert total(losses(tmp_path / "two")) == pytest.approx(total(losses(tmp_path / "one")), rel=1e-4)
    one, two = ({k: v for k, v in weights(tmp_path / name).items() if k[0] == "m"} for name in ("one", "two"))
    assert any("vision_tower.encoder.layer" in name for name in one)
    # a first step of AdamW is as long as its rate, but where a gradient is almost 0 its sign is rounding
    close = sum(int((one[name] - two[name]).abs().lt(1e-5).sum()) for name in one)
    assert close > 0.999 * sum(tensor.numel() for tensor in one.values())


# ---------------------------------------------------------------- the same, computed in another way


@pytest.fixture
def plain(data_root: Path, tmp_path: Path) -> list[tuple[str, str]]:
    """Losses of two joint steps from a new model."""
    train(joint_recipe({"steps": 2}), data_root, tmp_path / "plain", progress=False)
    return losses(tmp_path / "plain")


def total(rows: list[tuple[str, str]]) -> list[float]:
    return [float(loss) for loss, _ in rows]


def test_gradient_checkpointing_gives_the_same_loss(plain: list[Any], data_root: Path, tmp_path: Path) -> None:
    used = []
    real = UniBiomedModel._set_gradient_checkpointing

    def watched(self: UniBiomedModel, *args: Any, **kwargs: Any) -> None:
        used.append(kwargs.get("enable", True))
        real(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(UniBiomedModel, "_set_gradient_checkpointing", watched)
        train(joint_recipe({"steps": 2, "gradient_checkpointing": True}), data_root, tmp_path / "run", progress=False)
    assert used == [True]
    assert losses(tmp_path / "run") == plain


def test_bfloat16(plain: list[Any], data_root: Path, tmp_path: Path) -> None:
    train(joint_recipe({"steps": 2}, precision="bfloat16"), data_root, tmp_path / "run", progress=False)
    rough = losses(tmp_path / "run")
    assert rough != plain
    assert total(rough) == pytest.approx(total(plain), rel=0.02)
    # what is learned stays float32
    kept = load_file(tmp_path / "run" / "checkpoint" / "model.safetensors")
    assert {tensor.dtype for tensor in kept.values()} == {torch.float32}
    # and the next training in this process is not bound to that precision
    train(joint_recipe({"steps": 2}), data_root, tmp_path / "again", progress=False)
    assert losses(tmp_path / "again") == plain


def test_float16_needs_a_gpu(data_root: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("float16 can be used here")
    for _ in range(2):
        with pytest.raises(DataError, match="precision float16 needs a GPU: choose") as caught:
            train(joint_recipe(precision="float16"), data_root, tmp_path, progress=False)
        assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- memory


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("DataLoader worker (pid 12) is killed by signal: Killed. "),
    ],
)
def test_memory_that_runs_out(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    real = JointStage.losses
    calls = 0

    def full(self: JointStage, batch: dict[str, Any], counts: Any = None) -> dict[str, torch.Tensor]:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise error
        return real(self, batch, counts)

    monkeypatch.setattr(JointStage, "losses", full)
    with pytest.raises(DataError, match=r"memory ran out: raise 'accumulate', lower 'batch'") as caught:
        train(joint_recipe(), data_root, tmp_path, progress=False)
    assert f"last good checkpoint is '{tmp_path / 'checkpoint'}'" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert state_of(tmp_path)["step"] == 1


def test_other_errors_are_not_taken_for_it(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(JointStage, "losses", broken)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        train(joint_recipe(), data_root, tmp_path, progress=False)


# ---------------------------------------------------------------- shares of a step


@pytest.mark.parametrize(("world", "accumulate"), [(1, 1), (1, 4), (2, 1), (2, 2), (4, 2), (8, 1)])
def test_every_sample_is_one_processs(world: int, accumulate: int) -> None:
    shares = [Share(rank, world, 8, accumulate).numbers() for rank in range(world)]
    assert all(len(parts) == accumulate for parts in shares)
    assert {len(part) for parts in shares for part in parts} == {8 // world // accumulate}
    assert sorted(number for parts in shares for part in parts for number in part) == list(range(8))


def test_errors_of_a_worker_are_one_line(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker is forked, so it has the patch too."""
    monkeypatch.setattr("unibiomed.train.stages.MAX_MISSES", 5)
    nothing = dict.fromkeys(TASKS, 0.0)
    for workers in (0, 1):
        recipe = tiny_recipe(stages=[stage_recipe("joint", tasks=nothing)], workers=workers)
        with pytest.raises(DataError, match=r"^stage 'joint': no training image answers") as caught:
            train(recipe, data_root, tmp_path / str(workers), progress=False)
        assert "\n" not in str(caught.value)


def test_a_checkpoint_of_more_stages(whole_run: Path, data_root: Path, tmp_path: Path) -> None:

    shutil.copytree(whole_run / "checkpoint", tmp_path / "checkpoint")
    shutil.copytree(whole_run / "processor", tmp_path / "processor")
    recipe = tiny_recipe()
    with pytest.raises(DataError, match="another recipe, of more stages"):
        train(replace(recipe, stages=recipe.stages[:2]), data_root, tmp_path, progress=False)
    (tmp_path / "checkpoint" / "state.json").write_text('{"stage": 2, "step": 1}')
    with pytest.raises(DataError, match="another recipe, of more stages"):
        train(replace(recipe, stages=recipe.stages[:2]), data_root, tmp_path, progress=False)


def test_a_stage_that_was_put_before(
    whole_run: Path, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint counts stages: with another one in front, it would go on in the wrong one."""
    recipe = tiny_recipe()
    for name in ("checkpoint", "processor"):
        shutil.copytree(whole_run / name, tmp_path / name)
    path = tmp_path / "checkpoint" / "state.json"
    before = stage_recipe("text", name="before", distill_weight=0.0)
    begun = {"stage": 1, "step": 1, "stages": ["encoder", "text"]}
    for state, at in ((state_of(tmp_path), 0), (begun, 1), (begun | {"step": 0, "stages": ["encoder"]}, 0)):
        path.write_text(json.dumps(state))
        changed = replace(recipe, stages=[*recipe.stages[:at], before, *recipe.stages[at:]])
        with pytest.raises(DataError, match=r"learned the stage '\w+' where the recipe has 'before'; choose") as caught:
            train(changed, data_root, tmp_path, progress=False)
        assert "\n" not in str(caught.value)

    def reached(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "run_stage", reached)
    # what comes after all that was learned may change, and an older checkpoint has no names
    for state in (begun | {"step": 0, "stages": ["encoder"]}, {"stage": 1, "step": 0}):
        path.write_text(json.dumps(state))
        with pytest.raises(KeyboardInterrupt):
            train(replace(recipe, stages=[recipe.stages[0], before]), data_root, tmp_path, progress=False)
