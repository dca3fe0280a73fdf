"""Two ablations of the paper in small (figures 2e and A2): all tasks together against one task alone.

    python benchmarks/ablations.py --data DATA --out runs/ablations

From one common start (ImageNet encoder, a language model that has read the texts), the same number of joint steps with
all tasks, with segmentation alone and with grounded disease recognition alone, three seeds each. A run that was stopped
goes on. All are judged by the harness on test images that no run has seen: ``results/`` has the tables and figures.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from unibiomed.evaluate.harness import evaluate
from unibiomed.evaluate.suite import read_suite
from unibiomed.tasks import TASKS
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


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--start-steps", type=int, default=400)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--limit", type=int, default=12, help="test images a data set")
    options = parser.parse_args()
    start = options.out / "start" / "model"
    if not start.exists():
        train(start_recipe(options.start_steps), options.data, options.out / "start")
    models = []
    for seed in options.seeds:
        for variant, tasks in VARIANTS.items():
            out = options.out / f"{variant.replace(' ', '_')}_{seed}"
            if not (out / "model").exists():
                train(variant_recipe(start, tasks, options.steps, seed), options.data, out)
            models.append(f"{variant}#{seed}={out / 'model'}")
    changes = {"name": "ablations", "tasks": ["segment", "recognize"], "limit": options.limit}
    suite = read_suite("shared", changes)
    evaluate(suite, sorted(models), options.data, options.out / "results", floors=False, pictures=1)
    print((options.out / "results" / "tables" / "runs.md").read_text())


if __name__ == "__main__":
    main()
