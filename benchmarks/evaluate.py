"""Time and memory of scoring made-up suites, to see that both grow no faster than the suite.

    python benchmarks/evaluate.py [--samples 1000 10000 100000] [--out FOLDER]

Each sample is a 128 x 128 image with one target and its prediction, one JSON file each, as in a real evaluation. Asking
is done by a predictor that only copies a mask: what is measured is the harness.
"""

from __future__ import annotations

import argparse
import io
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from unibiomed.data.records import Record, Region
from unibiomed.evaluate.harness import evaluate_records
from unibiomed.evaluate.predictions import Prediction
from unibiomed.evaluate.samples import Case
from unibiomed.evaluate.suite import Suite
from unibiomed.findings import rle_encode

SIDE = 128
KINDS = 16


class Copier:
    """Answers with a mask that was made before."""

    name = "copier"
    tasks = frozenset({"segment"})
    worded: frozenset[str] = frozenset()
    note = ""

    def __init__(self, masks: list[np.ndarray]) -> None:
        self.masks = masks

    def predict(self, case: Case, pixels: np.ndarray) -> list[Prediction]:
        """A mask by the image's number."""
        mask = self.masks[case.image_index % KINDS]
        return [Prediction.from_masks(s.id, "", [s.target], [mask], [0.9], [0.8]) for s in case.samples]


def discs(shift: int) -> list[np.ndarray]:
    """Some discs."""
    y, x = np.mgrid[:SIDE, :SIDE]
    return [(y - 64) ** 2 + (x - 40 - 3 * i - shift) ** 2 < (10 + i) ** 2 for i in range(KINDS)]


def records(count: int) -> list[Record]:
    """Made-up images that share their bytes, each of a patient of its own."""
    memory = io.BytesIO()
    Image.fromarray(np.zeros((SIDE, SIDE, 3), np.uint8)).save(memory, "PNG")
    masks = [rle_encode(mask) for mask in discs(0)]
    return [
        Record(
            f"made/{i:07}",
            memory.getvalue(),
            "made",
            "CT",
            "abdomen",
            f"patient {i}",
            "test",
            (Region("liver", masks[i % KINDS]),),
            spacing=(1.0, 1.0),
        )
        for i in range(count)
    ]


def measure(count: int, out: Path) -> None:
    """One size, in a process of its own; prints a row of the table."""
    made = records(count)
    suite = Suite("made", tasks=["segment"], out_of_context=False)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start = time.perf_counter()
    found = evaluate_records(suite, made, [Copier(discs(2))], out, pictures=0, progress=False)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    dice = found["models"]["copier"]["segment"]["strict"]["dice"]["value"]
    print(f"| {count:,} | {seconds:.1f} | {1000 * seconds / count:.2f} | {peak:.0f} | {before:.0f} | {dice:.3f} |")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--out", type=Path, help="where predictions are written (default: a temporary folder)")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        measure(options.one, options.out)
        return
    print("| samples | seconds | ms a sample | peak memory (MB) | before, with the records (MB) | Dice |")
    print("|---|---|---|---|---|---|", flush=True)
    for count in options.samples:
        folder = options.out or Path(tempfile.mkdtemp())
        command = [sys.executable, __file__, "--one", str(count), "--out", str(folder / str(count))]
        subprocess.run(command, check=True)
        shutil.rmtree(folder if options.out is None else folder / str(count))


if __name__ == "__main__":
    main()
