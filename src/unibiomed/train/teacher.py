"""Features of LiteMedSAM's image encoder for a fixed set of views of training images, computed once and kept."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from unibiomed.data.index import file_sha256
from unibiomed.model.lite_medsam import find_weights, load_lite_medsam, read_square

from .checkpoint import writing
from .recipe import Recipe, StageRecipe

__all__ = ["TeacherFeatures"]


class TeacherFeatures:
    """Features of views by number, each in a file of its own: what was computed before a kill is used again.

    Parameters
    ----------
    recipe : Recipe
        Its ``model.box_teacher`` names the weights.
    stage : StageRecipe
        Decides the views, together with the recipe's seed and data.
    data : str
        Digest of what is learned from.
    folder : Path
        Where a folder is made for them.

    Raises
    ------
    ModelError
        The weights of LiteMedSAM are not found.
    """

    def __init__(self, recipe: Recipe, stage: StageRecipe, data: str, folder: Path) -> None:
        assert recipe.model.box_teacher is not None, "the recipe was checked"
        self.weights = find_weights(recipe.model.box_teacher)
        made_of = [
            file_sha256(self.weights), recipe.seed, stage.name, stage.augment, recipe.size_of(stage), recipe.store_size,
            asdict(recipe.data_of(stage)), data,
        ]  # fmt: skip
        self.folder = folder / f"teacher_{hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]}"

    def _file(self, number: int) -> Path:
        return self.folder / f"{number}.npy"

    def compute(self, count: int, pixels: Callable[[int], np.ndarray], device: torch.device, progress: bool) -> None:
        """Compute the features of the first views that are not there yet.

        Parameters
        ----------
        count : int
            Number of views.
        pixels : callable
            View of a number, (side, side, 3) uint8.
        device : torch.device
        progress : bool
            Show a progress bar, where there is a terminal.

        Raises
        ------
        ModelError
            The weights of LiteMedSAM are broken.
        OutputError
            The folder cannot be written.
        """
        missing = [number for number in range(count) if not self._file(number).exists()]
        if not missing:
            return
        encoder = load_lite_medsam(self.weights).image_encoder.to(device)
        # the type stubs of Module.to lack memory_format
        encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        disable = None if progress else True
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            for number in tqdm(missing, desc="teacher", unit="image", disable=disable):
                square = read_square(pixels(number))[0].to(device, memory_format=torch.channels_last)
                # half of the time where the processor has bfloat16, and an error of 0.2 % of the student's first loss
                with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16):
                    features = encoder(square)[0]
                part = self.folder / f"{number}.part.npy"
                np.save(part, features.cpu().half().numpy())
                os.replace(part, self._file(number))

    def load(self, number: int) -> torch.Tensor:
        """(256, 64, 64) float32 features of a view."""
        return torch.from_numpy(np.load(self._file(number))).float()
