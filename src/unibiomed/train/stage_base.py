"""What all kinds of stage share: batches, the losses of masks, boxes and auxiliary heads, and what they are divided by.

Every loss is a sum over what it is about (tokens, masks, images) divided by a count. The counts are given by the
trainer, which knows them for the whole step: on several devices, or in several parts, the loss is the same.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from unibiomed.data.records import Record
from unibiomed.errors import DataError
from unibiomed.findings import mask_box
from unibiomed.interpret.box_masks import prompt_box
from unibiomed.model.configuration import UniBiomedConfig
from unibiomed.model.modeling import ImageFeatures, MaskPrediction, UniBiomedModel
from unibiomed.model.processing import UniBiomedProcessor

from .heads import AuxiliaryHeads
from .losses import score_losses, segmentation_loss, soft_iou
from .mixture import Source
from .recipe import Recipe, StageRecipe
from .views import View, Viewer

TAUGHT_PARTS = {
    "box_weight": "region_summary",
    "region_weight": "region_summary",
    "context_weight": "context_match",
    "outline_weight": "box_prompt",
    "presence_targets": "fine_masks",
}
"""Weights of losses that only a model with a certain part can take, and that part's name in the configuration."""
BOX_JITTER = 0.04
"""Standard deviation with which each side of a box prompt is moved, as a share of the box."""

Counts = dict[str, float]
Sample = dict[str, Any]


def check_parts(recipe: StageRecipe, config: UniBiomedConfig) -> None:
    """Refuse weights of losses that train a part which the model does not have.

    A recipe with a stage of the kind ``boxes`` gives the model its box decoder itself.

    Raises
    ------
    DataError
        If there is one.
    """
    for weight, part in TAUGHT_PARTS.items():
        if recipe.kind == "boxes" and weight == "outline_weight":
            continue
        if getattr(recipe, weight) and not getattr(config, part):
            lacks = f"{weight} trains what '{part}' adds to a model, and this model has none: leave it out"
            raise DataError(f"stage '{recipe.name}': {lacks}")


class Stage:
    """One kind of stage: makes samples from random numbers of their own, and the losses of a batch."""

    def __init__(
        self,
        recipe: StageRecipe,
        model: UniBiomedModel,
        heads: AuxiliaryHeads,
        processor: UniBiomedProcessor,
        viewer: Viewer,
        source: Source,
    ) -> None:
        check_parts(recipe, model.config)
        self.recipe, self.model, self.heads = recipe, model, heads
        self.processor, self.viewer, self.source = processor, viewer, source

    def prepare(self, recipe: Recipe, folder: Path, data: str, progress: bool) -> None:
        """Make what the stage needs before its first step; most need nothing.

        Parameters
        ----------
        recipe : Recipe
            The whole recipe.
        folder : Path
            Where files may be kept for a run that goes on.
        data : str
            Digest of what is learned from.
        progress : bool
            Show on stderr how far it is.
        """

    def sample(self, rng: random.Random) -> Sample:
        """One image, or one text, with what is asked of it; made from `rng` (and the source's next record) alone."""
        raise NotImplementedError

    def collate(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """Samples as one batch of tensors."""
        batch: dict[str, Any] = {"grounding_pixels": torch.cat([s["inputs"].grounding_pixels for s in samples])}
        tiles = [s["inputs"].tile_pixels for s in samples]
        batch["tile_pixels"] = None if tiles[0] is None else torch.cat(tiles)
        batch["tile_counts"] = None if tiles[0] is None else [len(t) for t in tiles]
        for name in ("target", "seg_target", "seg_judged", "dense_target", "prompt_target", "label", "box_target"):
            batch[name] = torch.tensor([value for s in samples for value in s.get(name, ())])
        batch["outline_box"] = torch.tensor([box for s in samples for box in s.get("outline_box", ())])
        for name in ("truth", "dense_truth", "prompt_truth", "box_truth", "outline_truth"):
            truths = [value for s in samples for value in s.get(name, ())]
            batch[name] = torch.stack(truths) if truths else torch.zeros(0, 1, 1)
            batch[f"{name}_image"] = torch.tensor([i for i, s in enumerate(samples) for _ in s.get(name, ())])
            batch[f"{name}_seeds"] = [s["seed"] + k for s in samples for k in range(len(s.get(name, ())))]
        return batch

    def batch(self, rng: random.Random) -> dict[str, Any]:
        """A batch of the recipe's size; the samples' random numbers come from `rng`."""
        return self.collate([self.sample(random.Random(rng.getrandbits(64))) for _ in range(self.recipe.batch)])

    def counts(self, batch: dict[str, Any]) -> Counts:
        """What each loss of a batch is divided by, when the batch is the whole step."""
        counts = {}
        for name in ("truth", "prompt_truth"):
            counts[name] = float(len(batch[name]))
            counts[f"{name}_present"] = float(_present(batch[name]).sum())
        for name in ("dense_truth", "box_truth", "outline_truth"):
            counts[name] = float(len(batch[name]))
        for name in ("label", "box_target"):
            counts[name] = float((batch[name] >= 0).sum())
        return counts

    def losses(self, batch: dict[str, Any], counts: Counts | None = None) -> dict[str, torch.Tensor]:
        """Weighted losses by name; their sum is what is minimised."""
        raise NotImplementedError

    def _encode(self, batch: dict[str, Any], *, text: bool) -> ImageFeatures:
        return self.model.encode_image(batch["grounding_pixels"], batch["tile_pixels"], batch["tile_counts"], text=text)

    def _mask_losses(
        self, masks: MaskPrediction, batch: dict[str, Any], counts: Counts, name: str = "truth"
    ) -> dict[str, torch.Tensor]:
        assert masks.predicted_iou is not None and masks.presence_logits is not None
        truth, recipe = batch[name], self.recipe
        logits, quality = masks.best(), masks.predicted_iou.amax(1)
        weights = (recipe.bce_weight, recipe.dice_weight)
        seeds = batch[f"{name}_seeds"]
        loss = segmentation_loss(logits, truth, points=recipe.points, seeds=seeds, weights=weights)
        present = _present(truth)
        if recipe.absent_masks:
            out = {"mask": mean_over(loss, counts[name])}
        else:
            out = {"mask": mean_over(loss * present, counts[f"{name}_present"])}
        if recipe.presence_weight or recipe.quality_weight:
            presence, error = score_losses(masks.presence_logits, quality, present, soft_iou(logits, truth))
            out["presence"] = recipe.presence_weight * mean_over(presence, counts[name])
            out["quality"] = recipe.quality_weight * mean_over(error, counts[f"{name}_present"])
        return out

    def _outline_sample(self, record: Record, view: View, rng: random.Random) -> Sample:
        """The box of one region that is there, drawn as loosely as people draw, with its mask."""
        shown = [j for j, region in enumerate(record.regions) if not region.box and view.has(j)]
        if not (self.recipe.outline_weight and shown):
            return {}
        j = rng.choice(shown)
        truth = view.mask(j)
        found = mask_box(view.solid(j))
        if found is None or not bool((truth > 0.5).any()):
            return {}
        # as at inference: from pixels of the image, which need not be those of the mask, to pixels of the square
        side = self.viewer.size
        box = prompt_box(found, (view.image.shape[0], view.image.shape[1]), side)
        sides = (box[2] - box[0], box[3] - box[1]) * 2
        loose = [edge + rng.gauss(0, BOX_JITTER) * length for edge, length in zip(box, sides, strict=True)]
        return {"outline_box": [[min(max(edge, 0.0), side - 1.0) for edge in loose]], "outline_truth": [truth]}

    def _outline_losses(
        self, features: ImageFeatures, batch: dict[str, Any], counts: Counts
    ) -> dict[str, torch.Tensor]:
        """Masks of boxes, and how good they are."""
        truth = batch["outline_truth"]
        if not (self.recipe.outline_weight and len(truth)):
            return {}
        masks = self.model.decode_masks(features.maps, None, batch["outline_truth_image"], boxes=batch["outline_box"])
        assert masks.predicted_iou is not None
        return self._box_losses(masks.best(), masks.predicted_iou.amax(1), batch, counts)

    def _box_losses(
        self, logits: torch.Tensor, quality: torch.Tensor, batch: dict[str, Any], counts: Counts
    ) -> dict[str, torch.Tensor]:
        truth = batch["outline_truth"]
        loss = segmentation_loss(logits, truth, points=0, weights=(self.recipe.bce_weight, self.recipe.dice_weight))
        error = (quality - soft_iou(logits, truth).detach()).square()
        return {
            "outline": self.recipe.outline_weight * mean_over(loss, counts["outline_truth"]),
            "outline_quality": self.recipe.quality_weight * mean_over(error, counts["outline_truth"]),
        }

    def _distill(self, states: torch.Tensor, targets: torch.Tensor, count: float) -> dict[str, torch.Tensor]:
        """Distance of the prompts at ``[SEG]`` from the learned prompts of their targets, -1 where none is known."""
        known = targets >= 0
        if not self.recipe.distill_weight or not bool(known.any()):
            return {}
        wanted = self.heads.prompts(targets[known]).detach()
        error = (states[known] - wanted).square().mean(1) / wanted.square().mean(1).clamp(min=1e-6)
        return {"distill": self.recipe.distill_weight * mean_over(error, count)}

    def _auxiliary(self, features: ImageFeatures, batch: dict[str, Any], counts: Counts) -> dict[str, torch.Tensor]:
        out = {}
        if self.recipe.dense_weight and len(batch["dense_truth"]):
            maps = self.heads.dense(F.gelu(features.maps[0]))
            logits = maps[batch["dense_truth_image"], batch["dense_target"]]
            weights = (self.recipe.bce_weight, self.recipe.dice_weight)
            loss = segmentation_loss(logits, batch["dense_truth"], points=0, weights=weights)
            out["dense"] = self.recipe.dense_weight * mean_over(loss, counts["dense_truth"])
        if self.recipe.label_weight and bool((batch["label"] >= 0).any()):
            logits = self.heads.label(features.maps[2].mean((2, 3)))
            loss = F.cross_entropy(logits, batch["label"], ignore_index=-1, reduction="none")
            out["label"] = self.recipe.label_weight * mean_over(loss, counts["label"])
        return out

    def _dense_targets(self, record: Record, view: View) -> Sample:
        targets = self.heads.targets
        known = [j for j, region in enumerate(record.regions) if region.target in targets and not region.box]
        found = any(region.abnormal and (region.box or view.has(j)) for j, region in enumerate(record.regions))
        label = record.diagnosis(found)
        return {
            "dense_target": [targets[record.regions[j].target] for j in known],
            "dense_truth": [view.mask(j) for j in known],
            "label": [self.heads.labels.get(label, -1) if label else -1],
        }


def mean_over(values: torch.Tensor, count: float) -> torch.Tensor:
    """Sum of a loss over what it is about, divided by a count; 0 where the count is 0."""
    return values.sum() / max(count, 1.0)


def _present(truth: torch.Tensor) -> torch.Tensor:
    return truth.flatten(1).amax(1) > 0.5 if len(truth) else torch.zeros(0, dtype=torch.bool)
