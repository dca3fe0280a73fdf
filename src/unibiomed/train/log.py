"""What is written while a training runs: a CSV file of the losses, and trackers such as TensorBoard."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from accelerate import Accelerator

from unibiomed.data.index import replacing
from unibiomed.errors import DataError

from .checkpoint import writing

PROBLEMS = "problems.jsonl"
"""File in the folder of a training that names the broken records of shards."""


def find_trackers(names: Sequence[str] | None) -> list[str]:
    """The trackers to use: those named, or TensorBoard if it is installed.

    Raises
    ------
    DataError
        If one that is named is not installed.
    """
    if names is None:
        return ["tensorboard"] if find_spec("tensorboard") else []
    for name in names:
        if not find_spec(name):
            raise DataError(f"tracker '{name}' is not installed: pip install {name}, or leave it out of 'trackers'")
    return list(names)


def read_problems(path: Path) -> dict[str, str]:
    """What `write_problems` wrote; nothing where there is no such file."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return {row["record"]: row["problem"] for row in rows}
    return {}


def write_problems(path: Path, problems: Mapping[str, str]) -> None:
    """Name broken records in a file, one JSON object a line; where there are none, there is no file.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    rows = [json.dumps({"record": name, "problem": problem}) + "\n" for name, problem in sorted(problems.items())]
    with replacing(path) as fresh:
        if rows:
            fresh.write_text("".join(rows), encoding="utf-8")


class Log:
    """Losses by step in a CSV file, and the running means of each loss.

    Parameters
    ----------
    path : Path
    done : dict of str to float
        Steps of each stage that the checkpoint holds; what the file tells of others is dropped, they are run again.
    accelerator : Accelerator, optional
        Has the trackers. Only its first process should write.
    """

    HEADER = ("stage", "step", "seconds", "loss", "parts")

    def __init__(self, path: Path, done: dict[str, float], accelerator: Accelerator | None = None) -> None:
        self.means: dict[str, float] = {}
        self.accelerator = accelerator
        self.steps = 0
        if accelerator is not None and not accelerator.is_main_process:
            return
        self.path = path
        rows: list[list[str]] = []
        if path.exists():
            with path.open(newline="") as file:
                # a kill may have cut the last row short
                whole = [row for row in csv.reader(file) if len(row) == len(self.HEADER)]
            rows = [row for row in whole if row[1].isdigit() and int(row[1]) < done.get(row[0], 0)]
        self.steps = len(rows)
        self._write("w", [self.HEADER, *rows])

    def _write(self, mode: str, rows: Iterable[Iterable[object]]) -> None:
        with writing(self.path), self.path.open(mode, newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)

    def _track(self, values: dict[str, float]) -> None:
        if self.accelerator is not None:
            with writing(self.path.parent):
                self.accelerator.log(values, step=self.steps)

    def add(self, stage: str, step: int, seconds: float, losses: dict[str, float]) -> None:
        """Keep one step."""
        for name, value in losses.items():
            self.means[name] = 0.98 * self.means.get(name, value) + 0.02 * value
        parts = " ".join(f"{name}={value:.4f}" for name, value in losses.items())
        self._write("a", [[stage, step, f"{seconds:.2f}", f"{sum(losses.values()):.5f}", parts]])
        self.steps += 1
        self._track({f"loss/{name}": value for name, value in losses.items()} | {"loss/total": sum(losses.values())})

    def held_out(self, path: Path, stage: str, step: int, dice: Mapping[str, float]) -> None:
        """Keep the Dice of each target on held-out images at the end of a stage."""
        rows: list[list[object]] = []
        if path.exists():
            with path.open(newline="") as file:
                rows = [list(row) for row in list(csv.reader(file))[1:] if row and row[0] != stage]
        rows += [[stage, step, target, f"{value:.4f}"] for target, value in sorted(dice.items())]
        with writing(path), path.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([["stage", "step", "target", "dice"], *rows])
        if dice:
            mean = sum(dice.values()) / len(dice)
            self._track({f"dice/{t}": v for t, v in dice.items()} | {"dice/mean": mean})
