"""The stage ``boxes``: the box decoder learns from LiteMedSAM, and from masks, on the frozen rest of the model.

Its neck is drawn towards the features that LiteMedSAM's image encoder makes of the same view (`distill_weight`). That
encoder takes seconds an image, so the views are a fixed set (`teacher_images`). Masks of their regions, asked for by
boxes that are drawn a little off, teach neck and decoder together (`outline_weight`).
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from .recipe import Recipe
from .stage_base import Counts, Sample, Stage, mean_over
from .teacher import TeacherFeatures
from .views import View

__all__ = ["BoxStage", "feature_distance"]

TYPICAL_ERROR = 0.02
"""Mean squared error that weighs as much as a cosine of 0 does; the variance of the features is 0.01."""


class BoxStage(Stage):
    """The box decoder on views of training images."""

    def prepare(self, recipe: Recipe, folder: Path, data: str, progress: bool) -> None:
        """Compute the teacher's features of all views that are not in `folder` yet."""
        self.seed = recipe.seed
        self.features = TeacherFeatures(recipe, self.recipe, data, folder)
        if self.recipe.distill_weight:
            self.features.compute(
                self.recipe.teacher_images, lambda number: self._view(number).image, self.model.device, progress
            )

    def _view(self, number: int) -> View:
        """A view of the fixed set."""
        rng = random.Random(f"{self.seed}/{self.recipe.name}/{number}")
        return self.viewer.view(self.source.draw(rng), rng, self.recipe.augment)

    def sample(self, rng: random.Random) -> Sample:
        """One of the views with the teacher's features, and boxes with their masks."""
        number = rng.randrange(self.recipe.teacher_images)
        view = self._view(number)
        sample: Sample = defaultdict(list)
        for _ in range(self.recipe.turns):
            for name, values in self._outline_sample(view.record, view, rng).items():
                sample[name].extend(values)
        if self.recipe.distill_weight:
            sample["teacher"] = self.features.load(number)
        return sample | {"inputs": self.processor.image(view.image), "seed": rng.getrandbits(48)}

    def collate(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """Samples as one batch of tensors; ``teacher`` is (images, 256, 64, 64)."""
        batch = super().collate(samples)
        if self.recipe.distill_weight:
            batch["teacher"] = torch.stack([sample["teacher"] for sample in samples])
        return batch

    def counts(self, batch: dict[str, Any]) -> Counts:
        """Masks and images."""
        return super().counts(batch) | {"teacher": float(len(batch["grounding_pixels"]))}

    def losses(self, batch: dict[str, Any], counts: Counts | None = None) -> dict[str, torch.Tensor]:
        """Distance from the teacher's features, masks of boxes, and how good they are."""
        counts = counts or self.counts(batch)
        with torch.no_grad():
            maps = self._encode(batch, text=False).maps
        decoder = self.model.box_decoder
        losses = {}
        # mixed precision, as the teacher: the weights stay float32, and a step takes half of the time
        with torch.autocast(self.model.device.type, torch.bfloat16):
            features = decoder.neck(maps)
            logits = quality = None
            if self.recipe.outline_weight and len(batch["outline_truth"]):
                image = batch["outline_truth_image"]
                logits, quality = decoder.decode(features, batch["outline_box"], self.viewer.size, image)
        if self.recipe.distill_weight:
            error = feature_distance(features, batch["teacher"])
            losses["distill"] = self.recipe.distill_weight * mean_over(error, counts["teacher"])
        if logits is not None and quality is not None:
            losses |= self._box_losses(logits.float(), quality.float(), batch, counts)
        return losses


def feature_distance(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """How far features are from others.

    Parameters
    ----------
    found, wanted : torch.Tensor
        (images, channels, rows, columns).

    Returns
    -------
    torch.Tensor
        (images,) mean squared error over `TYPICAL_ERROR`, plus one minus the mean cosine of the places.
    """
    found, wanted = found.float(), wanted.float()
    error = (found - wanted).square().mean((1, 2, 3)) / TYPICAL_ERROR
    return error + 1 - torch.cosine_similarity(found, wanted, dim=1).mean((1, 2))
