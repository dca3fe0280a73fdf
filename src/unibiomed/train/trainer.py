"""The training loop, the same on a laptop and on a cluster: stages in order, checkpoints, going on after a kill.

Every sample has random numbers of its own, made from the seed, the stage, the step and its number in the step. What a
step learns from therefore does not depend on how many processes share it, nor on what came before a kill. (Shards are
streams: there each process reads its own share, so the images of a step depend on the number of processes.)
"""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from unibiomed.data import load_records
from unibiomed.data.index import INDEX
from unibiomed.data.records import Record
from unibiomed.errors import DataError
from unibiomed.interpret.asking import Asker
from unibiomed.interpret.vocabulary import ModelVocabulary
from unibiomed.model.weights import find_folder

from .calibrate import calibrate_scores
from .calibrate_answers import calibrate_answers
from .checkpoint import find_checkpoint, load_modules, read_state, writing
from .digests import records_digest, shards_digest
from .divided import asked
from .failures import kept_told, memory_told
from .heads import AuxiliaryHeads
from .log import PROBLEMS, Log, read_problems
from .loop import run_stage
from .lora import add_lora
from .mixture import Mixture, Shards, Source, check_names, check_streamed, streamed_datasets, streamed_licences
from .plot import plot_log
from .processes import denormals_flushed, memory_kept, open_accelerator
from .prompts import prompts_from_words, uses_prompts
from .recipe import Recipe
from .run import Run
from .stage_base import check_parts
from .start import at_size, export, load_start, make_model, make_processor, taught_by, with_box_decoder, write_card
from .store import ImageStore
from .validation import CALIBRATED, ShardedRecords, choose

CURE = "raise 'accumulate', lower 'batch', 'image_size' or 'workers', or set gradient_checkpointing"
"""What to change in a recipe where memory runs out."""


def train(recipe: Recipe, data: Path, out: Path, *, progress: bool = True, cure: str = CURE) -> Path:
    """Run a recipe, from the start or from its last checkpoint.

    Several processes (``torchrun``, ``accelerate launch``) share the work of each step.

    Parameters
    ----------
    recipe : Recipe
    data : Path
        Folder with data sets, or with shards of them.
    out : Path
        Folder for checkpoints, log and, at the end, ``model/`` and ``training.png``.
    progress : bool
        Show on stderr how far it is: a bar on a terminal, elsewhere a line now and then.
    cure : str
        What to change where memory runs out, for whoever did not write the recipe.

    Returns
    -------
    Path
        The model folder, which ``--model`` takes.

    Raises
    ------
    DataError
        If there is nothing to train on, a loss is not a number, memory runs out, or a checkpoint is broken or of
        another recipe.
    ModelError
        If the model to start from is missing or broken.
    OutputError
        If `out` cannot be written.
    """
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    with (
        kept_told(out),
        memory_told(cure, out),
        denormals_flushed(),
        memory_kept(),
        asked(recipe.precision) as divided,
        open_accelerator(recipe, out) as accelerator,
    ):
        divided &= accelerator.num_processes > 1
        return _train(recipe, data, out, accelerator, divided, progress and accelerator.is_main_process)


def _train(recipe: Recipe, data: Path, out: Path, accelerator: Accelerator, divided: bool, progress: bool) -> Path:
    main = accelerator.is_main_process
    sharded = (data / INDEX).exists()
    if sharded:
        check_streamed(recipe.stages)
    check_names(data, recipe)
    everything = [] if sharded else load_records(data, recipe.data.datasets)
    everything = [record for record in everything if record.dataset not in (recipe.data.held_out or ())]
    records = [r for r in everything if r.split == "train"]
    seen = [r for r in records if r.image is not None]
    only = recipe.data.datasets or []
    # what the user gave to `finetune` is the folder of one data set, not the one above
    named = data / only[0] if len(only) == 1 else data
    if not seen and not sharded:
        raise DataError(f"no training image under '{named}'")
    torch.manual_seed(recipe.seed)
    if recipe.model.start:
        model, processor = load_start(recipe.model.start)
        # no weight depends on it: SAM2's prompt encoder is part of every model
        model.config.box_prompt |= recipe.model.box_prompt
        # the sizes of the recipe are those of a new model
        recipe = replace(recipe, model=replace(recipe.model, image_size=model.config.image_size))
    elif sharded:
        raise DataError("a new model takes its words from records: give the data root, or 'start' in the recipe")
    else:
        # one process makes files that the others read
        with accelerator.main_process_first():
            processor = make_processor(recipe.model, records, out / "processor")
        model = make_model(recipe.model, processor)
    model = with_box_decoder(model, recipe)
    for stage in recipe.stages:
        # before the first one is learned, which may take hours
        check_parts(stage, model.config)
    width = model.config.grounding_config.prompt_encoder_config.hidden_size
    heads = AuxiliaryHeads.for_records(seen, width, model.config.hidden_size)
    squared = model.config.shared_vision
    with accelerator.main_process_first():
        cached = squared and not sharded
        store = ImageStore(seen, recipe.store_size, out / "cache", progress=progress) if cached else None

    found = find_checkpoint(out / "checkpoint")
    state: dict[str, Any] = {"stage": 0, "step": 0} if found is None else read_state(found)
    first = state["stage"]
    if first + bool(state["step"]) > len(recipe.stages):
        raise DataError(f"checkpoint '{found}' was made by another recipe, of more stages: choose another --out")
    # an older checkpoint does not say
    for learned, stage in zip(state.get("stages", []), recipe.stages, strict=False):
        if learned != stage.name:
            stages = f"it has learned the stage '{learned}' where the recipe has '{stage.name}'"
            raise DataError(f"checkpoint '{found}' was made by another recipe: {stages}; choose another --out")
    learned_from = shards_digest(data) if sharded else records_digest(everything)
    # an older checkpoint does not say
    if state.get("data", learned_from) != learned_from:
        raise DataError(f"checkpoint '{found}' was made from other data: choose another --out, or give the same data")
    if state["step"] and (lora := recipe.stages[first].lora):
        add_lora(model, lora)
    if found is not None:
        load_modules(found, {"model": model, "heads": heads})
    elif recipe.model.start and store is not None and uses_prompts(recipe.stages):
        prompts_from_words(model, processor, heads, store, seen, recipe.seed)
    if accelerator.scaler is not None and "scaler" in state:
        accelerator.scaler.load_state_dict(state["scaler"])
    done = {stage.name: math.inf for stage in recipe.stages[:first]}
    done |= {stage.name: state["step"] for stage in recipe.stages[first : first + 1]}
    held_out = _held_out(data, recipe, None if sharded else everything)
    if main and not held_out:
        # a warning, not an error: small data sets have no validation split, and shards may be built without one
        warnings.warn(
            f"the validation split of '{named}' has no image with targets: no Dice is measured, no score calibrated",
            stacklevel=2,
        )
    log = Log(out / "log.csv", done, accelerator)
    model.train()
    run = Run(recipe, out, accelerator, divided, model, heads, processor, log, store, held_out, progress, learned_from)
    if main and found is not None:
        run.problems = read_problems(out / PROBLEMS)
    if accelerator.log_with:
        with writing(out):
            accelerator.init_trackers("unibiomed")
    for number in range(first, len(recipe.stages)):
        stage_recipe = recipe.stages[number]
        kept = records if stage_recipe.kind == "text" else seen
        make_source = partial(_make_source, data if sharded else kept, recipe, number, accelerator)
        resumed = found if number == first and state["step"] else None
        run_stage(run, number, make_source, state if resumed else {"step": 0}, resumed)
    size = recipe.size_of(recipe.stages[-1]) if squared else processor.settings.grounding_size
    processor = at_size(processor, model, size)
    model = model.cpu()
    if main and held_out and squared and model.config.scores_trained:
        val_store = None if isinstance(held_out, ShardedRecords) else ImageStore(held_out, size, out / "cache")
        chosen = choose(held_out, CALIBRATED)
        # of shards, only the index is known here
        vocabulary = ModelVocabulary() if sharded else ModelVocabulary(**taught_by(records))
        calibrate_scores(model, processor, val_store, chosen, recipe.seed, vocabulary=vocabulary, progress=progress)
        if vocabulary:
            asker = Asker(model, processor, "training", vocabulary)
            # a label says whether there is a finding, also where no region is known
            pictures = [r for r in everything if r.split == "val" and r.image is not None]
            calibrate_answers(asker, pictures, progress=progress)
    folder = out / "model"
    if main:
        export(model, processor, folder)
        licences = streamed_licences(data, recipe.data) if sharded else {r.dataset: r.licence for r in records}
        start = recipe.model.start
        # of shards, only the index is known here
        write_card(folder, model, licences, None if sharded else records, find_folder(start) if start else None)
        plot_log(out / "log.csv", out / "heldout.csv", out / "training.png")
        if run.problems:
            broken = f"broken records of '{named}' were left out: {len(run.problems)}, named in '{out / PROBLEMS}'"
            warnings.warn(broken, stacklevel=2)
    accelerator.wait_for_everyone()
    return folder


def _held_out(data: Path, recipe: Recipe, records: list[Record] | None) -> list[Record] | ShardedRecords:
    """Images of the validation split with targets; of shards, where `records` is None."""
    if records is None:
        return ShardedRecords(data, streamed_datasets(data, recipe.data))
    return [r for r in records if r.split == "val" and r.image is not None and r.regions]


def _make_source(
    data: Path | list[Record], recipe: Recipe, number: int, accelerator: Accelerator, worker: int, workers: int
) -> Source:
    wanted = recipe.data_of(recipe.stages[number])
    if isinstance(data, list):
        return Mixture(data, wanted, even=recipe.stages[number].even_labels)
    rank, world = accelerator.process_index, accelerator.num_processes
    # each stage in an order of its own: a stage may end before it has seen everything
    return Shards(data, wanted, recipe.seed + number, rank, world, worker, workers)
