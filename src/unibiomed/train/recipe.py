"""A training recipe: a YAML file read into small typed records, unknown keys refused."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from unibiomed.errors import DataError

STAGE_KINDS = ("encoder", "text", "joint")


@dataclass(frozen=True)
class ModelRecipe:
    """Sizes of a small model made from nothing but its encoder's pretrained weights."""

    image_size: int = 256
    """Side in pixels of the square input."""
    width: int = 256
    """Channels of SAM2's neck and mask decoder."""
    hidden_size: int = 256
    """Width of the language model."""
    layers: int = 6
    """Layers of the language model."""
    vocab_size: int = 4096
    """Tokens of the byte-level BPE tokenizer, special ones included."""
    encoder: str = "efficientnet-lite0"
    """What the vision encoder starts from: "efficientnet-lite0" (ImageNet weights of the package of that name) or "random"."""


@dataclass(frozen=True)
class StageRecipe:
    """One stage of the training."""

    name: str
    """Name of the stage in logs and checkpoints."""
    kind: str
    """"encoder" (masks from one learned prompt a target), "text" (the language alone) or "joint" (the paper's training)."""
    steps: int
    """Optimizer steps."""
    batch: int = 8
    """Images a step; texts a step for "text"."""
    turns: int = 2
    """Questions (or targets) an image."""
    learning_rates: dict[str, float] = field(default_factory=dict)
    """Peak learning rate of each part: backbone, grounding, language, head; a part that is not named is frozen."""
    warmup: float = 0.05
    """Share of the steps in which the rate rises; then a cosine to `final`."""
    final: float = 0.0
    """Last learning rate as a share of the peak."""
    weight_decay: float = 0.05
    """AdamW's weight decay, on matrices only."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    points: int = 0
    """Points a mask for the segmentation loss (published: 12544); 0 for every pixel."""
    dense_weight: float = 0.0
    """Weight of the auxiliary dense head, one channel a target (encoder and joint stages)."""
    presence_weight: float = 0.0
    """Weight of the presence score's loss."""
    quality_weight: float = 0.0
    """Weight of the mask score's loss."""
    label_weight: float = 0.0
    """Weight of the auxiliary image label head."""
    distill_weight: float = 0.0
    """Weight that pulls the prompt of `[SEG]` towards the encoder stage's prompt of that target."""
    tasks: dict[str, float] = field(default_factory=dict)
    """Share of each task among the questions; empty for the default mixture."""
    augment: float = 1.0
    """Strength of the random views; 0 for none."""


@dataclass(frozen=True)
class DataRecipe:
    """What is read and how often."""

    datasets: list[str] | None = None
    """Data sets; all that are found when left out."""
    power: float = 0.4
    """A data set of n images is drawn n ** power times as often as one of a single image."""
    weights: dict[str, float] = field(default_factory=dict)
    """Extra factors on the draw of data sets."""


@dataclass(frozen=True)
class Recipe:
    """A whole training."""

    model: ModelRecipe
    data: DataRecipe
    stages: list[StageRecipe]
    seed: int = 42
    """Of everything random."""
    checkpoint_minutes: float = 3.0
    """Time between checkpoints."""


def _build(cls: type, values: Any, where: str) -> Any:
    if not isinstance(values, dict):
        raise DataError(f"{where} must be a table of settings, not {type(values).__name__}")
    known = {f.name: f for f in fields(cls)}
    if unknown := sorted(set(values) - set(known)):
        raise DataError(f"{where}: unknown setting '{unknown[0]}'; known ones are {', '.join(known)}")
    for name, value in values.items():
        kind = str(known[name].type).split("[")[0].split(" ")[0]
        expected = {"int": int, "float": (int, float), "str": str, "dict": dict, "list": list}[kind]
        if value is not None and (not isinstance(value, expected) or isinstance(value, bool)):
            raise DataError(f"{where}: '{name}' should be {known[name].type}, not {value!r}")
    try:
        return cls(**values)
    except TypeError as error:
        raise DataError(f"{where}: {str(error).split('__init__() ')[-1]}") from None


def read_recipe(path: str | Path) -> Recipe:
    """Read a recipe file.

    Raises
    ------
    DataError
        If the file is missing, is not YAML, or holds a setting that is unknown or of the wrong type.
    """
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"recipe '{path}' cannot be read: {getattr(error, 'strerror', None) or 'not text'}") from error
    except yaml.YAMLError as error:
        raise DataError(f"recipe '{path}' is not valid YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(values, dict):
        raise DataError(f"recipe '{path}' is empty: see recipes/nano.yaml for an example")
    values = dict(values)
    values["model"] = _build(ModelRecipe, values.get("model") or {}, f"{path.name}: model")
    values["data"] = _build(DataRecipe, values.get("data") or {}, f"{path.name}: data")
    stages = values.get("stages")
    if not isinstance(stages, list) or not stages:
        raise DataError(f"{path.name}: 'stages' must list at least one stage")
    values["stages"] = [_build(StageRecipe, stage, f"{path.name}: stage {i + 1}") for i, stage in enumerate(stages)]
    for stage in values["stages"]:
        if stage.kind not in STAGE_KINDS:
            raise DataError(f"{path.name}: stage '{stage.name}' has kind '{stage.kind}', not {', '.join(STAGE_KINDS)}")
        if stage.steps < 1 or stage.batch < 1:
            raise DataError(f"{path.name}: stage '{stage.name}' needs at least one step and a batch of one")
    unknown = sorted(set(values) - {f.name for f in fields(Recipe)})
    if unknown:
        raise DataError(f"{path.name}: unknown setting '{unknown[0]}'")
    return Recipe(**values)
