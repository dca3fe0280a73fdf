"""``unibiomed train`` and ``unibiomed finetune``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .extras import check_installed


def add_train_commands(verbs: argparse._SubParsersAction[Any]) -> None:
    """Add the commands ``train`` and ``finetune``.

    Parameters
    ----------
    verbs : argparse subparsers
        Subparsers of the main parser.
    """
    out = "folder of the run (default: %(default)s)"
    verb = verbs.add_parser("train", help="train a model from a recipe; an interrupted run can be resumed")
    verb.add_argument("recipe", type=Path, metavar="RECIPE", help="YAML file, see recipes/nano.yaml")
    verb.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with data sets or shards")
    verb.add_argument("--out", type=Path, default=Path("runs/train"), metavar="DIR", help=out)
    verb.add_argument("--ray", type=int, metavar="N", help="use N processes of a Ray cluster (see RAY_ADDRESS)")
    verb.set_defaults(run=run_train)

    verb = verbs.add_parser("finetune", help="fine-tune a model on your images and evaluate it before and after")
    verb.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of a data set (see 'unibiomed data add') or of several",
    )
    verb.add_argument("--model", metavar="M", help="model folder or hub name (default: the included nano)")
    verb.add_argument("--out", type=Path, default=Path("runs/finetune"), metavar="DIR", help=out)
    verb.add_argument("--steps", type=int, default=300, metavar="N", help="training steps (default: %(default)s)")
    verb.add_argument("--batch", type=int, default=8, metavar="N", help="images per step (default: %(default)s)")
    verb.set_defaults(run=run_finetune)


def _check_installed() -> None:
    check_installed("training", "train", "accelerate", "peft", "matplotlib")


def run_train(options: argparse.Namespace) -> int:
    """``unibiomed train``."""
    from ..train.recipe import read_recipe

    recipe = read_recipe(options.recipe)
    _check_installed()
    if options.ray is not None:
        from ..train.cluster import train_on_ray

        folder = train_on_ray(recipe, options.data, options.out, options.ray)
    else:
        from ..train.trainer import train

        folder = train(recipe, options.data, options.out, progress=True)
    print(f"Model written to {folder}; use it with --model {folder}")
    return 0


def run_finetune(options: argparse.Namespace) -> int:
    """``unibiomed finetune``."""
    _check_installed()
    from ..train.finetune import finetune

    result = finetune(options.data, options.out, options.model, steps=options.steps, batch=options.batch)
    print(result.table())
    print(f"Model written to {result.folder}; use it with --model {result.folder}")
    return 0
