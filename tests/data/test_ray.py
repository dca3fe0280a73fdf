"""Two workers of a local Ray write the same bytes as one process does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from unibiomed.data.build import build_shards
from unibiomed.data.records import Record

# Ray starts servers, threads and signal handlers: it gets a process of its own.
CODE = """
import json, sys
from pathlib import Path
import ray
from unibiomed.data.build import build_shards
from unibiomed.data.records import Record, Region
from unibiomed.errors import DataError, OutputError

ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
folder, out = Path(sys.argv[1]), Path(sys.argv[2])
records = []
for stem in json.loads(sys.argv[3]):
    targets = (Region("liver", folder / f"{stem}_mask.png", values=(1,)),)
    records.append(Record(f"toy/{stem}", folder / f"{stem}.png", "toy", "CT", "abdomen", stem, "train", targets))
first = build_shards(records, out, ray=True, rows_per_shard=3, max_bad=0.2)
again = build_shards(records, out, ray=True, rows_per_shard=3, max_bad=0.2)
try:
    (out / "blocked").mkdir()
    (out / "blocked" / "toy").write_text("a file where a folder should be")
    build_shards(records, out / "blocked", ray=True)
except OutputError as error:
    told = str(error)
try:
    build_shards(records, out / "strict", ray=True, max_bad=0.0)
except DataError as error:
    stopped = str(error)
assert ray.is_initialized()
print(json.dumps([first.shards, first.kept, again.kept, first.problems, told, stopped]))
"""


@pytest.mark.slow
def test_two_workers_write_the_same_bytes(tmp_path: Path, make_records: Callable[..., list[Record]]) -> None:
    pytest.importorskip("ray.data", reason="Ray Data is not installed")
    import json

    records = make_records(tmp_path, "toy", 20)
    (tmp_path / "toy" / "train_0003.png").write_bytes(b"broken")
    stems = [record.key.removeprefix("toy/") for record in records]
    (tmp_path / "run.py").write_text(CODE)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "run.py"), str(tmp_path / "toy"), str(tmp_path / "ray"), json.dumps(stems)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    shards, kept, kept_again, problems, told, stopped = json.loads(done.stdout.splitlines()[-1])
    assert (shards, kept, kept_again) == (7, 0, 7)
    assert [key for key, _ in problems] == ["toy/train_0003"]
    assert "cannot be written" in told
    assert "train_0003.png" in stopped
    packed = [
        Record(r.key, r.image, "toy", "CT", "abdomen", r.key.removeprefix("toy/"), "train", (r.regions[0],))
        for r in records
    ]
    build_shards(packed, tmp_path / "one", workers=1, rows_per_shard=3, max_bad=0.2)
    for name in ("index.json", "problems.jsonl", *(f"toy/train-{n:05d}.parquet" for n in range(7))):
        assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
