"""Two ablations of the paper in small (figures 2e and A2): all tasks together against one task alone.

    python benchmarks/ablations.py --data DATA --out runs/ablations

From one common start (ImageNet encoder, a language model that has read the texts), the same number of joint steps with
all tasks, with segmentation alone and with grounded disease recognition alone, three seeds each. A run that was stopped
goes on. Judged on test images that no run has seen.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from pathlib import Path
from typing import Any

import unibiomed
from unibiomed.data import NO_FINDINGS, Record, load_records
from unibiomed.tasks import TASKS
from unibiomed.train.heldout import choose, held_out_dice
from unibiomed.train.recipe import DataRecipe, ModelRecipe, Recipe, StageRecipe
from unibiomed.train.trainer import train

VARIANTS: dict[str, dict[str, float]] = {
    "universal": {},
    "segmentation only": {task: float(task == "segment") for task in TASKS},
    "recognition only": {task: float(task == "recognize") for task in TASKS},
}
SIZE = 192


def start_recipe(steps: int) -> Recipe:
    """The common start: prompts and masks for a while, then the texts."""
    rates = {"backbone": 3e-4, "grounding": 1e-3, "scores": 1e-3, "head": 2e-3}
    encoder = StageRecipe(
        name="encoder",
        kind="encoder",
        steps=steps,
        turns=3,
        learning_rates=rates,
        dense_weight=0.6,
        align_weight=0.1,
        absent_masks=False,
        presence_weight=0.3,
        quality_weight=0.3,
    )
    text = StageRecipe(
        name="text",
        kind="text",
        steps=steps,
        batch=32,
        learning_rates={"language": 1.5e-3, "head": 1e-3},
        distill_weight=1.0,
    )
    return Recipe(ModelRecipe(image_size=SIZE, fusion=True), DataRecipe(), [encoder, text], evaluate=0)


def variant_recipe(start: Path, tasks: dict[str, float], steps: int, seed: int) -> Recipe:
    """Joint steps with some tasks."""
    rates = {"backbone": 1.5e-4, "grounding": 5e-4, "scores": 5e-4, "language": 8e-4, "head": 8e-4}
    joint = StageRecipe(
        name="joint",
        kind="joint",
        steps=steps,
        turns=4,
        learning_rates=rates,
        tasks=tasks,
        absent_masks=False,
        presence_weight=0.3,
        quality_weight=0.3,
    )
    return Recipe(ModelRecipe(start=str(start), image_size=SIZE), DataRecipe(), [joint], seed=seed, evaluate=0)


def judge(folder: Path, records: list[Record], limit: int) -> dict[str, float]:
    """Held-out Dice of targets asked in words, and of recognition: accuracy, and Dice with normal images counted."""
    model = unibiomed.load(str(folder))
    scores = held_out_dice(model.model, None, model.processor, [r for r in records if r.regions], limit)
    right, overlaps = [], []
    for record in choose([r for r in records if r.abnormal_known], limit):
        truth = [r for r in record.regions if r.abnormal and r.load(record.load_image().shape[:2]).any()]
        label = record.diagnosis(bool(truth))
        if label is None or record.image is None or isinstance(record.image, bytes):
            continue
        result = model.interpret(record.image, task="recognize", modality=record.modality)
        said = sorted(f.label for f in result.findings) or [NO_FINDINGS]
        right.append(float(said == [label]))
        overlaps.append(_dice_of_all(result, truth, record))
    return {
        "Dice": statistics.fmean(scores.values()),
        "accuracy": statistics.fmean(right),
        "recognition Dice": statistics.fmean(overlaps),
    }


def _dice_of_all(result: Any, truth: list[Any], record: Record) -> float:
    import numpy as np

    from unibiomed.metrics.segmentation import dice

    shape = record.load_image().shape[:2]
    wanted = np.any([r.load(shape) for r in truth] or [np.zeros(shape, bool)], axis=0)
    found = np.any([f.mask for f in result.findings if f.mask is not None] or [np.zeros(shape, bool)], axis=0)
    return dice(found, wanted)


def table(results: dict[str, list[dict[str, float]]]) -> str:
    """Mean and standard deviation over seeds, as a Markdown table."""
    names = ["Dice", "accuracy", "recognition Dice"]
    lines = ["| training | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for variant, runs in results.items():
        cells = []
        for name in names:
            values = [run[name] for run in runs]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{statistics.fmean(values):.3f} ± {spread:.3f}")
        lines.append(f"| {variant} ({len(runs)} seeds) | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--start-steps", type=int, default=400)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--limit", type=int, default=20, help="test images a data set")
    options = parser.parse_args()
    records = [r for r in load_records(options.data) if r.split == "test" and r.image is not None]
    random.Random(0).shuffle(records)
    start = options.out / "start" / "model"
    if not start.exists():
        train(start_recipe(options.start_steps), options.data, options.out / "start")
    path = options.out / "ablations.json"
    results: dict[str, list[dict[str, float]]] = json.loads(path.read_text()) if path.exists() else {}
    for seed in options.seeds:
        for variant, tasks in VARIANTS.items():
            done = results.setdefault(variant, [])
            if any(run["seed"] == seed for run in done):
                continue
            out = options.out / f"{variant.replace(' ', '_')}_{seed}"
            folder = train(variant_recipe(start, tasks, options.steps, seed), options.data, out)
            done.append({"seed": seed} | judge(folder, records, options.limit))
            path.write_text(json.dumps(results) + "\n")
            print(variant, done[-1], flush=True)
    print(table(results))


if __name__ == "__main__":
    main()
