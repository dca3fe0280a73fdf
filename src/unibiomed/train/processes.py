"""The processes that share a training, and the precision they compute in, through accelerate."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, DistributedType

from unibiomed.errors import DataError

from .checkpoint import writing
from .log import find_trackers
from .recipe import Recipe

PRECISIONS = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}
REFUSED = (DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM)
"""Ways that divide the weights among processes as only they know; `unibiomed.train.divided` does what FSDP does."""

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3
"""Numbers of glibc's options in `mallopt` (malloc.h)."""


@contextmanager
def open_accelerator(recipe: Recipe, out: Path) -> Iterator[Accelerator]:
    """How accelerate sees this run, for as long as it lasts.

    Raises
    ------
    DataError
        If a tracker is not installed, or the precision or the way of sharing cannot be used.
    """
    trackers = find_trackers(recipe.trackers)
    try:
        try:
            accelerator = Accelerator(
                # on a machine without a GPU, accelerate would take several processes for as many trainings
                cpu=not torch.accelerator.is_available(),
                mixed_precision=PRECISIONS[recipe.precision],
                step_scheduler_with_optimizer=False,
                log_with=trackers or None,
                project_dir=out,
                kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
            )
        except ValueError as error:
            reason = str(error).splitlines()[0]
            raise DataError(f"precision {recipe.precision} cannot be used here ({reason}): choose another") from error
        try:
            if recipe.precision != "float32" and not accelerator.native_amp:
                raise DataError(f"precision {recipe.precision} needs a GPU: choose float32 or bfloat16")
            if accelerator.distributed_type in REFUSED:
                raise DataError(f"{accelerator.distributed_type.value} is not supported: use FSDP")
            yield accelerator
        finally:
            # a tracker may still hold what it has not written
            with writing(out):
                accelerator.end_training()
    finally:
        # accelerate keeps the precision of the first training of a process for all later ones
        AcceleratorState._reset_state(reset_partial_state=True)


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Take numbers too small to be normal for 0, for as long as this lasts.

    The gradients of masks that are sure fade below 1e-38, where a CPU multiplies eight times slower. Afterwards the
    thread counts as before: other code in it may rely on such numbers.
    """
    before = sys.float_info.min / 2 == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


@contextmanager
def memory_kept() -> Iterator[None]:
    """Let the C library (glibc) keep freed memory for the next step, for as long as this lasts.

    By default every large tensor is new memory, which the kernel has to fill with zeros, page by page: a quarter of the
    time of a step on a CPU.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    set_option = getattr(library, "mallopt", None)
    if library is None or set_option is None:
        yield
        return
    for option, value in ((MMAP_THRESHOLD, 2**31 - 1), (TRIM_THRESHOLD, 2**31 - 1), (TOP_PAD, 2**26)):
        set_option(option, value)
    try:
        yield
    finally:
        # the largest that glibc itself would come to
        for option, value in ((MMAP_THRESHOLD, 2**25), (TRIM_THRESHOLD, 2**26), (TOP_PAD, 2**17)):
            set_option(option, value)
        library.malloc_trim(0)


def scaled(accelerator: Accelerator) -> bool:
    """Whether a gradient may be infinite for its float16 scale alone: such a step is left out, the scale lowered."""
    return accelerator.scaler is not None and accelerator.scaler.get_scale() >= 1


def agreed(accelerator: Accelerator, wish: bool) -> bool:
    """What the first process wishes: clocks differ, and all must save together."""
    if accelerator.num_processes == 1:
        return wish
    flag = torch.tensor([float(wish and accelerator.is_main_process)], device=accelerator.device)
    return bool(accelerator.reduce(flag, "sum").item() > 0)
