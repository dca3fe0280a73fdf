"""The mask of what a box holds: the box decoder, or SAM2's own box prompt, without the language model."""

from __future__ import annotations

import hashlib
import time

import numpy as np
import torch

from unibiomed.errors import ModelError
from unibiomed.findings import Box, Finding
from unibiomed.images import MedicalImage
from unibiomed.model.configuration import UniBiomedConfig
from unibiomed.model.mask_threshold import mask_threshold
from unibiomed.model.modeling import MaskPrediction
from unibiomed.tasks import make_question

from .asking import Asker, EncodedImage
from .modality import known_modality
from .result import Result
from .scores import derived_scores, trained_mask_scores

__all__ = ["LABEL", "box_mask", "can_outline", "outline_box", "prompt_box"]

LABEL = "region in box"
"""Label of the finding: nobody said what it is."""


def can_outline(config: UniBiomedConfig) -> bool:
    """Whether a box gives a mask in a model of this configuration.

    Models of the published format keep SAM2's own box prompt. A model that trained SAM2's heads anew has one only where
    it was trained as well, or where it has a box decoder.
    """
    return config.box_decoder or config.box_prompt or not config.scores_trained


def outline_box(
    asker: Asker,
    image: EncodedImage | MedicalImage,
    box: Box,
    modality: str | None = None,
    *,
    unused: bool = False,
    started: float | None = None,
) -> Result:
    """The result of the task ``outline``: one finding with the mask of what is in the box.

    Parameters
    ----------
    asker : Asker
    image : EncodedImage or MedicalImage
        Where it was encoded without a box, it is not encoded again.
    box : tuple of int
        x0, y0, x1, y1 in pixels of the image, x1 and y1 exclusive; inside of the image.
    modality : str, optional
        Of the image, for the result.
    unused : bool
        Targets were given as well: a note says that they have no effect.
    started : float, optional
        ``time.perf_counter()`` at the beginning of the work.

    Returns
    -------
    Result
        Its finding has a mask score, but no presence score: that something is there is what the box says.

    Raises
    ------
    ModelError
        The model has no trained box prompt, or its values are not finite.
    """
    begun = time.perf_counter() if started is None else started
    if not can_outline(asker.model.config):
        raise ModelError(
            f"the model '{asker.name}' was not trained to outline what a box holds: use another model, or name the "
            "target with --task segment --target NAME"
        )
    medical = image.image if isinstance(image, EncodedImage) else image
    maps = image.features.maps if isinstance(image, EncodedImage) and image.box is None else _encode(asker, medical)
    known = known_modality(modality, medical.modality)
    mask, score = box_mask(asker, maps, box, (medical.height, medical.width))
    finding = Finding.from_mask(LABEL, mask, mask_score=score, spacing=medical.spacing)
    return Result(
        task="outline",
        question=make_question("outline"),
        text="Outlined the region in the box." if finding.present else "No region was found in the box.",
        raw_text="",
        findings=(finding,),
        height=medical.height,
        width=medical.width,
        spacing=medical.spacing,
        image=medical.source,
        model=asker.name,
        seconds=time.perf_counter() - begun,
        notes=("targets have no effect on the task 'outline'; they belong to 'segment'",) if unused else (),
        details={
            **medical.details,
            "modality": known.name,
            "modality_source": known.source,
            "box": box,
            "presence_threshold": None,
            "pixels": hashlib.sha256(np.ascontiguousarray(medical.pixels).tobytes()).hexdigest()[:16],
        },
        pixels=medical.pixels,
    )


@torch.inference_mode()
def _encode(asker: Asker, medical: MedicalImage) -> tuple[torch.Tensor, ...]:
    """SAM2's features of an image; the language model's tokens, which take longer in large models, are left out."""
    pixels = asker.processor.image(medical.pixels).grounding_pixels
    return asker.model.encode_image(pixels.to(asker.model.device), text=False).maps


@torch.inference_mode()
def box_mask(asker: Asker, maps: tuple[torch.Tensor, ...], box: Box, size: tuple[int, int]) -> tuple[np.ndarray, float]:
    """The mask of what is in a box; what the model adds beyond the box is left out.

    Parameters
    ----------
    asker : Asker
    maps : tuple of torch.Tensor
        ``ImageFeatures.maps`` of the image without a box drawn on it.
    box : tuple of int
        x0, y0, x1, y1 in pixels of the image, x1 and y1 exclusive.
    size : tuple of int
        Height and width of the image in pixels.

    Returns
    -------
    numpy.ndarray
        (height, width) bool.
    float
        Mask score in [0, 1].
    """
    config = asker.model.config
    corners = torch.tensor([prompt_box(box, size, config.image_size)], device=asker.model.device)
    predicted = asker.model.decode_boxes(maps, corners)
    scored = config.box_decoder or config.scores_trained
    best = predicted.best() if scored else _likeliest(predicted)
    asker.check_numbers(bool(torch.isfinite(best).all()))
    # the box decoder's masks end where LiteMedSAM's do
    level = float(mask_threshold(best, "half" if config.box_decoder else config.mask_threshold).sigmoid())
    probabilities = asker.processor.mask_logits(best, size).sigmoid_()
    if config.box_decoder:
        assert predicted.predicted_iou is not None
        score = float(predicted.predicted_iou.clamp(0, 1))
    else:
        [score] = trained_mask_scores(predicted, config) if scored else derived_scores(probabilities)[1]
    mask = (probabilities[0] > level).cpu().numpy()
    inside = np.zeros_like(mask)
    x0, y0, x1, y1 = box
    inside[y0:y1, x0:x1] = mask[y0:y1, x0:x1]
    return inside, score


def prompt_box(box: Box, size: tuple[int, int], side: int) -> tuple[float, float, float, float]:
    """A box as SAM2's prompt encoder reads it, in training as well.

    SAM's boxes go from the first pixel to the last one, each counted at its centre: the far corner is included.

    Parameters
    ----------
    box : tuple of int
        x0, y0, x1, y1 in pixels of the image, x1 and y1 exclusive.
    size : tuple of int
        Height and width of the image in pixels.
    side : int
        Side in pixels of the square that SAM2 reads.

    Returns
    -------
    tuple of float
        x0, y0, x1, y1 in pixels of the square.
    """
    down, across = side / size[0], side / size[1]
    return box[0] * across, box[1] * down, (box[2] - 1) * across, (box[3] - 1) * down


def _likeliest(predicted: MaskPrediction) -> torch.Tensor:
    """(1, side, side) logits of the candidate with the highest derived mask score: the IoU head was not trained."""
    assert predicted.logits is not None
    candidates = predicted.logits[0]
    scores = derived_scores(candidates.float().sigmoid())[1]
    best = max(range(len(scores)), key=scores.__getitem__)
    return candidates[best : best + 1]
