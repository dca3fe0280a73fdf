"""What is wrapped for several devices: the losses of a batch as a module's output."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn
from torch.distributed.tensor import DTensor

from .divided import divide, leaves
from .stages import Counts, Stage


class Net(nn.Module):
    """The losses of a stage's batches as a module's output.

    Parameters
    ----------
    stage : Stage
    """

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.model, self.heads = stage.model, stage.heads
        self._losses = stage.losses

    def forward(self, batch: dict[str, Any], counts: Counts) -> dict[str, torch.Tensor]:
        """As `Stage.losses`."""
        return self._losses(batch, counts)


class DividedNet(Net):
    """The same with weights that are divided among processes (see `unibiomed.train.divided`).

    The gradients of a unit are spread in one exchange, whose size must be the same for all processes: here every weight
    that is trained has one, if only of 0. What no process has used is left without, so that the optimizer passes over
    it as it does in one process.

    Parameters
    ----------
    stage : Stage
        Its model and heads are divided, in place.
    accelerator : accelerate.Accelerator
    """

    def __init__(self, stage: Stage, accelerator: Accelerator) -> None:
        super().__init__(stage)
        self._autocast = accelerator.autocast
        self._idle: set[str] | None = None
        compute = torch.bfloat16 if accelerator.mixed_precision == "bf16" else None
        divide(self, stage.model, accelerator.device, compute)

    def forward(self, batch: dict[str, Any], counts: Counts) -> dict[str, torch.Tensor]:
        """As `Stage.losses`."""
        with self._autocast():
            losses = {name: loss.float() for name, loss in super().forward(batch, counts).items()}
        used = leaves(list(losses.values()))
        # what is divided even now belongs to a layer, which all processes use or none does
        own = {n: p for n, p in self.named_parameters() if p.requires_grad and not isinstance(p, DTensor) and p.numel()}
        idle = {name: parameter for name, parameter in own.items() if parameter not in used}
        self._idle = set(idle) if self._idle is None else self._idle & set(idle)
        first = next(iter(losses))
        return losses | {first: losses[first] + sum(0.0 * parameter.sum() for parameter in idle.values())}

    def forget_idle(self) -> None:
        """After a step's gradients, take away those of weights that no process has used; all must call it."""
        idle = set.intersection(*gather_object([self._idle]))
        for name, parameter in self.named_parameters():
            if name in idle:
                parameter.grad = None
        self._idle = None
