"""Whole volumes: slices alone against smoothing along the axis, and what the presence of a volume is worth.

    python benchmarks/volumes.py --data DATA --kept runs/volumes

Slices of the validation patients of three data sets are put back into volumes. Every slice is read once and kept, so
that all ways to combine slices are compared on the same readings, and a run that was stopped goes on. Prints

- for each data set, and for each way of smoothing: the mean Dice of volumes that show the target, and the mean number
  of predicted components without a true voxel in a volume;
- for three ways to combine slices: the AUROC of the presence of volumes with the target and of runs of slices without,
  its Brier score and calibration error after Platt scaling (fitted on the other patients), and the reliability;
- how often volumes of many slices without the target exceed the threshold.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.stats import mannwhitneyu

from unibiomed import load
from unibiomed.data import Record, load_records
from unibiomed.data.pixels import load_picture
from unibiomed.findings.volume import VolumeGrid
from unibiomed.images import MedicalImage, from_array
from unibiomed.interpret.volume_presence import logits, mean_odds, smooth
from unibiomed.interpret.volume_reading import SliceReader, SliceReading, read_findings
from unibiomed.interpret.volume_slices import ModelReader
from unibiomed.interpret.volume_store import SliceStore
from unibiomed.metrics.calibration import brier, calibration_error, fit_platt, reliability
from unibiomed.metrics.instances import label_instances
from unibiomed.metrics.segmentation import dice

SETS = {"acdc_cardiac_mri": r"(.+)_slice_(\d+)", "lgg_brain_mri": r"(.+)_(\d+)", "sts_pet_ct_mr": r"(.+)_z(\d+)"}
"""How the names of slices give their volume and their place in it."""
SIGMAS = (0.0, 0.4, 0.6, 0.8, 1.2)
"""Standard deviations in slices."""
LENGTHS = (1, 3, 10, 30, 100, 300)
FOLDS = 5


@dataclass
class Stack:
    """Slices put back into a volume."""

    name: str
    group: str
    dataset: str
    modality: str
    images: list[MedicalImage]
    truths: dict[str, np.ndarray]
    """By target, (slices, rows, columns) bool."""


class Kept:
    """A reader whose readings, with the masks of all targets, are kept on the disk."""

    def __init__(self, reader: SliceReader, folder: Path, targets: int) -> None:
        self.reader, self.targets = reader, targets
        self.digest, self.batch = reader.digest, 1
        self.store = SliceStore(folder)

    def read(self, images: Sequence[MedicalImage]) -> list[SliceReading]:
        return [self._one(image) for image in images]

    def resize(self, margin: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        return self.reader.resize(margin, size)

    def _one(self, image: MedicalImage) -> SliceReading:
        key = hashlib.sha256(self.digest.encode() + image.pixels.tobytes()).hexdigest()[:16]
        presence = self.store.presence(0, key)
        if presence is None:
            (reading,) = self.reader.read([image])
            presence = reading.presence
            self.store.put(0, key, presence, dict(enumerate(reading.decode(range(self.targets)))))

        def decode(indices: Sequence[int]) -> np.ndarray:
            margins = [self.store.margin(0, key, k) for k in indices]
            assert all(margin is not None for margin in margins)
            return np.stack(margins)  # type: ignore[arg-type]

        return SliceReading(presence, decode)


def read_stacks(data: Path, split: str, limit: int | None) -> list[Stack]:
    """Volumes of all data sets, in the order of their names."""
    found: dict[tuple[str, str], list[tuple[int, Record]]] = defaultdict(list)
    for record in load_records(data, list(SETS)):
        if record.split == split and isinstance(record.image, Path):
            named = re.fullmatch(SETS[record.dataset], record.image.stem)
            if named:
                found[record.dataset, named[1]].append((int(named[2]), record))
    stacks: list[Stack] = []
    counts: dict[str, int] = defaultdict(int)
    for (dataset, name), numbered in sorted(found.items()):
        records = [record for _, record in sorted(numbered, key=lambda one: one[0])]
        if limit is not None and counts[dataset] >= limit:
            continue
        pictures = [
            load_picture(record.image, record.key, record.modality, None, record.window, record.site)
            for record in records
        ]
        if len({picture.shape for picture in pictures}) > 1:
            continue
        counts[dataset] += 1
        size = pictures[0].shape[:2]
        targets = sorted({region.target for record in records for region in record.regions})
        truths = {
            target: np.stack(
                [
                    next((r.load(size) for r in rec.regions if r.target == target), np.zeros(size, bool))
                    for rec in records
                ]
            )
            for target in targets
        }
        images = [from_array(picture, modality=records[0].modality) for picture in pictures]
        stacks.append(Stack(name, records[0].group, dataset, records[0].modality, images, truths))
    return stacks


def kernel(sigma: float) -> np.ndarray:
    """Weights of neighbours for a standard deviation in slices."""
    if sigma == 0:
        return np.ones(1)
    weights = np.exp(-0.5 * (np.arange(-3, 4) / sigma) ** 2)
    weights = weights[weights >= 0.02]
    return weights / weights.sum()


def compare_smoothing(stacks: Sequence[Stack], readers: dict[str, Kept], threshold: float) -> None:
    """Print Dice and false components of every way of smoothing."""
    print(f"{'data set':18} {'presence':>8} {'masks':>6} {'volumes':>7} {'Dice':>6} {'false components a volume':>26}")
    for dataset in SETS:
        own = [stack for stack in stacks if stack.dataset == dataset]
        for along, across in [(0.0, 0.0), *itertools.product(SIGMAS[1:], (0.0, *SIGMAS[1:3]))]:
            scores, wrong = [], []
            for stack in own:
                names = sorted(stack.truths)
                shape = (len(stack.images), stack.images[0].height, stack.images[0].width)
                found = read_findings(
                    readers[stack.name],
                    stack.images.__getitem__,
                    range(len(stack.images)),
                    VolumeGrid(shape, (1.0, 1.0, 1.0), "axial", np.eye(4), False, False),
                    names,
                    threshold=threshold,
                    weights=kernel(along),
                    mask_weights=kernel(across),
                    store=SliceStore(),
                )
                for one in found:
                    truth = stack.truths[one.label]
                    assert one.mask is not None
                    wrong.append(false_components(one.mask, truth))
                    if truth.any():
                        scores.append(dice(one.mask, truth))
            print(f"{dataset:18} {along:8.1f} {across:6.1f} {len(own):7} {np.mean(scores):6.3f} {np.mean(wrong):26.2f}")


def false_components(mask: np.ndarray, truth: np.ndarray) -> int:
    """Predicted components without a true voxel."""
    labels = label_instances(mask)
    return int(labels.max(initial=0)) - len(np.unique(labels[truth & mask]))


def auroc(scores: Sequence[float], truths: Sequence[bool]) -> float:
    """Area under the ROC curve."""
    there = np.asarray(truths)
    values = np.asarray(scores)
    return float(mannwhitneyu(values[there], values[~there]).statistic / (there.sum() * (~there).sum()))


def runs_without(truth: np.ndarray, least: int = 3) -> list[range]:
    """Runs of slices without the target."""
    there = truth.any(axis=(1, 2))
    runs, start = [], 0
    for there_now, block in itertools.groupby(there):
        length = len(list(block))
        if not there_now and length >= least:
            runs.append(range(start, start + length))
        start += length
    return runs


def compare_presence(stacks: Sequence[Stack], readers: dict[str, Kept], threshold: float, sigma: float) -> None:
    """Print what the presence of volumes is worth, by the way slices are combined."""
    ways: dict[str, Callable[[np.ndarray], float]] = {
        "highest slice": lambda table: float(logits(table).max()),
        "noisy or": lambda table: float(logits(1 - np.exp(np.log1p(-np.clip(table, 0, 1 - 1e-6)).sum()))),
        "mean odds": lambda table: float(mean_odds(table)[0]),
    }
    cases: list[tuple[np.ndarray, bool, str]] = []
    negatives: list[np.ndarray] = []
    for stack in stacks:
        readings = readers[stack.name].read(stack.images)
        for k, target in enumerate(sorted(stack.truths)):
            table = np.array([reading.presence[k] for reading in readings])[:, None]
            truth = stack.truths[target]
            if truth.any():
                cases.append((table, True, stack.group))
            for run in runs_without(truth):
                cases.append((table[run.start : run.stop], False, stack.group))
                negatives.append(table[run.start : run.stop])
    truths = [there for _, there, _ in cases]
    fold = [int(hashlib.sha256(group.encode()).hexdigest(), 16) % FOLDS for _, _, group in cases]
    print(f"\n{sum(truths)} volumes with the target, {len(truths) - sum(truths)} runs of slices without")
    print(f"{'combination':14} {'sigma':>5} {'AUROC':>6} {'Brier':>6} {'error':>6}  scale  offset")
    for (way, combine), width in itertools.product(ways.items(), (0.0, sigma)):
        scores = [combine(smooth(table, kernel(width))) for table, _, _ in cases]
        scaled = np.zeros(len(cases))
        for held in range(FOLDS):
            rest = [k for k in range(len(cases)) if fold[k] != held]
            fitted = fit_platt([scores[k] for k in rest], [truths[k] for k in rest])
            for k in range(len(cases)):
                if fold[k] == held:
                    scaled[k] = 1 / (1 + np.exp(-(fitted[0] * scores[k] + fitted[1])))
        scale, offset = fit_platt(scores, truths)[:2]
        print(
            f"{way:14} {width:5.1f} {auroc(scores, truths):6.3f} {brier(scaled, truths):6.3f} "
            f"{calibration_error(scaled, truths):6.3f} {scale:6.3f} {offset:7.3f}"
        )
        if way == "mean odds" and width == sigma:
            for point in reliability(scaled, truths, 5):
                told = f"said {point.score:.2f}, came true {point.truth:.2f}"
                print(f"    {point.low:.1f} to {point.high:.1f}: {point.count:4} cases, {told}")
    print("\nshare of volumes without the target at or above the threshold, by number of slices")
    rng = np.random.default_rng(0)
    pool = np.concatenate(negatives)
    for way, combine in ways.items():
        shares = []
        for length in LENGTHS:
            drawn = [pool[rng.integers(len(pool), size=length)] for _ in range(300)]
            shares.append(np.mean([combine(table) >= float(logits(threshold)) for table in drawn]))
        print(f"{way:14} " + "  ".join(f"{n}: {share:.3f}" for n, share in zip(LENGTHS, shares, strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--kept", type=Path, required=True, help="folder in which readings are kept")
    parser.add_argument("--model", help="model folder (default: the shipped nano)")
    parser.add_argument("--split", default="val", choices=["val", "test"])
    parser.add_argument("--limit", type=int, help="volumes of each data set, at most")
    parser.add_argument("--sigma", type=float, default=0.6, help="in slices, of the presence of volumes")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = load(options.model)
    stacks = read_stacks(options.data, options.split, options.limit)
    readers = {}
    for number, stack in enumerate(stacks, start=1):
        names = sorted(stack.truths)
        readers[stack.name] = Kept(ModelReader(model, names, stack.modality), options.kept, len(names))
        readers[stack.name].read(stack.images)
        print(f"read {number} of {len(stacks)}: {stack.name}, {len(stack.images)} slices", flush=True)
    compare_presence(stacks, readers, model.score_threshold, options.sigma)
    print()
    compare_smoothing(stacks, readers, model.score_threshold)


if __name__ == "__main__":
    main()
