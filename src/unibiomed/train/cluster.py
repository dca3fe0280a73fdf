"""The same training on a Ray cluster: Ray starts the processes, `unibiomed.train.trainer` does the rest."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from unibiomed.errors import DataError

from .recipe import Recipe


def train_on_ray(recipe: Recipe, data: Path, out: Path, workers: int, *, gpu: bool | None = None) -> Path:
    """Run a recipe on `workers` processes of the Ray cluster that ``RAY_ADDRESS`` names, or of this machine.

    Parameters
    ----------
    recipe : Recipe
    data, out : Path
        As for `unibiomed.train.trainer.train`; folders that every machine of the cluster sees under the same path.
    workers : int
        Processes; with GPUs, each takes one.
    gpu : bool, optional
        Use GPUs; by default if the cluster has any.

    Returns
    -------
    Path
        The model folder.

    Raises
    ------
    DataError
        If Ray is not installed, or the training fails on a worker.
    """
    try:
        import ray
        from ray.train import RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer
    except ImportError:
        raise DataError("training on a cluster needs Ray: pip install 'unibiomed[ray]'") from None
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    use_gpu = ray.cluster_resources().get("GPU", 0) > 0 if gpu is None else gpu
    out.mkdir(parents=True, exist_ok=True)
    trainer = TorchTrainer(
        _work,
        train_loop_config={"recipe": recipe, "data": data.resolve(), "out": out.resolve(), "gpu": use_gpu},
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=use_gpu),
        run_config=RunConfig(name="unibiomed", storage_path=str(out.resolve() / "ray")),
    )
    try:
        trainer.fit()
    except Exception as error:  # Ray wraps what a worker raised in errors of its own
        reason = str(error).strip().splitlines()
        raise DataError(f"training on Ray failed: {reason[-1][:300] if reason else type(error).__name__}") from error
    return out / "model"


def _work(config: dict[str, Any]) -> None:
    if not config["gpu"]:
        os.environ["ACCELERATE_USE_CPU"] = "true"
    from .trainer import train

    train(config["recipe"], config["data"], config["out"], progress=False)
