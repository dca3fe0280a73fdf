"""Assignment of devices to workers."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from unibiomed.errors import DataError
from unibiomed.evaluate import distributed
from unibiomed.evaluate.distributed import run_in_processes, worker_device


@pytest.mark.parametrize(
    ("worker", "devices", "device"),
    [(0, 0, None), (3, 1, None), (0, 2, "cuda:0"), (1, 2, "cuda:1"), (5, 4, "cuda:1")],
)
def test_workers_use_devices_in_turn(worker, devices, device):
    assert worker_device(worker, devices) == device


def test_only_workers_get_a_device(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert distributed._device_of_this_worker() is None
    monkeypatch.setattr(distributed, "worker_number", lambda: 6)
    assert distributed._device_of_this_worker() == "cuda:2"


def test_killed_worker_gives_a_one_line_error():
    with pytest.raises(DataError, match="reduce --processes") as error:
        list(run_in_processes(os._exit, [1, 1], 2))
    assert "\n" not in str(error.value)


# Ray starts servers, threads and signal handlers, so it runs in a separate process. The GPUs do not exist: Ray
# schedules declared resources, and nothing is computed on them.
CODE = """
import json, os, sys, time
from pathlib import Path
import ray
from unibiomed.evaluate import distributed
from unibiomed.evaluate.samples import Partition

ray.init(num_cpus=3, num_gpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")


def run(case, model, device, numbers):
    folder = Path(sys.argv[1]) / case
    (folder / "started").mkdir(parents=True)
    alone = model.startswith("files") or device == "cpu"

    def predict(task):
        if task.partition.rank == 9:
            raise ValueError("broken")
        (folder / "started" / str(os.getpid())).touch()
        # wait until both workers have started
        until = time.monotonic() + 120
        while not alone and len(list((folder / "started").iterdir())) < 2 and time.monotonic() < until:
            time.sleep(0.05)
        row = [task.partition.rank, os.getpid(), ray.get_gpu_ids(), os.environ.get("CUDA_VISIBLE_DEVICES"), task.device]
        (folder / f"{task.partition.rank}.json").write_text(json.dumps(row))
        return {str(task.partition.rank): "unreadable"}

    distributed.run_prediction_task = predict
    tasks = [
        distributed.PredictionTask(None, (model,), Path("."), Path("."), device, Partition(i, 10)) for i in numbers
    ]
    assert distributed.predict_on_ray(tasks, 3, progress=False) == {str(number): "unreadable" for number in numbers}
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


found = [run("best", "nano", None, range(5)), run("named", "nano", "cuda:1", range(5))]
found += [run("cpu", "nano", "cpu", range(5)), run("files", "files:m", None, range(5))]
try:
    run("broken", "nano", None, [9])
except ValueError as error:
    found.append(str(error).strip().splitlines()[-1])
print(json.dumps(found))
"""


@pytest.mark.slow
def test_every_ray_worker_has_its_own_gpu(tmp_path):
    pytest.importorskip("ray")
    (tmp_path / "run.py").write_text(CODE)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "run.py"), str(tmp_path / "out")],
        env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    best, named, cpu, files, broken = json.loads(done.stdout.splitlines()[-1])
    for rows in (best, named):
        assert [row[0] for row in rows] == [0, 1, 2, 3, 4]
        # three workers were requested, but there are two GPUs
        seen = {pid: (gpus, visible, device) for _, pid, gpus, visible, device in rows}
        assert sorted(seen.values()) == [([0], "0", None), ([1], "1", None)]
    for rows, device in ((cpu, "cpu"), (files, None)):
        assert [(row[0], row[2], row[4]) for row in rows] == [(n, [], device) for n in range(5)]
    assert "broken" in broken
