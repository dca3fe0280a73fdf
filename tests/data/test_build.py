"""Builds are the same however they run and however often they were killed, and say what they left out."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from unibiomed.cli import main
from unibiomed.data import build
from unibiomed.data import plan as plans
from unibiomed.data.build import PROBLEMS, build_shards
from unibiomed.data.check_shards import check_shards
from unibiomed.data.index import INDEX, locked, read_index
from unibiomed.data.pixels import voxel_files
from unibiomed.data.plan import NOTES, plan_shards
from unibiomed.data.reader import ShardReader
from unibiomed.data.records import Record, Region
from unibiomed.data.shards import row_to_record
from unibiomed.errors import DataError, OutputError

MakeRecords = Callable[..., list[Record]]
ENTRY = """
name = "{name}"
licence = "CC0"
adapter = "images"
modality = "CT"
site = "abdomen"
images = "images"
[[targets]]
name = "liver"
"""


def contents(out: Path) -> dict[str, bytes]:
    """All shards, the index and the problems."""
    paths = [*out.glob("*/*.parquet"), *out.glob("*.json*")]
    return {str(path.relative_to(out)): path.read_bytes() for path in paths}


def made_root(folder: Path, name: str = "toy", count: int = 40) -> Path:
    """A data root as a user has it."""
    for kind in ("images", "masks"):
        (folder / name / kind).mkdir(parents=True)
    for number in range(count):
        rng = np.random.default_rng(number)
        Image.fromarray(rng.integers(0, 256, (16, 24, 3), dtype=np.uint8)).save(folder / name / f"images/{number}.png")
        Image.fromarray(rng.integers(0, 2, (16, 24), dtype=np.uint8)).save(folder / name / f"masks/{number}.png")
    (folder / name / "dataset.toml").write_text(ENTRY.format(name=name))
    return folder


def test_every_record_is_written_once(tmp_path: Path, make_records: MakeRecords) -> None:
    records = [
        *make_records(tmp_path, "toy", 25),
        *make_records(tmp_path, "toy", 7, split="test"),
        *make_records(tmp_path, "other", 9, "MRI", questions=True),
    ]
    report = build_shards(records, tmp_path / "out", workers=1, rows_per_shard=10)
    shards = {shard.file: shard for shard in read_index(tmp_path / "out").shards}
    assert list(shards) == [
        "other/train-00000.parquet",
        "toy/test-00000.parquet",
        "toy/train-00000.parquet",
        "toy/train-00001.parquet",
        "toy/train-00002.parquet",
    ]
    assert (report.shards, report.records, report.kept, report.problems) == (5, 41, 0, ())
    assert report.bytes == sum(path.stat().st_size for path in (tmp_path / "out").glob("*/*.parquet"))
    assert report.triplets == sum(shard.triplets for shard in shards.values()) == 32 * 3 + 9
    assert (shards["other/train-00000.parquet"].modality, shards["other/train-00000.parquet"].tasks) == (
        "MRI",
        ("question",),
    )
    assert shards["toy/train-00002.parquet"].groups == (5,)
    rows = [row for file in shards for row in pq.read_table(tmp_path / "out" / file).to_pylist()]
    assert sorted(row["key"] for row in rows) == sorted(record.key for record in records)
    by_key = {record.key: record for record in records}
    for row in rows:
        assert np.array_equal(row_to_record(row).load_image(), by_key[row["key"]].load_image())
    assert not (tmp_path / "out" / PROBLEMS).exists()


def test_the_plan_follows_from_the_records_alone(tmp_path: Path, make_records: MakeRecords) -> None:
    records = make_records(tmp_path, "toy", 30)

    def keys(plan: Any) -> list[list[str]]:
        return [[record.key for record in task.records] for task in plan]

    plan = keys(plan_shards(records, tmp_path, rows_per_shard=8))
    assert keys(plan_shards(records[::-1], tmp_path / "x", rows_per_shard=8)) == plan
    numbers = [int(key[-4:]) for shard in plan for key in shard]
    assert numbers != sorted(numbers)
    assert sum(abs(a - b) == 1 for a, b in pairwise(numbers)) < 8
    moved = [replace(record, image=Path("/elsewhere/toy") / Path(str(record.image)).name) for record in records]
    assert keys(plan_shards(moved, tmp_path, rows_per_shard=8)) == plan


def test_numbers_of_numpy_do_no_harm(tmp_path: Path, make_records: MakeRecords) -> None:
    (record,) = make_records(tmp_path, "toy", 1)
    x0, y0, x1, y1 = np.array([1, 2, 3, 4])
    record = replace(record, regions=(Region("liver", None, box=(x0, y0, x1, y1)),), spacing=(np.float32(0.5), 1.0))
    build_shards([record], tmp_path / "out", workers=1)
    (sample,) = ShardReader(tmp_path / "out").epoch(0)
    assert sample.record.regions == (Region("liver", None, box=(1, 2, 3, 4)),)
    assert sample.record.spacing == (0.5, 1.0)


def test_slices_of_a_volume_share_a_shard(tmp_path: Path, make_records: MakeRecords) -> None:
    (record,) = make_records(tmp_path, "toy", 1)
    slices = [
        replace(record, key=f"toy/{volume}_{number}", image=Path(f"/d/{volume}.nii"), slice_index=number, regions=())
        for volume in range(8)
        for number in range(5)
    ]
    plan = plan_shards(slices, tmp_path, rows_per_shard=10)
    homes = {
        volume: {i for i, task in enumerate(plan) for r in task.records if f"/{volume}_" in r.key}
        for volume in range(8)
    }
    assert all(len(shards) == 1 for shards in homes.values())
    first = [record.key for record in plan[0].records]
    assert first != sorted(first)


def test_processes_and_order_change_nothing(tmp_path: Path, make_records: MakeRecords) -> None:
    records = make_records(tmp_path, "toy", 20)
    records[3].image.write_bytes(b"broken")  # type: ignore[union-attr]
    options: dict[str, Any] = {"rows_per_shard": 3, "max_bad": 0.5}
    build_shards(records, tmp_path / "one", workers=1, **options)
    build_shards(records[::-1], tmp_path / "two", workers=2, **options)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert len(contents(tmp_path / "one")) == 7 + 2


def test_finished_shards_are_kept_and_others_redone(tmp_path: Path, make_records: MakeRecords) -> None:
    records = make_records(tmp_path, "toy", 20)
    out = tmp_path / "out"
    options: dict[str, Any] = {"workers": 1, "rows_per_shard": 4}
    build_shards(records, out, **options)
    before = contents(out)
    times = {path: path.stat().st_mtime_ns for path in out.glob("*/*.parquet")}
    assert build_shards(records, out, **options).kept == 5
    assert {path: path.stat().st_mtime_ns for path in out.glob("*/*.parquet")} == times

    # What a kill or a full disk may leave.
    (out / "toy" / "train-00001.parquet").write_bytes(b"half")
    (out / "toy" / "train-00002.parquet").unlink()
    (out / NOTES / "toy" / "train-00003.json").unlink()
    (out / "toy" / ".train-00004.parquet.1234.tmp").write_bytes(b"half")
    (out / INDEX).unlink()
    assert build_shards(records, out, **options).kept == 2
    (out / NOTES / "toy" / "train-00000.json").write_text("{")
    assert build_shards(records, out, **options).kept == 4
    assert contents(out) == before
    assert not list(out.rglob("*.tmp"))

    assert build_shards(records, out, image_size=12, **options).kept == 0
    assert contents(out) != before


def test_a_damaged_shard_is_built_again(tmp_path: Path, make_records: MakeRecords) -> None:
    records = make_records(tmp_path, "toy", 12)
    out = tmp_path / "out"
    build_shards(records, out, workers=1, rows_per_shard=4)
    before = contents(out)
    path = out / "toy" / "train-00001.parquet"
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    (problem,) = check_shards(out).problems
    assert (problem.kind, problem.severity, problem.files) == ("damaged shard", "error", ("toy/train-00001.parquet",))
    assert build_shards(records, out, workers=1, rows_per_shard=4).kept == 2
    assert contents(out) == before
    assert not check_shards(out).problems


def test_a_changed_image_is_built_again(tmp_path: Path, make_records: MakeRecords) -> None:
    records = make_records(tmp_path, "toy", 20)
    build_shards(records, tmp_path / "out", workers=1, rows_per_shard=4)
    assert isinstance(records[7].image, Path)
    Image.new("RGB", (24, 16), (1, 2, 3)).save(records[7].image)
    assert build_shards(records, tmp_path / "out", workers=1, rows_per_shard=4).kept == 4
    samples = {sample.record.key: sample.pixels for sample in ShardReader(tmp_path / "out").epoch(0)}
    pixels = samples[records[7].key]
    assert pixels is not None
    assert (pixels == (1, 2, 3)).all()


def test_data_sets_join_and_shrink(tmp_path: Path, make_records: MakeRecords) -> None:
    toy, other = make_records(tmp_path, "toy", 12), make_records(tmp_path, "other", 5)
    out = tmp_path / "out"
    (out / "toy").mkdir(parents=True)
    (out / "toy" / "train-00009.parquet").write_bytes(b"not ours")
    build_shards(toy, out, workers=1, rows_per_shard=4)
    build_shards(other, out, workers=1, rows_per_shard=4)
    assert ShardReader(out).total == 17
    build_shards(toy[:3], out, workers=1, rows_per_shard=4)
    assert ShardReader(out).total == 8
    there = sorted(path.name for path in (out / "toy").iterdir())
    assert there == ["train-00000.parquet", "train-00009.parquet"]


def test_a_data_set_is_in_the_index_only_when_whole(tmp_path: Path, make_records: MakeRecords) -> None:
    toy, other = make_records(tmp_path, "toy", 12), make_records(tmp_path, "other", 5)
    out = tmp_path / "out"
    build_shards([*toy, *other], out, workers=1)
    for record in toy:
        assert isinstance(record.image, Path)
        record.image.write_bytes(b"broken")
    with pytest.raises(DataError):
        build_shards(toy, out, workers=1)
    assert {shard.dataset for shard in read_index(out).shards} == {"other"}


def test_a_corrupt_image_is_skipped_counted_and_named(tmp_path: Path, make_records: MakeRecords) -> None:
    records = make_records(tmp_path, "toy", 20)
    assert isinstance(records[4].image, Path)
    records[4].image.write_bytes(records[4].image.read_bytes()[:200])
    out = tmp_path / "out"
    report = build_shards(records, out, workers=1, rows_per_shard=4)
    assert report.records == 19
    ((key, why),) = report.problems
    assert key == "toy/train_0004"
    assert "train_0004.png" in why
    assert [json.loads(line) for line in (out / PROBLEMS).read_text().splitlines()] == [{"key": key, "problem": why}]
    again = build_shards(records, out, workers=1, rows_per_shard=4)
    assert (again.kept, again.problems) == (5, report.problems)
    # Another data set's build keeps the line; mending the image takes it away.
    build_shards(make_records(tmp_path, "other", 3), out, workers=1)
    assert key in (out / PROBLEMS).read_text()
    assert build_shards(make_records(tmp_path, "toy", 20), out, workers=1, rows_per_shard=4).problems == ()
    assert not (out / PROBLEMS).exists()


def test_too_many_corrupt_images_stop_the_build(tmp_path: Path, make_records: MakeRecords) -> None:
    records = make_records(tmp_path, "toy", 40)
    for record in records[::8]:
        assert isinstance(record.image, Path)
        record.image.write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    out = tmp_path / "out"
    with pytest.raises(DataError, match=r"of \d+ records are broken.*share of 0\.01.*train_00") as caught:
        build_shards(records, out, workers=1, rows_per_shard=10)
    assert "\n" not in str(caught.value)
    assert (out / PROBLEMS).exists()
    with pytest.raises(DataError, match="run unibiomed data build, to its end"):
        ShardReader(out)
    assert build_shards(records, out, workers=1, rows_per_shard=10, max_bad=0.5).records == 35


def test_a_shard_without_a_good_record_is_no_shard(tmp_path: Path, make_records: MakeRecords) -> None:
    records = make_records(tmp_path, "toy", 3)
    for record in records:
        assert isinstance(record.image, Path)
        record.image.unlink()
    report = build_shards(records, tmp_path / "out", workers=1, max_bad=1.0)
    assert (report.shards, len(report.problems)) == (0, 3)
    assert build_shards(records, tmp_path / "out", workers=1, max_bad=1.0).kept == 1
    assert list((tmp_path / "out" / "toy").iterdir()) == []


def test_what_is_held_out_has_shards_of_its_own(tmp_path: Path, make_records: MakeRecords) -> None:
    counts = {"train": 20, "val": 5, "test": 4}
    records = [record for split, n in counts.items() for record in make_records(tmp_path, "toy", n, split=split)]
    build_shards(
        [*records, *make_records(tmp_path, "kept", 6, split="test", external=True)], tmp_path / "out", workers=1
    )
    rows = {(shard.dataset, shard.split): shard.rows for shard in read_index(tmp_path / "out").shards}
    assert rows == {("toy", split): n for split, n in counts.items()} | {("kept", "test"): 6}
    for split in ("train", "val"):
        wanted = sorted(record.key for record in records if record.split == split)
        assert sorted(sample.record.key for sample in epoch(tmp_path, split)) == wanted
        drawn = islice(ShardReader(tmp_path / "out", split=split), 300)
        assert {sample.record.key for sample in drawn} == set(wanted)


def test_external_sets_have_no_train_shard(tmp_path: Path, make_records: MakeRecords) -> None:
    external = make_records(tmp_path, "kept", 6, split="test", external=True)
    build_shards(external, tmp_path / "out", workers=1)
    (shard,) = read_index(tmp_path / "out").shards
    assert shard.external
    assert shard.file == "kept/test-00000.parquet"
    with pytest.raises(DataError, match="'kept' is external in part"):
        build_shards([*external, *make_records(tmp_path, "kept", 6)], tmp_path / "out", workers=1)


def test_two_sets_of_one_name_are_refused(tmp_path: Path, make_records: MakeRecords) -> None:
    with pytest.raises(DataError, match=r"two records are named 'toy/train_0000'.*data sets 'toy'"):
        build_shards(
            [*make_records(tmp_path / "a", "toy", 3), *make_records(tmp_path / "b", "toy", 4)],
            tmp_path / "out",
            workers=1,
        )


@pytest.mark.parametrize("name", ["..", "../toy", "_build", ".toy", "a b"])
def test_names_that_are_no_folders_are_refused(tmp_path: Path, make_records: MakeRecords, name: str) -> None:
    (record,) = make_records(tmp_path, "toy", 1)
    with pytest.raises(DataError, match="cannot name a folder"):
        plan_shards([replace(record, dataset=name, key=f"{name}/x")], tmp_path)


def test_wrong_options_are_refused(tmp_path: Path, make_records: MakeRecords) -> None:
    records = make_records(tmp_path, "toy", 2)
    for options in ({"rows_per_shard": 0}, {"image_size": 0}, {"workers": 0}):
        with pytest.raises(DataError, match="1 or more"):
            build_shards(records, tmp_path / "out", **options)
    for share in (-0.1, 1.5, float("nan")):
        with pytest.raises(DataError, match="is no share"):
            build_shards(records, tmp_path / "out", max_bad=share)
    with pytest.raises(DataError, match=r"'nose'.*there are toy"):
        build_shards(records, tmp_path / "out", datasets=["nose"])
    with pytest.raises(DataError, match="no record"):
        build_shards([], tmp_path / "out")
    root = made_root(tmp_path / "root", count=2)
    with pytest.raises(DataError, match="choose another --out"):
        build_shards(root, root)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        build_shards(records, tmp_path / "file" / "out", workers=1)
    (tmp_path / INDEX).write_text("{")
    with pytest.raises(DataError, match="delete it first"):
        build_shards(records, tmp_path, workers=1)


def test_without_ray_the_error_says_what_to_install(
    tmp_path: Path, make_records: MakeRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DataError, match=r"pip install 'unibiomed\[ray\]'"):
        build_shards(make_records(tmp_path, "toy", 2), tmp_path / "out", ray=True)


def members(group: int) -> list[int]:
    """Processes of a process group that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, own = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(own) == group and state not in "ZX":
            found.append(int(path.parent.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_killed_build_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    root = made_root(tmp_path / "root", count=240)
    out = tmp_path / "out"
    code = (
        "import sys\nfrom unibiomed.data.build import build_shards\n"
        "if __name__ == '__main__':\n    build_shards(sys.argv[1], sys.argv[2], workers=2, rows_per_shard=2)\n"
    )
    (tmp_path / "build.py").write_text(code)
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "build.py"), str(root), str(out)], start_new_session=True
    )
    deadline = time.monotonic() + 60
    while len(list((out / NOTES).glob("*/*.json"))) < 5:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    while members(process.pid):
        assert time.monotonic() < deadline, "workers outlive their parent"
        time.sleep(0.01)
    assert not (out / INDEX).exists()
    report = build_shards(root, out, workers=1, rows_per_shard=2)
    assert 5 <= report.kept < report.shards
    build_shards(root, tmp_path / "clean", workers=1, rows_per_shard=2)
    assert contents(out) == contents(tmp_path / "clean")
    assert report.records == 240


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = made_root(tmp_path / "root", count=30)
    made_root(tmp_path / "root", "other", count=4)
    (root / "toy" / "images" / "7.png").write_bytes(b"broken")
    line = ["data", "build", "--data", str(root), "--out", str(tmp_path / "out"), "--workers", "1"]
    assert main([*line, "--datasets", "toy", "--max-bad", "0"]) == 2
    assert "share of 0 " in capsys.readouterr().err
    assert main([*line, "--datasets", "toy", "--size", "12"]) == 0
    said = capsys.readouterr()
    assert "29 records" in said.out
    assert "7.png" in said.err
    assert PROBLEMS in said.err
    samples = [s for split in ("train", "val", "test") if has(tmp_path / "out", split) for s in epoch(tmp_path, split)]
    assert len(samples) == 29
    assert {sample.pixels.shape for sample in samples} == {(8, 12, 3)}
    assert main(line) == 0
    assert "33 records" in capsys.readouterr().out
    check = ["data", "check", str(tmp_path / "out")]
    assert main(check) == 0
    told = capsys.readouterr().out
    assert re.fullmatch(r"out: (\d) of \1 shards looked at, 33 records; 0 errors, 0 warnings\n", told)
    lost = next((tmp_path / "out" / "toy").glob("*.parquet"))
    lost.unlink()
    assert main([*check, "--datasets", "other"]) == 0
    assert main(check) == 3
    told = capsys.readouterr().out
    assert f"missing shard  1  cannot be read; copy it again or build it again: toy/{lost.name}" in told
    assert main([*check, "--limit", "3"]) == main([*check, "--datasets", "gone"]) == 2


def has(out: Path, split: str) -> bool:
    return any(shard.split == split for shard in read_index(out).shards)


def epoch(tmp_path: Path, split: str) -> Any:
    return ShardReader(tmp_path / "out", split=split).epoch(0)


def test_progress_shows_rate_and_time_left(
    tmp_path: Path, make_records: MakeRecords, capsys: pytest.CaptureFixture[str]
) -> None:
    build_shards(make_records(tmp_path, "toy", 6), tmp_path / "out", workers=1, progress=True)
    shown = capsys.readouterr().err
    assert "6/6" in shown
    assert "record/s" in shown or "s/record" in shown


def test_real_data_come_out_as_they_are(shared_data: Path, tmp_path: Path) -> None:
    from unibiomed.data import load_records

    names = ["glas_mini_glands", "drive_fundus_vessel", "dsb2018_nuclei_microscopy"]
    records = {r.key: r for r in load_records(shared_data, names) if r.dataset != names[2] or r.key.endswith("0")}
    build_shards(list(records.values()), tmp_path / "out", workers=1)
    found = 0
    for split in ("train", "val", "test"):
        if has(tmp_path / "out", split):
            for sample in epoch(tmp_path, split):
                record = records[sample.record.key]
                pixels = record.load_image()
                assert np.array_equal(sample.pixels, pixels)
                for was, region in zip(record.regions, sample.record.regions, strict=True):
                    assert np.array_equal(was.load(pixels.shape[:2]), region.load(pixels.shape[:2]))
                found += 1
    assert found == len(records) > 40
    shutil.rmtree(tmp_path / "out")


@pytest.mark.parametrize("most", [0, 12, 20])
def test_records_that_are_too_many_to_hold_are_read_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    for name in ("one", "other", "third"):
        made_root(tmp_path / "data", name, 10)
    build_shards(tmp_path / "data", tmp_path / "held", workers=1, rows_per_shard=4)
    monkeypatch.setattr(build, "HELD_RECORDS", most)
    report = build_shards(tmp_path / "data", tmp_path / "read", workers=1, rows_per_shard=4)
    assert report.records == 30 and contents(tmp_path / "read") == contents(tmp_path / "held")


def test_two_builds_do_not_write_into_one_folder(tmp_path: Path, make_records: MakeRecords) -> None:
    records = make_records(tmp_path, "toy", 3)
    with (
        locked(tmp_path / "out"),
        pytest.raises(OutputError, match=r"another build writes into .*wait for it") as caught,
    ):
        build_shards(records, tmp_path / "out", workers=1)
    assert "\n" not in str(caught.value)
    assert build_shards(records, tmp_path / "out", workers=1).records == 3


def test_voxels_beside_a_header_and_slices_of_a_folder_are_looked_at(tmp_path: Path, make_records: MakeRecords) -> None:
    (record,) = make_records(tmp_path, "toy", 1)
    header, voxels, series = tmp_path / "toy" / "ct.mhd", tmp_path / "toy" / "ct.raw", tmp_path / "toy" / "series"
    header.write_text("ObjectType = Image\nElementDataFile = ct.raw\n")
    voxels.write_bytes(b"1234")
    series.mkdir()
    (series / "1.dcm").write_bytes(b"1")
    assert voxel_files(header) == [header, voxels] and voxel_files(series) == [series / "1.dcm"]
    for image, changed in ((header, voxels), (series, series / "1.dcm")):
        (task,) = plan_shards([replace(record, image=image, slice_index=0)], tmp_path, rows_per_shard=4)
        before = plans._stamp(task)
        os.utime(changed, ns=(1, 1))
        assert plans._stamp(task) != before


def test_a_shard_whose_remaking_was_killed_is_still_ours(
    tmp_path: Path, make_records: MakeRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, out = make_records(tmp_path, "toy", 6), tmp_path / "out"
    build_shards(records, out, workers=1, rows_per_shard=4)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(plans, "write_rows", killed)
    with pytest.raises(KeyboardInterrupt):
        plans.build_shard(plan_shards(records[:5], out, rows_per_shard=4)[1])
    monkeypatch.undo()
    build_shards(records[:3], out, workers=1, rows_per_shard=4)
    assert [path.name for path in (out / "toy").iterdir()] == ["train-00000.parquet"]


def test_volumes_of_patients_are_told_apart_by_their_whole_path(tmp_path: Path, make_records: MakeRecords) -> None:
    (record,) = make_records(tmp_path, "toy", 1)
    slices = [
        replace(record, key=f"toy/P{n}/anat/ct@{k}", image=Path(f"/d/toy/P{n}/anat/ct.nii"), slice_index=k, regions=())
        for n in range(8)
        for k in range(5)
    ]
    tasks = plan_shards(slices, tmp_path, rows_per_shard=10)
    assert all(len({r.key.split("/")[1] for r in task.records}) == 2 for task in tasks)


def test_broken_lines_of_problems_are_passed_over(tmp_path: Path, make_records: MakeRecords) -> None:
    out = tmp_path / "out"
    out.mkdir()
    kept = json.dumps({"key": "other/1", "problem": "x"})
    (out / PROBLEMS).write_text(f'{kept}\n{{"key": "oth\n[]\n')
    build_shards(make_records(tmp_path, "toy", 2), out, workers=1)
    assert (out / PROBLEMS).read_text() == f"{kept}\n"
