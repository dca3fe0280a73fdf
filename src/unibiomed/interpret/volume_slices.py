"""A model as a reader of the slices of a volume."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch

from unibiomed.images import MedicalImage
from unibiomed.model.mask_threshold import mask_threshold
from unibiomed.model.modeling import ImageFeatures, UniBiomedModel
from unibiomed.model.seg_states import seg_prompts
from unibiomed.tasks import make_question

from .asking import Asker, EncodedImage
from .scores import derived_scores, presence_scores, trained_scores
from .volume_reading import SliceReading

__all__ = ["ModelReader", "model_digest"]

SAMPLED = 1 << 16
"""Values of each tensor that enter the digest of a model."""


class ModelReader:
    """Reads slices with a model.

    The prompts of the targets depend on the slice, so that the language model reads every slice too. It answers the
    first slice word by word. If its answer for a target is one ``[SEG]``, the same words are assumed on all other
    slices, which are then read in one pass; other targets are asked word by word on every slice.

    Parameters
    ----------
    asker : Asker
    names : sequence of str
        Targets, in the model's own words.
    modality : str or None
        Named in the questions.
    batch : int, optional
        Slices that are encoded together; 4 on a CPU and 16 elsewhere when left out.
    """

    def __init__(self, asker: Asker, names: Sequence[str], modality: str | None, batch: int | None = None) -> None:
        self._asker = asker
        self._questions = [make_question("segment", target=name, modality=modality) for name in names]
        self._answers: list[list[int] | None] | None = None
        self.batch = batch or (4 if asker.model.device.type == "cpu" else 16)
        self.model_digest = model_digest(asker.model)
        parts = [self.model_digest, *self._questions]
        self.digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @torch.inference_mode()
    def read(self, images: Sequence[MedicalImage]) -> list[SliceReading]:
        """Read slices of one volume; see `SliceReader`."""
        encoded = self._encode(images)
        prompts = self._prompts(encoded)
        return [self._reading(one, prompt) for one, prompt in zip(encoded, prompts, strict=True)]

    def resize(self, margin: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """(height, width) float32 of a (side, side) margin, as masks of single images are resized."""
        logits = torch.from_numpy(np.ascontiguousarray(margin, np.float32))[None]
        return self._asker.processor.mask_logits(logits, size)[0].numpy()

    def _encode(self, images: Sequence[MedicalImage]) -> list[EncodedImage]:
        """Look at all slices in one call of the encoders."""
        model, inputs = self._asker.model, [self._asker.processor.image(image.pixels) for image in images]
        tiles = [one.tile_pixels for one in inputs if one.tile_pixels is not None]
        features = model.encode_image(
            torch.cat([one.grounding_pixels for one in inputs]).to(model.device),
            torch.cat(tiles).to(model.device) if tiles else None,
            [len(one) for one in tiles] if tiles else None,
        )
        return [
            EncodedImage(
                image,
                ImageFeatures([features.tokens[k]], tuple(m[k : k + 1] for m in features.maps)),
                inputs[k].tokens,
            )
            for k, image in enumerate(images)
        ]

    def _prompts(self, encoded: Sequence[EncodedImage]) -> list[list[torch.Tensor | None]]:
        """For each slice, the prompts of each target, (N, width); None where the model gave none."""
        known: list[list[torch.Tensor | None]] = []
        if self._answers is None:
            first, self._answers = self._free(encoded[0])
            known.append(first)
        rest = encoded[len(known) :]
        if not rest:
            return known
        fixed = [k for k, answer in enumerate(self._answers) if answer is not None]
        table: list[list[torch.Tensor | None]] = [[None] * len(self._questions) for _ in rest]
        if fixed:
            together = ImageFeatures([one.features.tokens[0] for one in rest], ())
            processor = self._asker.processor
            sequences = [
                [
                    *processor.prompt_ids(self._questions[k].replace("\0", " "), rest[0].tokens),
                    *(self._answers[k] or []),
                ]
                for k in fixed
            ]
            for row, states in zip(table, seg_prompts(self._asker.model, together, sequences), strict=True):
                for k, state in zip(fixed, states, strict=True):
                    row[k] = state[None]
        free = [k for k, answer in enumerate(self._answers) if answer is None]
        if free:
            for row, one in zip(table, rest, strict=True):
                for k, answer in zip(free, self._asker.answer(one, [self._questions[k] for k in free]), strict=True):
                    row[k] = answer.prompts if answer.prompts is not None and len(answer.prompts) else None
        return [*known, *table]

    def _free(self, encoded: EncodedImage) -> tuple[list[torch.Tensor | None], list[list[int] | None]]:
        """Prompts that the model gives by itself, and its answers up to their only ``[SEG]``."""
        seg = self._asker.model.config.seg_token_id
        prompts: list[torch.Tensor | None] = []
        answers: list[list[int] | None] = []
        for answer in self._asker.answer(encoded, self._questions):
            prompts.append(answer.prompts if answer.prompts is not None and len(answer.prompts) else None)
            once = answer.finished and answer.ids.count(seg) == 1
            answers.append(answer.ids[: answer.ids.index(seg) + 1] if once else None)
        return prompts, answers

    def _reading(self, encoded: EncodedImage, prompts: Sequence[torch.Tensor | None]) -> SliceReading:
        asker, maps = self._asker, encoded.features.maps
        own = [k for k, one in enumerate(prompts) if one is not None]
        rows = [k for k in own for _ in range(len(prompts[k]))]  # type: ignore[arg-type]
        presence = np.zeros(len(prompts), np.float32)
        if not rows:
            return SliceReading(presence, lambda indices: np.full((len(indices), 1, 1), -1.0, np.float32))
        stacked = torch.cat([prompts[k] for k in own])  # type: ignore[misc]
        scores = presence_scores(asker.model, maps, stacked)
        margins: dict[int, np.ndarray] = {}
        if scores is None:
            # of such a model presence is only known with the mask
            drawn, scores = self._draw(maps, stacked)
            for row, margin in zip(rows, drawn, strict=True):
                margins[row] = np.maximum(margins[row], margin) if row in margins else margin
        asker.check_numbers(bool(np.isfinite(scores).all()))
        for row, score in zip(rows, scores, strict=True):
            presence[row] = max(presence[row], score)

        @torch.inference_mode()
        def decode(indices: Sequence[int]) -> np.ndarray:
            missing = [k for k in indices if k not in margins and k in own]
            if missing:
                drawn, _ = self._draw(maps, torch.cat([prompts[k] for k in missing]))  # type: ignore[misc]
                at = 0
                for k in missing:
                    many = len(prompts[k])  # type: ignore[arg-type]
                    margins[k] = drawn[at : at + many].max(0)
                    at += many
            side = next(iter(margins.values())).shape if margins else (1, 1)
            return np.stack([margins.get(k, np.full(side, -1.0, np.float32)) for k in indices])

        return SliceReading(presence, decode)

    def _draw(self, maps: tuple[torch.Tensor, ...], prompts: torch.Tensor) -> tuple[np.ndarray, list[float]]:
        """Margins (N, side, side) and presence scores of prompts of one slice."""
        config = self._asker.model.config
        predicted = self._asker.model.decode_masks(maps, prompts)
        best = predicted.best().float()
        self._asker.check_numbers(bool(torch.isfinite(best).all()))
        trained = config.scores_trained
        presence = trained_scores(predicted, config)[0] if trained else derived_scores(best.sigmoid())[0]
        margins = best - mask_threshold(best, config.mask_threshold)[:, None, None]
        return margins.cpu().numpy(), presence


def model_digest(model: UniBiomedModel) -> str:
    """Short text that differs between models: a hash of settings, and of names, shapes and values of the weights.

    Of large tensors `SAMPLED` values enter, evenly spread, so that weights of gigabytes take seconds.
    """
    found = hashlib.sha256(model.config.to_json_string().encode())
    for name, tensor in model.state_dict().items():
        flat = tensor.detach().reshape(-1)
        some = flat[:: max(1, len(flat) // SAMPLED)].float().cpu().numpy()
        found.update(f"{name} {tuple(tensor.shape)}".encode())
        found.update(np.ascontiguousarray(some).tobytes())
    return found.hexdigest()[:16]
