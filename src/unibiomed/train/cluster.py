"""The same training on a Ray cluster: Ray starts the processes, `unibiomed.train.trainer` does the rest."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from unibiomed.errors import DataError, UniBiomedError

from .checkpoint import writing
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
    ModelError, OutputError
        As for `unibiomed.train.trainer.train`.
    """
    if workers < 1:
        raise DataError(f"{workers} processes cannot train: give at least 1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        from ray.train import RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer
    except ImportError:
        raise DataError("training on a cluster needs Ray: pip install 'unibiomed[ray]'") from None
    started = not ray.is_initialized()
    if started:
        # Ray gives each process a core, and would wait for ever for one that this machine has not
        cores = None if os.environ.get("RAY_ADDRESS") else max(workers, os.cpu_count() or 1)
        ray.init(num_cpus=cores, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        use_gpu = ray.cluster_resources().get("GPU", 0) > 0 if gpu is None else gpu
        with writing(out):
            out.mkdir(parents=True, exist_ok=True)
        trainer = TorchTrainer(
            _work,
            train_loop_config={"recipe": recipe, "data": data.resolve(), "out": out.resolve(), "gpu": use_gpu},
            scaling_config=ScalingConfig(num_workers=workers, use_gpu=use_gpu),
            run_config=RunConfig(name="unibiomed", storage_path=str(out.resolve() / "ray")),
        )
        trainer.fit()
    except UniBiomedError:
        raise
    except Exception as error:  # Ray wraps what a worker raised in errors of its own
        if (told := _told(error)) is not None:
            raise told from error
        reason = str(error).strip().splitlines()
        raise DataError(f"training on Ray failed: {reason[-1][:300] if reason else type(error).__name__}") from error
    finally:
        if started:
            ray.shutdown()
    return out / "model"


def _told(error: BaseException) -> UniBiomedError | None:
    """The error of this package that Ray's holds: others may be of workers that only lost the one that failed."""
    waiting: list[Any] = [error]
    for held in waiting:
        if isinstance(held, UniBiomedError):
            return held
        inner = [getattr(held, name, None) for name in ("_base_exc", "cause", "__cause__")]
        inner += list((getattr(held, "worker_failures", None) or {}).values())
        waiting += [one for one in inner if isinstance(one, BaseException) and one not in waiting]
    return None


def _work(config: dict[str, Any]) -> None:
    if not config["gpu"]:
        os.environ["ACCELERATE_USE_CPU"] = "true"
    from .trainer import train

    train(config["recipe"], config["data"], config["out"], progress=False)
