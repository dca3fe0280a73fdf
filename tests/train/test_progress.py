"""How far a training is: a bar on a terminal, plain lines in a log file, nothing where nothing is asked for."""

from __future__ import annotations

import io
import sys

import pytest

from unibiomed.train import progress
from unibiomed.train.progress import Progress


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


def shown(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch, *, wanted: bool = True) -> str:
    """What stands on stderr after the steps 10 to 40 of a stage, a minute each."""
    now = 0.0
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with Progress("encoder", 40, 10, wanted) as steps:
        for _ in range(30):
            now += 60
            steps.step({"mask": 0.5, "text": 1.25})
    return stream.getvalue()


def test_lines_in_a_log_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the first step, every ten minutes, and with the last."""
    assert shown(io.StringIO(), monkeypatch).splitlines() == [
        "encoder: step 11 of 40, 29:00 left; mask 0.500 text 1.250",
        "encoder: step 21 of 40, 19:00 left; mask 0.500 text 1.250",
        "encoder: step 31 of 40, 09:00 left; mask 0.500 text 1.250",
        "encoder: step 40 of 40, 00:00 left; mask 0.500 text 1.250",
    ]


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    told = shown(Screen(), monkeypatch)
    assert "\r" in told and "40/40" in told and "step 11 of 40" not in told


def test_nothing_where_nothing_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(io.StringIO(), monkeypatch, wanted=False) == shown(Screen(), monkeypatch, wanted=False) == ""
