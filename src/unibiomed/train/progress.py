"""How far a stage is: a bar on a terminal, elsewhere a plain line now and then, for the log file of a cluster's job."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

from tqdm import tqdm

EVERY = 600.0
"""Seconds between two lines."""


class Progress:
    """What is shown of a stage on stderr.

    Parameters
    ----------
    stage : str
    steps, start : int
        All of the stage, and those that a checkpoint holds.
    shown : bool
        False shows nothing.
    """

    def __init__(self, stage: str, steps: int, start: int, shown: bool) -> None:
        self.stage, self.steps, self.start, self.done = stage, steps, start, start
        # None leaves the bar out where stderr is no terminal
        disable = None if shown else True
        self._bar = tqdm(total=steps, initial=start, desc=stage, unit="step", disable=disable, smoothing=0.05)
        self._lines = shown and self._bar.disable
        self._began = time.monotonic()
        self._told = -EVERY

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def step(self, means: Mapping[str, float]) -> None:
        """One step more; `means` are the running means of the losses.

        A line comes with the first step of a run, with the last of the stage, and every `EVERY` seconds between.
        """
        self._bar.update()
        self.done += 1
        losses = " ".join(f"{name} {mean:.3f}" for name, mean in means.items())
        if self.done % 20 == 1:
            self._bar.set_postfix_str(losses)
        passed = time.monotonic() - self._began
        if self._lines and (self.done == self.steps or passed - self._told >= EVERY):
            left = tqdm.format_interval(passed / (self.done - self.start) * (self.steps - self.done))
            print(f"{self.stage}: step {self.done} of {self.steps}, {left} left; {losses}", file=sys.stderr, flush=True)
            self._told = passed
