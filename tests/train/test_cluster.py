"""Two workers of a local Ray train as one process does, and what they refuse is told in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from unibiomed.errors import DataError
from unibiomed.train.cluster import train_on_ray
from unibiomed.train.trainer import train

from .conftest import joint_recipe, logged, losses, recipe_text, state_of

# Ray starts servers, threads and signal handlers: it gets a process of its own.
CODE = """
import json, sys
from dataclasses import replace
from pathlib import Path
import ray
from unibiomed.errors import DataError
from unibiomed.train.cluster import train_on_ray
from unibiomed.train.recipe import read_recipe

ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
recipe, data, out = read_recipe(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
folder = train_on_ray(recipe, data, out / "two", 2)
try:
    odd = replace(recipe, stages=[replace(recipe.stages[0], batch=3)])
    train_on_ray(odd, data, out / "odd", 2)
except DataError as error:
    told = str(error)
assert ray.is_initialized()
print(json.dumps([str(folder), told]))
"""


@pytest.mark.slow
def test_two_workers_are_one_process(data_root: Path, tmp_path: Path, no_plot: None) -> None:
    pytest.importorskip("ray.train", reason="Ray Train is not installed")
    recipe = joint_recipe()
    (tmp_path / "recipe.yaml").write_text(recipe_text(recipe))
    (tmp_path / "run.py").write_text(CODE)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "run.py"), str(tmp_path / "recipe.yaml"), str(data_root), str(tmp_path)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    folder, told = json.loads(done.stdout.splitlines()[-1])
    assert told == (
        "stage 'joint': a batch of 3 cannot be divided among 2 processes in 1 parts each; change batch or accumulate"
    )
    assert folder == str(tmp_path / "two" / "model") and (tmp_path / "two" / "model" / "config.json").exists()
    assert state_of(tmp_path / "two")["sources"] == [{}, {}]
    train(recipe, data_root, tmp_path / "one", progress=False)
    assert logged(tmp_path / "two") == logged(tmp_path / "one")
    totals = [[float(loss) for loss, _ in losses(tmp_path / name)] for name in ("one", "two")]
    assert totals[1] == pytest.approx(totals[0], rel=1e-5, abs=1.1e-5)


def test_without_ray(monkeypatch: pytest.MonkeyPatch, data_root: Path, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DataError, match=r"pip install 'unibiomed\[ray\]'"):
        train_on_ray(joint_recipe(), data_root, tmp_path, 2)
    with pytest.raises(DataError, match="at least 1"):
        train_on_ray(joint_recipe(), data_root, tmp_path, 0)
