"""The training loop, the same on a laptop and on a cluster: stages in order, checkpoints, going on after a kill.

Every sample has random numbers of its own, made from the seed, the stage, the step and its number in the step. What a
step learns from therefore does not depend on how many processes share it, nor on what came before a kill. (Shards are
streams: there each process reads its own share, so the images of a step depend on the number of processes.)
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn
from tqdm import tqdm

from unibiomed.data import load_records
from unibiomed.data.index import INDEX
from unibiomed.data.records import Record
from unibiomed.errors import DataError
from unibiomed.model.modeling import UniBiomedModel
from unibiomed.model.processing import UniBiomedProcessor

from .calibrate import calibrate_scores
from .checkpoint import find_checkpoint, load_modules, load_optimizer, read_state, save_checkpoint, writing
from .heads import AuxiliaryHeads
from .heldout import held_out_dice
from .loading import Share, Steps, load_steps, to_device
from .log import Log
from .lora import add_lora, has_lora, merge_lora
from .mixture import Mixture, Shards, Source, check_streamed, streamed_licences
from .optimizer import MovingAverage, make_optimizer, rate_factor
from .plot import plot_log
from .processes import agreed, open_accelerator, scaled
from .recipe import Recipe, StageRecipe
from .stages import STAGES, Counts, Stage
from .start import at_size, export, load_start, make_model, make_processor, write_card
from .store import ImageStore
from .views import Viewer

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "is killed by signal: Killed")
"""What torch says when there is none left, the last of a process that prepares images."""


class Net(nn.Module):
    """What is wrapped for several devices: the losses of a batch as a module's output."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.model, self.heads = stage.model, stage.heads
        self._losses = stage.losses

    def forward(self, batch: dict[str, Any], counts: Counts) -> dict[str, torch.Tensor]:
        """As `Stage.losses`."""
        return self._losses(batch, counts)


def sample_random(recipe: Recipe, stage: StageRecipe, step: int, number: int) -> random.Random:
    """The random numbers of one sample of a step."""
    return random.Random(f"{recipe.seed}/{stage.name}/{step}/{number}")


@dataclass
class Run:
    """A training under way: what its parts share."""

    recipe: Recipe
    out: Path
    accelerator: Accelerator
    model: UniBiomedModel
    heads: AuxiliaryHeads
    processor: UniBiomedProcessor
    log: Log
    store: ImageStore | None
    held_out: list[Record]
    progress: bool

    @property
    def modules(self) -> dict[str, nn.Module]:
        """What a checkpoint holds."""
        return {"model": self.model, "heads": self.heads}

    def share(self, stage: StageRecipe) -> Share:
        """What this process does of a stage's steps.

        Raises
        ------
        DataError
            If the batch cannot be divided evenly.
        """
        world = self.accelerator.num_processes
        if stage.batch % (world * stage.accumulate):
            raise DataError(
                f"stage '{stage.name}': a batch of {stage.batch} cannot be divided among {world} processes in "
                f"{stage.accumulate} parts each; change batch or accumulate"
            )
        return Share(self.accelerator.process_index, world, stage.batch, stage.accumulate)

    def save(self, number: int, step: int, optimizer: torch.optim.Optimizer | None, more: dict[str, Any]) -> None:
        """Write a checkpoint; called by all processes, written by the first."""
        sources = gather_object([more.pop("sources", {})])
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            modules = self.modules | ({"ema": more["ema"]} if more.get("ema") else {})
            state = {"stage": number, "step": step, "sources": sources}
            save_checkpoint(self.out / "checkpoint", modules, optimizer, state)
        self.accelerator.wait_for_everyone()


def train(recipe: Recipe, data: Path, out: Path, *, progress: bool = True) -> Path:
    """Run a recipe, from the start or from its last checkpoint.

    Several processes (``torchrun``, ``accelerate launch``) share the work of each step.

    Parameters
    ----------
    recipe : Recipe
    data : Path
        Folder with data sets, or with shards of them.
    out : Path
        Folder for checkpoints, log and, at the end, ``model/`` and ``training.png``.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Path
        The model folder, which ``--model`` takes.

    Raises
    ------
    DataError
        If there is nothing to train on, a loss is not a number, memory runs out, or a checkpoint is broken or of
        another recipe.
    ModelError
        If the model to start from is missing or broken.
    OutputError
        If `out` cannot be written.
    """
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    # gradients of masks that are sure fade below 1e-38, where a CPU multiplies eight times slower
    torch.set_flush_denormal(True)
    try:
        with open_accelerator(recipe, out) as accelerator:
            return _train(recipe, data, out, accelerator, progress and accelerator.is_main_process)
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _out_of_memory(out) from error
    except RuntimeError as error:
        if any(words in str(error) for words in OUT_OF_MEMORY):
            raise _out_of_memory(out) from error
        raise


def _out_of_memory(out: Path) -> DataError:
    return DataError(
        f"memory ran out: raise 'accumulate', lower 'batch', 'image_size' or 'workers', or set gradient_checkpointing; "
        f"the last good checkpoint is '{out / 'checkpoint'}'"
    )


def _train(recipe: Recipe, data: Path, out: Path, accelerator: Accelerator, progress: bool) -> Path:
    main = accelerator.is_main_process
    sharded = (data / INDEX).exists()
    if sharded:
        check_streamed(recipe.stages)
    everything = [] if sharded else load_records(data, recipe.data.datasets)
    records = [r for r in everything if r.split == "train"]
    seen = [r for r in records if r.image is not None]
    if not seen and not sharded:
        raise DataError(f"no training image under '{data}'")
    torch.manual_seed(recipe.seed)
    if recipe.model.start:
        model, processor = load_start(recipe.model.start)
        # the sizes of the recipe are those of a new model
        recipe = replace(recipe, model=replace(recipe.model, image_size=model.config.image_size))
    elif sharded:
        raise DataError("a new model takes its words from records: give the data root, or 'start' in the recipe")
    else:
        # one process makes files that the others read
        with accelerator.main_process_first():
            processor = make_processor(recipe.model, records, out / "processor")
        model = make_model(recipe.model, processor)
    heads = AuxiliaryHeads.for_records(seen, model.config.grounding_config.prompt_encoder_config.hidden_size)
    squared = model.config.shared_vision
    with accelerator.main_process_first():
        store = ImageStore(seen, recipe.store_size, out / "cache") if squared and not sharded else None

    found = find_checkpoint(out / "checkpoint")
    state: dict[str, Any] = {"stage": 0, "step": 0} if found is None else read_state(found)
    first = state["stage"]
    if first + bool(state["step"]) > len(recipe.stages):
        raise DataError(f"checkpoint '{found}' was made by another recipe, of more stages: choose another --out")
    if state["step"] and (lora := recipe.stages[first].lora):
        add_lora(model, lora)
    if found is not None:
        load_modules(found, {"model": model, "heads": heads})
    done = {stage.name: math.inf for stage in recipe.stages[:first]}
    done |= {stage.name: state["step"] for stage in recipe.stages[first : first + 1]}
    held_out = [r for r in everything if r.split == "val" and r.image is not None and r.regions]
    log = Log(out / "log.csv", done, accelerator)
    run = Run(recipe, out, accelerator, model.train(), heads, processor, log, store, held_out, progress)
    if accelerator.log_with:
        accelerator.init_trackers("unibiomed")
    for number in range(first, len(recipe.stages)):
        stage_recipe = recipe.stages[number]
        kept = records if stage_recipe.kind == "text" else seen
        make_source = partial(_make_source, data if sharded else kept, recipe, number, accelerator)
        resumed = found if number == first and state["step"] else None
        _run_stage(run, number, make_source, state if resumed else {"step": 0}, resumed)
    size = recipe.size_of(recipe.stages[-1]) if squared else processor.settings.grounding_size
    processor = at_size(processor, model, size)
    model = model.cpu()
    if main and held_out and squared and model.config.scores_trained:
        val_store = ImageStore(held_out, size, out / "cache")
        calibrate_scores(model, processor, val_store, held_out, recipe.seed, progress=progress)
    folder = out / "model"
    if main:
        export(model, processor, folder)
        licences = streamed_licences(data, recipe.data) if sharded else {r.dataset: r.licence for r in records}
        write_card(folder, model, licences)
        plot_log(out / "log.csv", out / "heldout.csv", out / "training.png")
    accelerator.wait_for_everyone()
    return folder


def _make_source(
    data: Path | list[Record], recipe: Recipe, number: int, accelerator: Accelerator, worker: int, workers: int
) -> Source:
    if isinstance(data, list):
        return Mixture(data, recipe.data)
    rank, world = accelerator.process_index, accelerator.num_processes
    # each stage in an order of its own: a stage may end before it has seen everything
    return Shards(data, recipe.data, recipe.seed + number, rank, world, worker, workers)


def _run_stage(run: Run, number: int, make_source: Any, state: dict[str, Any], resumed: Path | None) -> None:
    recipe, accelerator, settings = run.recipe, run.accelerator, run.recipe.stages[number]
    squared = run.model.config.shared_vision
    size = recipe.size_of(settings) if squared else run.processor.settings.grounding_size
    run.processor = at_size(run.processor, run.model, size)
    viewer = Viewer(size, run.store, squared=squared)
    chance = partial(sample_random, recipe, settings)
    if settings.lora and not has_lora(run.model):
        # whatever came before in this process, the adapters start the same
        torch.manual_seed(chance(-1, 0).getrandbits(63))
        add_lora(run.model, settings.lora)
    if settings.gradient_checkpointing:
        run.model.gradient_checkpointing_enable({"use_reentrant": False})
    elif number and recipe.stages[number - 1].gradient_checkpointing:
        run.model.gradient_checkpointing_disable()
    stage = STAGES[settings.kind](settings, run.model, run.heads, run.processor, viewer, make_source(0, 1))
    optimizer: Any = make_optimizer(settings, run.model, run.heads)
    share = run.share(settings)
    net, optimizer = accelerator.prepare(Net(stage), optimizer)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    mean = MovingAverage(run.model.named_parameters(), recipe.ema) if recipe.ema else None
    if resumed:
        load_optimizer(resumed, optimizer.optimizer)
        if mean is not None:
            load_modules(resumed, {"ema": mean})
    start = state["step"]
    sources: dict[int, Any] = {}
    positions = state.get("sources", []) if resumed else []
    if any(position is not None for workers in positions for position in workers.values()):
        if len(positions) != accelerator.num_processes:
            raise DataError(
                f"the checkpoint is of {len(positions)} processes, this run has {accelerator.num_processes}: "
                "go on with as many, or choose another --out"
            )
        sources = {int(worker): position for worker, position in positions[accelerator.process_index].items()}
    steps = Steps(stage, share, chance, make_source, [sources.get(w) for w in range(len(sources))], start)
    batches = load_steps(steps, settings.steps - start, recipe.workers)
    saved = time.monotonic()
    bar = tqdm(
        total=settings.steps, initial=start, desc=settings.name, unit="step", disable=not run.progress, smoothing=0.05
    )
    with bar:
        for step in range(start, settings.steps):
            began = time.monotonic()
            parts, (worker, position) = next(batches)
            sources[worker] = position
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * rate_factor(step, settings.steps, settings.warmup, settings.final)
            # dropout's numbers: a resumed run draws the same
            torch.manual_seed(chance(step, -1 - accelerator.process_index).getrandbits(63))
            losses, norm = _learn(
                net, [to_device(p, accelerator.device) for p in parts], stage, accelerator, parameters
            )
            # before the step: weights that are not numbers must not reach a checkpoint
            if not math.isfinite(sum(losses.values())) or not (math.isfinite(norm) or scaled(accelerator)):
                named = ", ".join(f"{k} {v:.3g}" for k, v in losses.items())
                raise DataError(
                    f"the loss is not a number at step {step} of stage '{settings.name}' ({named}, gradient "
                    f"{norm:.3g}): lower its learning rates; the last good checkpoint is '{run.out / 'checkpoint'}'"
                )
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if mean is not None:
                mean.update(step)
            if accelerator.is_main_process:
                run.log.add(settings.name, step, time.monotonic() - began, losses)
            bar.update()
            if step % 20 == 0:
                bar.set_postfix_str(" ".join(f"{k} {v:.3f}" for k, v in run.log.means.items()))
            timed = not recipe.checkpoint_steps and time.monotonic() - saved > 60 * recipe.checkpoint_minutes
            if agreed(accelerator, timed) or (recipe.checkpoint_steps and (step + 1) % recipe.checkpoint_steps == 0):
                run.save(number, step + 1, optimizer.optimizer, {"ema": mean, "sources": dict(sources)})
                saved = time.monotonic()
    if mean is not None:
        mean.copy_to_weights()
    if settings.lora:
        merge_lora(run.model)
    if recipe.evaluate and run.held_out and accelerator.is_main_process:
        scores = held_out_dice(run.model, run.heads, run.processor, run.held_out, recipe.evaluate, settings.kind)
        run.log.held_out(run.out / "heldout.csv", settings.name, settings.steps, scores)
        run.model.train()
    run.save(number + 1, 0, None, {})
    accelerator.free_memory()


def _learn(
    net: nn.Module,
    parts: list[dict[str, Any]],
    stage: Stage,
    accelerator: Accelerator,
    parameters: list[nn.Parameter],
) -> tuple[dict[str, float], float]:
    """Gradients of one step: losses by name as of the whole step, and the gradient's norm before clipping."""
    world = accelerator.num_processes
    counts = _added(gather_object([_added([stage.counts(part) for part in parts])]))
    sums = []
    for i, part in enumerate(parts):
        last = i == len(parts) - 1
        with nullcontext() if last else accelerator.no_sync(net):
            losses = net(part, counts)
            # processes average their gradients, but each loss is already a share of the whole step's
            accelerator.backward(torch.stack(list(losses.values())).sum() * world)
        sums.append({name: float(value.detach()) for name, value in losses.items()})
    norm = accelerator.clip_grad_norm_(parameters, stage.recipe.clip or math.inf)
    return _added(gather_object([_added(sums)])), float(norm)


def _added(tables: Iterable[Mapping[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for table in tables:
        for name, value in table.items():
            total[name] = total.get(name, 0.0) + value
    return total
