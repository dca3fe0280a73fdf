"""A tiny data root, a tiny model with everything that trains it, and one whole training run to compare others with."""

from __future__ import annotations

import csv
import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from unibiomed.data import Record, load_records
from unibiomed.data.build import build_shards
from unibiomed.model.modeling import UniBiomedModel
from unibiomed.model.processing import UniBiomedProcessor
from unibiomed.train import loop, trainer
from unibiomed.train.heads import AuxiliaryHeads
from unibiomed.train.log import Log
from unibiomed.train.mixture import Mixture
from unibiomed.train.optimizer import make_optimizer
from unibiomed.train.recipe import DataRecipe, ModelRecipe, Recipe, StageRecipe
from unibiomed.train.stages import STAGES, Stage
from unibiomed.train.start import make_model, make_processor
from unibiomed.train.store import ImageStore
from unibiomed.train.trainer import train
from unibiomed.train.views import Viewer

torch.set_num_threads(1)
# numbers are compared bit by bit
os.environ["ACCELERATE_USE_CPU"] = "true"

TINY = ModelRecipe(
    image_size=64,
    width=32,
    hidden_size=64,
    layers=1,
    vocab_size=300,
    encoder="random",
    region_summary=True,
    fine_masks=True,
    context_match=True,
)
RATES = {"backbone": 1e-3, "grounding": 1e-3, "scores": 1e-3, "language": 1e-3, "head": 1e-3}
WEIGHTS = {"dense_weight": 1.0, "presence_weight": 0.3, "quality_weight": 0.3, "label_weight": 0.2}

ABDOMEN = """
name = "abdomen"
licence = "CC0"
adapter = "images"
modality = "CT"
site = "abdomen"
split = { pattern = '^(train|val|test)' }

[[targets]]
name = "liver"
masks = ["masks/{stem}_liver.png"]

[[targets]]
name = "spleen"
masks = ["masks/{stem}_spleen.png"]
missing = "absent"
"""
COLON = """
name = "colon"
licence = "CC0"
adapter = "images"
modality = "endoscopy"
site = "colon"
abnormal_known = true
split = { pattern = '^(train|val|test)' }
label = { value = "Polyp", needs_finding = true }

[[targets]]
name = "polyp"
abnormal = true
"""
REPORTS = """
name = "reports"
licence = "CC0"
adapter = "reports"
modality = "X-ray"
site = "chest"
text = ["findings"]

[[tables]]
file = "reports.csv"
key = "uid"
"""


def save_image(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def blob(height: int, width: int, row: float, column: float, radius: float) -> np.ndarray:
    """Disc mask, 255 inside."""
    y, x = np.mgrid[:height, :width]
    return (((y - row) ** 2 + (x - column) ** 2 < radius**2) * 255).astype(np.uint8)


def make_data(root: Path) -> Path:
    """Two image sets and some reports: grey noise with brighter discs; no spleens, and some polyp masks are empty."""
    rng = np.random.default_rng(0)
    for name, entry in (("abdomen", ABDOMEN), ("colon", COLON), ("reports", REPORTS)):
        (root / name).mkdir(parents=True)
        (root / name / "dataset.toml").write_text(entry)
    for number in range(9):
        split = "train" if number < 6 else "val" if number < 8 else "test"
        for name, suffix, (height, width) in (("abdomen", "_liver", (48, 64)), ("colon", "", (72, 60))):
            empty = name == "colon" and number in (1, 3, 7)
            radius = 0 if empty else 10 + number
            mask = blob(height, width, rng.uniform(20, 30), rng.uniform(20, 40), radius)
            grey = rng.integers(20, 90, (height, width)) + mask // 3
            save_image(
                root / name / "images" / f"{split}{number}.png", np.repeat(grey[..., None], 3, 2).astype(np.uint8)
            )
            save_image(root / name / "masks" / f"{split}{number}{suffix}.png", mask)
    # a target without any mask has no prompt; this one is outlined as empty
    save_image(root / "abdomen" / "masks" / "train0_spleen.png", np.zeros((48, 64), dtype=np.uint8))
    lines = [f"{number},Heart size is normal. Lung {number} is clear." for number in range(6)]
    (root / "reports" / "reports.csv").write_text("\n".join(["uid,findings", *lines]) + "\n")
    return root


def stage_recipe(kind: str, **more: object) -> StageRecipe:
    """A stage of two small steps."""
    values: dict[str, object] = {
        "name": kind,
        "kind": kind,
        "steps": 2,
        "batch": 2,
        "turns": 2,
        "learning_rates": RATES,
    }
    values |= {"distill_weight": 1.0} if kind == "text" else WEIGHTS
    return StageRecipe(**(values | more))  # type: ignore[arg-type]


def tiny_recipe(**more: object) -> Recipe:
    """Three short stages, a checkpoint after every step."""
    stages = [
        stage_recipe(
            "encoder", steps=3, learning_rates={k: RATES[k] for k in ("backbone", "grounding", "scores", "head")}
        ),
        stage_recipe("text", batch=4, learning_rates={k: RATES[k] for k in ("language", "head")}),
        # points: the mask losses draw random numbers of their own
        stage_recipe("joint", points=32, prompted=1, named=1),
    ]
    values: dict[str, object] = {
        "model": TINY,
        "data": DataRecipe(),
        "stages": stages,
        "checkpoint_minutes": 0.0,
        "workers": 0,
        "trackers": [],
    }
    return Recipe(**(values | more))  # type: ignore[arg-type]


STEPS = [(name, str(step)) for name, steps in (("encoder", 3), ("text", 2), ("joint", 2)) for step in range(steps)]
"""Stage and step of each row that `tiny_recipe` logs."""


def joint_recipe(stage: dict[str, object] | None = None, **more: object) -> Recipe:
    """The joint stage alone, of three steps."""
    joint = stage_recipe("joint", **({"steps": 3, "points": 32} | (stage or {})))
    return tiny_recipe(**({"stages": [joint], "evaluate": 0} | more))


STREAMED: dict[str, object] = {"dense_weight": 0.0, "label_weight": 0.0, "points": 32}


def streamed_recipe(start: Path, **more: object) -> Recipe:
    """A joint stage that reads shards."""
    return joint_recipe(STREAMED | {"steps": 4}, model=ModelRecipe(start=str(start / "model")), **more)


def recipe_text(recipe: Recipe) -> str:
    """A recipe file; JSON is YAML."""
    return json.dumps(recipe, default=vars)


def weights(out: Path) -> dict[str, torch.Tensor]:
    """All tensors that a run leaves: of the checkpoint (float32) and of the model folder."""
    files = {"checkpoint/model": "m", "checkpoint/heads": "h", "model/model": "x"}
    return {f"{k}.{n}": t for f, k in files.items() for n, t in load_file(out / f"{f}.safetensors").items()}


def different(one: Path, other: Path) -> list[str]:
    """Names of tensors that differ in any bit."""
    mine, theirs = weights(one), weights(other)
    assert mine.keys() == theirs.keys()
    return [name for name, tensor in mine.items() if not torch.equal(tensor, theirs[name])]


def log_rows(out: Path) -> list[dict[str, str]]:
    with (out / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def logged(out: Path) -> list[tuple[str, str]]:
    """Stage and step of each row."""
    return [(row["stage"], row["step"]) for row in log_rows(out)]


def losses(out: Path) -> list[tuple[str, str]]:
    """Loss and its parts of each row."""
    return [(row["loss"], row["parts"]) for row in log_rows(out)]


def state_of(out: Path) -> dict[str, Any]:
    """What the checkpoint says of itself."""
    return json.loads((out / "checkpoint" / "state.json").read_text())


def interrupt_at(monkeypatch: pytest.MonkeyPatch, stage: str, step: int) -> None:
    """Stop after the step was logged and before it is in a checkpoint."""
    add = Log.add

    def stop(self: Log, name: str, number: int, *rest: Any) -> None:
        add(self, name, number, *rest)
        if (name, number) == (stage, step):
            raise KeyboardInterrupt

    monkeypatch.setattr(Log, "add", stop)


@dataclass
class Kit:
    """What a stage is made of."""

    records: list[Record]
    processor: UniBiomedProcessor
    model: UniBiomedModel
    heads: AuxiliaryHeads
    store: ImageStore

    def stage(
        self, kind: str, *, records: list[Record] | None = None, data: DataRecipe | None = None, **more: object
    ) -> Stage:
        """A stage on all records, or on some."""
        recipe = stage_recipe(kind, **more)
        self.model.train().zero_grad(set_to_none=True)
        self.heads.zero_grad(set_to_none=True)
        make_optimizer(recipe, self.model, self.heads)
        chosen = self.records if records is None else records
        if kind != "text":
            chosen = [record for record in chosen if record.image is not None]
        mixture = Mixture(chosen, data or DataRecipe())
        viewer = Viewer(self.store.size, self.store)
        return STAGES[kind](recipe, self.model, self.heads, self.processor, viewer, mixture)


@pytest.fixture
def no_plot(monkeypatch: pytest.MonkeyPatch) -> None:
    """No picture at the end of a training, for tests of other things: it takes as long as the steps."""
    monkeypatch.setattr(trainer, "plot_log", lambda *_: None)


@contextmanager
def small_disk(size: int = 100_000) -> Iterator[None]:
    """No file may grow beyond so many bytes, as on a disk that is full; nor may the file that pytest reports into."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def plain_descent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adam divides a gradient by its own size: rounding of one that is almost 0 becomes a whole step.

    A plain step shows the gradients as they are, their scale included.
    """
    real = loop.make_optimizer

    def plain(*arguments: Any) -> torch.optim.Optimizer:
        groups = real(*arguments).param_groups
        kept = ("params", "weight_decay")
        return torch.optim.SGD([{k: g[k] for k in kept} | {"peak": 10 * g["peak"], "lr": 0.0} for g in groups])

    monkeypatch.setattr(loop, "make_optimizer", plain)


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up data, read only."""
    return make_data(tmp_path_factory.mktemp("data") / "root")


@pytest.fixture(scope="session")
def shards(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The made-up data, reports included, as a folder of small shards."""
    folder = tmp_path_factory.mktemp("shards") / "shards"
    report = build_shards(data_root, folder, workers=1, rows_per_shard=2)
    assert report.records == 24 and report.shards > 9
    return folder


@pytest.fixture(scope="session")
def records(data_root: Path) -> list[Record]:
    """Of all splits."""
    return load_records(data_root)


@pytest.fixture(scope="session")
def kit(records: list[Record], tmp_path_factory: pytest.TempPathFactory) -> Kit:
    """Shared by tests that leave the weights alone."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("kit")
    chosen = [record for record in records if record.split == "train"]
    processor = make_processor(TINY, chosen, folder / "processor")
    model = make_model(TINY, processor)
    heads = AuxiliaryHeads.for_records(chosen, TINY.width, TINY.hidden_size)
    return Kit(chosen, processor, model, heads, ImageStore(chosen, TINY.image_size, folder / "cache"))


@pytest.fixture(scope="session")
def whole_run(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an unbroken run of `tiny_recipe`."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert train(tiny_recipe(), data_root, out, progress=False) == out / "model"
    return out
