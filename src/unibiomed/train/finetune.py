"""Teach a model one's own images: adapters on the language model, and a held-out score before and after."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from unibiomed.data import load_records
from unibiomed.data.catalog import OWN_ENTRY
from unibiomed.data.records import Record
from unibiomed.errors import DataError
from unibiomed.model.checkpoint import read_json
from unibiomed.model.configuration import UniBiomedConfig
from unibiomed.model.weights import load_model

from .checkpoint import writing
from .digests import records_digest
from .failures import memory_told
from .heldout import held_out_answers, held_out_dice
from .recipe import DataRecipe, LoraRecipe, ModelRecipe, Recipe, StageRecipe
from .trainer import train

NANO = Path(__file__).parent.parent / "weights" / "nano"
ASKED = "asked.json"
"""What a fine-tuning was begun with."""
HELD_OUT = 50
"""Held-out images a data set that are scored."""
SMALLER = "take a smaller --model, or a machine with more"
"""What to do where memory runs out even for one image."""


@dataclass(frozen=True)
class FinetuneResult:
    """What fine-tuning did.

    Attributes
    ----------
    folder : Path
        The model folder, which ``--model`` takes.
    before, after : dict of str to float
        Mean Dice of each target on held-out images that show it, asked in words.
    answers_before, answers_after : dict of str to float
        How much of the answers of each task is right on held-out images, see
        `unibiomed.train.heldout.held_out_answers`.
    images : dict of str to int
        Number of images in each split.
    """

    folder: Path
    before: dict[str, float]
    after: dict[str, float]
    answers_before: dict[str, float]
    answers_after: dict[str, float]
    images: dict[str, int]

    def table(self) -> str:
        """Scores before and after as text, a target or a task a line."""
        images = ", ".join(f"{n} {split}" for split, n in self.images.items())
        lines = []
        for title, before, after in (
            ("Dice", self.before, self.after),
            ("Right answers (report, describe: right words)", self.answers_before, self.answers_after),
        ):
            width = max((len(name) for name in after), default=0)
            lines += [f"{title} on held-out images ({images}):"] if after else []
            lines += [f"  {name:<{width}}  {before[name]:.3f} -> {after[name]:.3f}" for name in sorted(after)]
        return "\n".join(lines) or f"No held-out image to score ({images})."


def finetune_recipe(config: UniBiomedConfig, start: str, steps: int, batch: int, datasets: list[str] | None) -> Recipe:
    """Sane defaults: adapters, the grounding, and in a small model the image encoder, slowly."""
    small = config.shared_vision
    rates = {"lora": 1e-4, "projector": 4e-5, "head": 4e-5, "decoder": 4e-5}
    if small:
        rates = {"lora": 1e-3, "projector": 3e-4, "head": 3e-4, "grounding": 3e-4, "scores": 3e-4, "backbone": 1e-4}
    scores = 0.3 if config.scores_trained else 0.0
    stage = StageRecipe(
        name="finetune",
        kind="joint",
        steps=steps,
        batch=batch,
        turns=3,
        learning_rates=rates,
        lora=LoraRecipe(rank=16 if small else 64, alpha=32 if small else 128),
        points=0 if small else 12544,
        presence_weight=scores,
        quality_weight=scores,
        absent_masks=False,
        augment=1.0 if small else 0.0,
        gradient_checkpointing=not small,
        tasks={"segment": 0.6, "recognize": 0.2, "report": 0.1, "ask": 0.1, "classify": 0.1, "describe": 0.05},
    )
    on_gpu = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return Recipe(
        model=ModelRecipe(start=start, image_size=config.image_size if small else 256),
        data=DataRecipe(datasets=datasets),
        stages=[stage],
        precision="bfloat16" if on_gpu else "float32",
    )


def finetune(
    data: Path, out: Path, model: str | None = None, *, steps: int = 300, batch: int = 8, progress: bool = True
) -> FinetuneResult:
    """Fine-tune a model on data sets.

    Parameters
    ----------
    data : Path
        Folder of one data set (with a ``dataset.toml``), or of several.
    out : Path
        Folder for checkpoints and the model; a killed run goes on when called again.
    model : str, optional
        Model folder or hub name; the shipped model by default.
    steps, batch : int
        Optimizer steps, and images a step.

    Returns
    -------
    FinetuneResult
        Also written to ``out/finetune.json``.

    Raises
    ------
    DataError
        If there is nothing to train on, or training fails.
    ModelError
        If the model is missing or broken.
    OutputError
        If `out` cannot be written.
    """
    if steps < 1 or batch < 1:
        raise DataError(f"{steps} steps of {batch} images are not a training; give at least 1 of each")
    # "." and ".." do not tell the name of the data set
    home = data if data.name.strip(".") else data.resolve()
    root, datasets = (home.parent, [home.name]) if (home / OWN_ENTRY).is_file() else (data, None)
    if not (data / OWN_ENTRY).is_file() and (data / "images").is_dir():
        raise DataError(f"'{data}' is not described yet; run: unibiomed data add {data}")
    records = [record for record in load_records(root, datasets) if record.image is not None]
    held_out = [record for record in records if record.split == "test"]
    start = model or str(NANO)
    with memory_told(SMALLER, out):
        before, answers_before, config = _scores(start, held_out)
    recipe = finetune_recipe(config, start, steps, batch, datasets)
    _check_asked(out, {"model": start, "steps": steps, "batch": batch, "data": records_digest(records)})
    folder = train(recipe, root, out, progress=progress, cure=f"lower --batch, or {SMALLER}")
    with memory_told(SMALLER, out):
        after, answers_after, _ = _scores(str(folder), held_out)
    splits = Counter(record.split for record in records)
    images = dict(sorted(splits.items()))
    result = FinetuneResult(folder, before, after, answers_before, answers_after, images)
    with writing(out):
        (out / "finetune.json").write_text(json.dumps(asdict(result) | {"folder": str(folder)}, indent=2) + "\n")
    return result


def _check_asked(out: Path, asked: dict[str, Any]) -> None:
    """Refuse to go on with another fine-tuning than the one that was begun in a folder.

    Raises
    ------
    DataError
        Data, model, steps or batch are others.
    OutputError
        The folder cannot be written.
    """
    path = out / ASKED
    if (out / "checkpoint").exists() and path.is_file():
        begun = read_json(path)
        if other := [name for name, value in asked.items() if begun.get(name) != value]:
            raise DataError(f"'{out}' holds another fine-tuning ({', '.join(other)} differ): choose another --out")
    with writing(path):
        out.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asked, indent=2) + "\n")


def _scores(name: str, records: list[Record]) -> tuple[dict[str, float], dict[str, float], UniBiomedConfig]:
    """Dice of targets, right answers of tasks, and the model's settings."""
    model, processor = load_model(name, dtype=torch.float32)
    if torch.cuda.is_available():
        model = model.to("cuda")
    shown = [record for record in records if record.regions]
    masks = held_out_dice(model, None, processor, shown, HELD_OUT)
    return masks, held_out_answers(model, processor, records, HELD_OUT), model.config
