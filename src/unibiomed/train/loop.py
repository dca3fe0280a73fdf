"""One stage: made ready, learned step by step with checkpoints, and closed."""

from __future__ import annotations

import copy
import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from unibiomed.errors import DataError
from unibiomed.model.modeling import UniBiomedModel

from .checkpoint import load_modules, load_optimizer
from .divided import copy_whole, whole
from .failures import last_good
from .heldout import held_out_dice
from .loading import Step, Steps, load_steps, to_device
from .lora import add_lora, has_lora, merge_lora
from .mixture import Source
from .net import DividedNet, Net
from .optimizer import MovingAverage, make_optimizer, rate_factor
from .processes import agreed, scaled
from .progress import Progress
from .recipe import Recipe, StageRecipe
from .run import Run
from .stages import STAGES, Stage
from .start import at_size
from .views import Viewer

MakeSource = Callable[[int, int], Source]
"""The source of one worker of so many of this process."""


def sample_random(recipe: Recipe, stage: StageRecipe, step: int, number: int) -> random.Random:
    """The random numbers of one sample of a step."""
    return random.Random(f"{recipe.seed}/{stage.name}/{step}/{number}")


@dataclass
class Learning:
    """What learns in a stage.

    Attributes
    ----------
    stage : Stage
    net : torch.nn.Module
        The stage's losses, as wrapped for the devices.
    optimizer : accelerate's optimizer
    mean : MovingAverage or None
    """

    stage: Stage
    net: nn.Module
    optimizer: Any
    mean: MovingAverage | None

    @property
    def modules(self) -> dict[str, nn.Module]:
        """What a checkpoint in the midst of the stage holds."""
        own: dict[str, nn.Module] = {"model": self.stage.model, "heads": self.stage.heads}
        return own if self.mean is None else own | {"ema": self.mean}


def run_stage(run: Run, number: int, make_source: MakeSource, state: dict[str, Any], resumed: Path | None) -> None:
    """Learn a stage, from the start or from a checkpoint in its midst, and save its end.

    Parameters
    ----------
    run : Run
        Its model and heads are changed.
    number : int
        Which stage of the recipe.
    make_source : callable
    state : dict
        Of the checkpoint; of a stage that begins, its ``step`` is 0.
    resumed : Path or None
        The checkpoint, if it lies in the midst of this stage.

    Raises
    ------
    DataError
        If the stage cannot be learned, or a loss is not a number.
    OutputError
        If a checkpoint or the log cannot be written.
    """
    settings, device = run.recipe.stages[number], run.accelerator.device
    _learn_stage(run, number, make_source, state, resumed)
    # what was divided, or wrapped, leaves its room on the device to the whole model
    run.accelerator.free_memory()
    if settings.lora:
        merge_lora(run.model)
    if run.recipe.evaluate and run.held_out and run.accelerator.is_main_process:
        model, heads = run.model.to(device), run.heads.to(device)
        scores = held_out_dice(model, heads, run.processor, run.held_out, run.recipe.evaluate, settings.kind)
        run.log.held_out(run.out / "heldout.csv", settings.name, settings.steps, scores)
        run.model.train()
        if run.divided:
            run.model.cpu(), run.heads.cpu()
    run.save(number + 1, 0, run.modules)


def _learn_stage(run: Run, number: int, make_source: MakeSource, state: dict[str, Any], resumed: Path | None) -> None:
    settings = run.recipe.stages[number]
    share = run.share(settings)
    learning = _begin(run, number, make_source, resumed)
    stage = learning.stage
    positions = _positions(run.accelerator, state if resumed else {})
    chance = partial(sample_random, run.recipe, settings)
    steps = Steps(stage, share, chance, make_source, positions, state["step"])
    batches = load_steps(steps, settings.steps - state["step"], run.recipe.workers)
    _learn(run, number, learning, batches, state["step"], dict(enumerate(positions)))
    if learning.mean is not None:
        learning.mean.copy_to_weights()
    if run.divided:
        copy_whole(stage.model, run.model)
        copy_whole(stage.heads, run.heads)


def _begin(run: Run, number: int, make_source: MakeSource, resumed: Path | None) -> Learning:
    recipe, settings, accelerator = run.recipe, run.recipe.stages[number], run.accelerator
    squared = run.model.config.shared_vision
    size = recipe.size_of(settings) if squared else run.processor.settings.grounding_size
    run.processor = at_size(run.processor, run.model, size)
    if settings.lora and not has_lora(run.model):
        # whatever came before in this process, the adapters start the same
        torch.manual_seed(sample_random(recipe, settings, -1, 0).getrandbits(63))
        add_lora(run.model, settings.lora)
    if settings.gradient_checkpointing or (number and recipe.stages[number - 1].gradient_checkpointing):
        _recompute(run.model, settings.gradient_checkpointing)
    viewer = Viewer(size, run.store, squared=squared)
    model, heads = copy.deepcopy((run.model, run.heads)) if run.divided else (run.model, run.heads)
    stage = STAGES[settings.kind](settings, model, heads, run.processor, viewer, make_source(0, 1))
    with accelerator.main_process_first():
        stage.prepare(recipe, run.out / "cache", run.data, run.progress)
    if run.divided:
        net = DividedNet(stage, accelerator)
        optimizer = accelerator.prepare_optimizer(make_optimizer(settings, model, heads))
    else:
        net, optimizer = accelerator.prepare(Net(stage), make_optimizer(settings, model, heads))
    mean = MovingAverage(model.named_parameters(), recipe.ema) if recipe.ema else None
    learning = Learning(stage, net, optimizer, mean)
    if resumed:
        load_optimizer(resumed, learning.optimizer.optimizer)
        if mean is not None:
            load_modules(resumed, {"ema": mean})
    return learning


def _recompute(model: UniBiomedModel, wanted: bool) -> None:
    # transformers has renamed these since 5.0
    kind = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"
    if wanted:
        getattr(model, f"{kind}_checkpointing_enable")({"use_reentrant": False})
    else:
        getattr(model, f"{kind}_checkpointing_disable")()


def _positions(accelerator: Accelerator, state: Mapping[str, Any]) -> list[Any]:
    """Where the source of each worker of this process stood; none are known where it does not matter."""
    positions = state.get("sources", [])
    if all(position is None for workers in positions for position in workers.values()):
        return []
    if len(positions) != accelerator.num_processes:
        raise DataError(
            f"the checkpoint is of {len(positions)} processes, this run has {accelerator.num_processes}: "
            "go on with as many, or choose another --out"
        )
    own = {int(worker): position for worker, position in positions[accelerator.process_index].items()}
    return [own.get(worker) for worker in range(len(own))]


def _learn(
    run: Run, number: int, learning: Learning, batches: Iterator[Step], start: int, sources: dict[int, Any]
) -> None:
    """The steps from `start` on, with checkpoints in between."""
    recipe, settings, accelerator = run.recipe, run.recipe.stages[number], run.accelerator
    optimizer = learning.optimizer
    saved = time.monotonic()
    with Progress(settings.name, settings.steps, start, run.progress) as progress:
        for step in range(start, settings.steps):
            began = time.monotonic()
            parts, (worker, position), problems = next(batches)
            sources[worker] = position
            run.problems |= problems
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * rate_factor(step, settings.steps, settings.warmup, settings.final)
            # dropout's numbers: a resumed run draws the same
            dropout = sample_random(recipe, settings, step, -1 - accelerator.process_index)
            torch.manual_seed(dropout.getrandbits(63))
            losses, norm = _gradients(learning, [to_device(p, accelerator.device) for p in parts], accelerator)
            # before the step: weights that are not numbers must not reach a checkpoint
            if not math.isfinite(sum(losses.values())) or not (math.isfinite(norm) or scaled(accelerator)):
                raise _not_a_number(run.out, settings.name, step, losses, norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if learning.mean is not None:
                learning.mean.update(step)
            if accelerator.is_main_process:
                run.log.add(settings.name, step, time.monotonic() - began, losses)
            progress.step(run.log.means)
            timed = not recipe.checkpoint_steps and time.monotonic() - saved > 60 * recipe.checkpoint_minutes
            if agreed(accelerator, timed) or (recipe.checkpoint_steps and (step + 1) % recipe.checkpoint_steps == 0):
                run.save(number, step + 1, learning.modules, optimizer.optimizer, dict(sources))
                saved = time.monotonic()


def _not_a_number(out: Path, stage: str, step: int, losses: Mapping[str, float], norm: float) -> DataError:
    named = ", ".join(f"{k} {v:.3g}" for k, v in losses.items())
    return DataError(
        f"the loss is not a number at step {step} of stage '{stage}' ({named}, gradient {norm:.3g}): lower its "
        f"learning rates{last_good(out)}"
    )


def _gradients(
    learning: Learning, parts: list[dict[str, Any]], accelerator: Accelerator
) -> tuple[dict[str, float], float]:
    """Gradients of one step: losses by name as of the whole step, and the gradient's norm before clipping."""
    stage, net, world = learning.stage, learning.net, accelerator.num_processes
    counts = _added(gather_object([_added([stage.counts(part) for part in parts])]))
    sums = []
    for i, part in enumerate(parts):
        last = i == len(parts) - 1
        with nullcontext() if last else accelerator.no_sync(net):
            losses = net(part, counts)
            # processes average their gradients, but each loss is already a share of the whole step's
            total = torch.stack(list(losses.values())).sum() * world
            if not total.requires_grad:
                # nothing in this part teaches what is trained, but every process takes the step
                total = total + 0 * torch.stack([p.sum() for p in _trained(learning)]).sum()
            accelerator.backward(total)
        sums.append({name: float(value.detach()) for name, value in losses.items()})
    if isinstance(net, DividedNet):
        net.forget_idle()
    norm = accelerator.clip_grad_norm_(_trained(learning), stage.recipe.clip or math.inf)
    return _added(gather_object([_added(sums)])), float(whole(norm))


def _trained(learning: Learning) -> list[torch.nn.Parameter]:
    return [p for group in learning.optimizer.param_groups for p in group["params"]]


def _added(tables: Iterable[Mapping[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for table in tables:
        for name, value in table.items():
            total[name] = total.get(name, 0.0) + value
    return total
