"""Reading shards at the size of the paper's catalogue: time to start, memory, and decoded samples a second on one core.

usage: python benchmarks/data.py [--triplets 1e5 1e6 27408704] [--distinct 4] [--json 1e5 1e6] [--shards DIR]

The catalogue is made up, in the proportions of the paper's (27.4 million triplets of 19.0 million images): 84 data sets
of ten modalities, sizes falling off as 1/rank; each record is a JPEG of 256 x 256 pixels with a mask, in some data sets
with a label as well. 64 records in a row show one picture of a pool of 256, which shards store once a row group; it is
read and decoded for each. Of each data set, `--distinct` shards are written; all others are further names of these
files (hard links), which a reader cannot tell. With --distinct 0 all are written: 5 GB for 27 million.
Beside it, the published way: all triplets in one JSON file that is read whole (masks as run lengths, pictures by name).
Every measurement is a process of its own; with --shards, shards that are already there are measured as well.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unibiomed.data.index import Shard, file_sha256, read_index, write_index
from unibiomed.data.plan import ROWS_PER_SHARD
from unibiomed.data.reader import Sample, ShardReader
from unibiomed.data.records import Record, Region
from unibiomed.data.shards import record_to_row, seal, write_rows
from unibiomed.findings import rle_encode
from unibiomed.images.modality import MODALITIES

SIDE, SETS, SHARING, POOL = 256, 84, 64, 256
FILLING = 30_000
PER_RECORD = 27_408_704 / 18_961_150
"""Triplets of an image in the paper's tables A5."""


pool: list[dict[str, Any]] = []


def made_up_rows() -> list[dict[str, Any]]:
    """Rows that all others are varied from: `POOL` pictures with their masks."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    rows = []
    for number in range(POOL):
        waves = sum(np.sin(2 * np.pi * (rng.normal() * 4 * x + rng.normal() * 4 * y + rng.random())) for _ in range(8))
        grey = np.clip(128 + 24 * waves + rng.normal(0, 6, (SIDE, SIDE)), 0, 255)
        buffer = io.BytesIO()
        Image.fromarray(np.stack([grey, grey * 0.8, grey * 0.6], axis=2).astype(np.uint8)).save(buffer, "JPEG")
        centre, radius = rng.random(2), 0.03 + 0.15 * rng.random(2)
        inside = ((x - centre[0]) / radius[0]) ** 2 + ((y - centre[1]) / radius[1]) ** 2 < 1
        region = Region("liver", rle_encode(inside))
        key = f"set/{number}"
        rows.append(record_to_row(Record(key, buffer.getvalue(), "set", "CT", "abdomen", "p", "train", (region,))))
    return rows


def make_shards(out: Path, triplets: int, distinct: int) -> None:
    """Write a catalogue of this many triplets; the rows are sealed and written by the library's own code."""
    share = triplets / PER_RECORD / sum(1 / rank for rank in range(1, SETS + 1))
    plan: list[tuple[Path, dict[str, Any], range]] = []
    links: list[tuple[str, int, int]] = []
    told = wanted = 0.0
    for rank in range(1, SETS + 1):
        size = max(1, round(share / rank))
        wanted += PER_RECORD * share / rank
        # Whichever choice keeps the number of triplets nearer to the paper's proportion.
        label = "Glioma" if told + 1.5 * size < wanted else None
        told += size if label is None else 2 * size
        words = {
            "dataset": f"set{rank:02d}",
            "modality": MODALITIES[rank % len(MODALITIES)],
            "label": label,
            "triplets": 1 if label is None else 2,
        }
        (out / words["dataset"]).mkdir(parents=True)
        parts = [range(first, min(first + ROWS_PER_SHARD, size)) for first in range(0, size, ROWS_PER_SHARD)]
        # The last one has rows of its own number.
        written = {*range(distinct or len(parts)), len(parts) - 1}
        plan += [(out, words, part) for number, part in enumerate(parts) if number in written]
        links += [(words["dataset"], number, number % distinct) for number in set(range(len(parts))) - written]
    with ProcessPoolExecutor(initializer=begin_maker) as makers:
        shards = {shard.file: shard for shard in makers.map(make_shard, plan, chunksize=8)}
    for name, number, like in links:
        file, first = f"{name}/train-{number:05d}.parquet", f"{name}/train-{like:05d}.parquet"
        os.link(out / first, out / file)
        shards[file] = replace(shards[first], file=file)
    write_index(out, shards.values())


def begin_maker() -> None:
    """Make what all rows are varied from, once a process."""
    pool.extend(made_up_rows())


def make_shard(task: tuple[Path, dict[str, Any], range]) -> Shard:
    """Write one shard."""
    out, words, numbers = task
    path = out / words["dataset"] / f"train-{numbers.start // ROWS_PER_SHARD:05d}.parquet"
    groups, triplets = write_rows(path, varied(words, numbers))
    tasks = ("region",) if words["label"] is None else ("region", "label")
    facts = (groups, triplets, path.stat().st_size, file_sha256(path))
    return Shard(f"{words['dataset']}/{path.name}", words["dataset"], "train", words["modality"], tasks, False, *facts)


def varied(words: dict[str, Any], numbers: range) -> Iterator[dict[str, Any]]:
    """Rows of their own keys and their own order of masks; the picture changes every `SHARING` rows."""
    for number in numbers:
        own = {"key": f"{words['dataset']}/{number}", "group": f"p{number // 50}"}
        picture = pool[number // SHARING % POOL]["image"]
        yield seal({**pool[number * 7 % POOL], **words, **own, "image": picture})


def make_json(path: Path, triplets: int) -> None:
    """The published way: a list of triplets in one file."""
    regions = [region for row in made_up_rows() for region in json.loads(row["regions"])]
    with path.open("w") as file:
        file.write("[")
        for number in range(triplets):
            region = regions[number % len(regions)]
            item = {
                "image": f"set/images/{number:08d}.jpg",
                "text": region["target"],
                "mask": region["mask"],
            }
            file.write(("," if number else "") + json.dumps(item))
        file.write("]")


def peak_megabytes() -> float:
    """Largest resident size of this process so far."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("needs Linux")


def read_shards(folder: Path, seconds: float) -> dict[str, float]:
    """Start; read on until all windows are full; then decode pictures for a while, and then pictures with all masks."""
    begin, busy = time.perf_counter(), time.process_time()
    reader = ShardReader(folder)
    next(iter(reader))
    found: dict[str, float] = {"start": time.perf_counter() - begin, "busy": time.process_time() - busy}
    found["records"] = reader.total
    found["triplets"] = sum(shard.triplets for shard in read_index(folder).shards)
    found["rows"] = rate(iter(ShardReader(folder, decode=False)), FILLING, float("inf"))
    found["pictures"] = rate(iter(reader), FILLING, seconds)
    found["pictures and masks"] = rate(map(load_masks, reader), FILLING, seconds)
    return {**found, "megabytes": peak_megabytes()}


def rate(samples: Iterator[Any], most: int, seconds: float) -> float:
    """Samples a second of processor time: what else the machine does counts little."""
    count, begin = 0, time.process_time()
    while count < most and time.process_time() - begin < seconds:
        next(samples)
        count += 1
    return count / (time.process_time() - begin)


def load_masks(sample: Sample) -> None:
    """Decode all masks of a sample."""
    for region in sample.record.regions:
        if region.mask is not None and sample.pixels is not None:
            region.load(sample.pixels.shape[:2])


def read_json(path: Path) -> dict[str, float]:
    """Read the whole file, as the published code does; in processor time."""
    begin = time.process_time()
    with path.open() as file:
        items = json.load(file)
    return {"start": time.process_time() - begin, "triplets": len(items), "megabytes": peak_megabytes()}


def measured(*arguments: str | Path | float) -> dict[str, float]:
    """What a measurement says that runs in a process of its own."""
    line = [sys.executable, __file__, *map(str, arguments)]
    return json.loads(subprocess.run(line, check=True, capture_output=True, text=True).stdout)


def disk(folder: Path) -> float:
    """Megabytes of all files in a folder; one of several names counts once."""
    files = {status.st_ino: status.st_size for status in (path.stat() for path in folder.rglob("*") if path.is_file())}
    return sum(files.values()) / 1e6


def show(folder: Path, made: str, seconds: float) -> None:
    """Measure a folder of shards and print its line."""
    found = measured("read", folder, seconds)
    rates = " | ".join(f"{found[name]:.0f}" for name in ("megabytes", "rows", "pictures", "pictures and masks"))
    counts = f"{found['triplets']:,.0f} | {found['records']:,.0f} | {disk(folder):,.0f}"
    print(f"| {counts} | {made} | {found['start']:.2f} (processor {found['busy']:.2f}) | {rates} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--triplets", nargs="*", type=float, default=[1e5, 1e6])
    parser.add_argument("--distinct", type=int, default=4)
    parser.add_argument("--json", nargs="*", type=float, default=[1e5, 1e6])
    parser.add_argument("--out", type=Path, default=Path("unibiomed-benchmark"), help="emptied and taken away again")
    parser.add_argument("--shards", type=Path)
    parser.add_argument("--seconds", type=float, default=5.0, help="of processor time, for each rate")
    options = parser.parse_args()
    print(
        "| triplets | records | disk, MB | made, s | first sample, s | peak, MB | rows/s | pictures/s | with masks/s |"
    )
    print("|" + 9 * "---|")
    for number in map(int, options.triplets):
        shutil.rmtree(options.out, ignore_errors=True)
        begin = time.perf_counter()
        make_shards(options.out, number, options.distinct)
        made = f"{time.perf_counter() - begin:.0f}"
        show(options.out, made, options.seconds)
    if options.shards is not None:
        show(options.shards, "-", options.seconds)
    print("\n| triplets in one JSON | file, MB | read in, s of processor | peak memory, MB |\n|---|---|---|---|")
    for number in map(int, options.json):
        shutil.rmtree(options.out, ignore_errors=True)
        options.out.mkdir(parents=True)
        path = options.out / "triplets.json"
        make_json(path, number)
        found = measured("json", path)
        print(
            f"| {number:,} | {disk(options.out):,.0f} | {found['start']:.1f} | {found['megabytes']:,.0f} |", flush=True
        )
    shutil.rmtree(options.out, ignore_errors=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["read"]:
        print(json.dumps(read_shards(Path(sys.argv[2]), float(sys.argv[3]))))
    elif sys.argv[1:2] == ["json"]:
        print(json.dumps(read_json(Path(sys.argv[2]))))
    else:
        main()
