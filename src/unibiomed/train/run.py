"""A training under way: what its stages share, and how all of its processes save it together."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from unibiomed.data.records import Record
from unibiomed.errors import DataError
from unibiomed.model.modeling import UniBiomedModel
from unibiomed.model.processing import UniBiomedProcessor

from .checkpoint import save_checkpoint
from .heads import AuxiliaryHeads
from .loading import Share
from .log import PROBLEMS, Log, write_problems
from .recipe import Recipe, StageRecipe
from .store import ImageStore
from .validation import ShardedRecords


@dataclass
class Run:
    """A training under way: what its parts share."""

    recipe: Recipe
    out: Path
    accelerator: Accelerator
    divided: bool
    """Whether a stage learns divided copies of model and heads, which themselves stay whole (FSDP)."""
    model: UniBiomedModel
    heads: AuxiliaryHeads
    processor: UniBiomedProcessor
    log: Log
    store: ImageStore | None
    held_out: list[Record] | ShardedRecords
    progress: bool
    data: str
    """Digest of what is learned from."""
    problems: dict[str, str] = field(default_factory=dict)
    """Broken records of shards that this process left out: name, and what is wrong; the first process has all."""

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

    def save(
        self,
        number: int,
        step: int,
        modules: dict[str, nn.Module],
        optimizer: torch.optim.Optimizer | None = None,
        sources: dict[int, Any] | None = None,
    ) -> None:
        """Write a checkpoint; called by all processes, written by the first.

        Parameters
        ----------
        number, step : int
            Stage and step to go on with.
        modules : dict of str to torch.nn.Module
            A file each.
        optimizer : torch.optim.Optimizer, optional
            In the midst of a stage.
        sources : dict of int to JSON, optional
            Where each worker of this process stands in its source.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        learned = [stage.name for stage in self.recipe.stages[: number + bool(step)]]
        state: dict[str, Any] = {"stage": number, "step": step, "stages": learned, "data": self.data}
        state["sources"] = gather_object([sources or {}])
        if self.accelerator.scaler is not None:
            # numbers only; without them float16 would search for its scale again
            state["scaler"] = self.accelerator.scaler.state_dict()
        found = gather_object([self.problems])
        self.accelerator.wait_for_everyone()
        main = self.accelerator.is_main_process
        if main:
            self.problems = {name: problem for problems in found for name, problem in problems.items()}
            write_problems(self.out / PROBLEMS, self.problems)
        save_checkpoint(self.out / "checkpoint", modules, optimizer, state, write=main)
        self.accelerator.wait_for_everyone()
