"""Workers know which they are."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from unibiomed.data import processes
from unibiomed.data.processes import in_processes, worker_number

CODE = """
import os, time
from pathlib import Path
from unibiomed.data.processes import worker_number

def work(folder):
    (Path(folder) / str(os.getpid())).touch()
    # nobody does all the work before the others have begun
    until = time.monotonic() + 120
    while len(list(Path(folder).iterdir())) < 3 and time.monotonic() < until:
        time.sleep(0.02)
    return os.getpid(), worker_number()
"""


def test_each_worker_has_a_number_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # workers import what they do from where this process would
    (tmp_path / "numbered_work.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    from numbered_work import work

    for again in ("one", "two"):
        (tmp_path / again).mkdir()
        found = list(in_processes(work, [str(tmp_path / again)] * 7, 3))
        assert len(found) == 7 and len(set(found)) == 3
        assert sorted(number for _, number in set(found)) == [0, 1, 2]
    assert worker_number() is None


def test_a_process_alone_is_no_worker() -> None:
    assert list(in_processes(lambda item: (item, worker_number()), "ab", 1)) == [("a", None), ("b", None)]


THREADS = """
import os

def count(early):
    import torch
    return torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]
"""


@pytest.mark.parametrize("early", [False, True], ids=["torch later", "torch first"])
@pytest.mark.parametrize(("cores", "asked", "threads"), [(8, None, 2), (2, None, 1), (8, "1", 1)])
def test_workers_share_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, early: bool, cores: int, asked: str | None, threads: int
) -> None:
    name = f"counted_{early}"
    (tmp_path / f"{name}.py").write_text(("import torch\n" if early else "") + THREADS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(processes, "_cores", lambda: cores)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    work = importlib.import_module(name).count
    for found, told in in_processes(work, [early] * 3, 4):
        # no more than the machine has
        assert 1 <= found <= threads and told == str(threads)
