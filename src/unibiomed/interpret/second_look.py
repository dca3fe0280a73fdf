"""A second look at small parts: masks of nuclei and the like are refined on a larger copy of the image.

A model that reads every image as one small square loses details of parts that are only a few pixels wide there. Where
the first mask is made of such parts and the image has more pixels than the square, the image is encoded once more at
5/4 of the side, the same prompts are decoded on it, and both passes are averaged. The presence score is that of the
first pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.ndimage import label

from unibiomed.findings import mask_box
from unibiomed.images import MedicalImage
from unibiomed.model.configuration import UniBiomedConfig
from unibiomed.model.mask_threshold import mask_threshold

from .asking import Asker
from .scores import trained_mask_scores

__all__ = ["MOST_LOOKS", "SecondLook", "can_look_again", "larger_side", "look_again", "part_width", "worth_a_look"]

SCALE = 5 / 4
"""Side of the larger square by that of the model's own: the time of the encoder grows with the square of the side."""
STEP = 32
"""Sides that the encoder reads are multiples of this."""
WIDTHS = (4.0, 12.0)
"""Width of the parts of a mask that is refined, in pixels of the model's own square. Thinner lines, such as retinal
vessels, are drawn worse at another scale than that of the training; wider parts are seen well in the first pass."""
LEAST_PARTS = 10
"""Separate parts of a mask that is refined: fewer are rather pieces of one object."""
LEAST_EXTENT = 0.5
"""Share of the image's width or height that a mask reaches over that is refined."""
MOST_LOOKS = 4
"""Masks of one question that are refined: with them, it takes at most about twice the time."""
AGREEMENT = 0.7
"""Dice of the refined mask with the first one, below which the first one stands."""


@dataclass(frozen=True, slots=True)
class SecondLook:
    """A refined mask.

    Attributes
    ----------
    mask : numpy.ndarray
        (height, width) bool.
    quality : float
        Mask score, in [0, 1]: the mean of both passes.
    """

    mask: np.ndarray
    quality: float


def can_look_again(config: UniBiomedConfig, size: tuple[int, int]) -> bool:
    """Whether a second look at an image of this size (height, width) shows more than the first.

    It does where the model reads each image as one square alone, its scores were trained, and the image has about as
    many pixels as the larger square, or more.
    """
    if not (config.scores_trained and config.shared_vision):
        return False
    return math.sqrt(size[0] * size[1]) >= 0.95 * larger_side(config.image_size)


def larger_side(side: int) -> int:
    """Side in pixels of the square of the second look, by that of the model's own."""
    return STEP * max(round(side * SCALE / STEP), side // STEP + 1)


def part_width(mask: np.ndarray) -> float:
    """Typical width of the parts of a mask in pixels: twice its area by the length of its outline.

    That is the width of a long stripe, half the side of a square, and 0.39 of the diameter of a disc. It is 0 for an
    empty mask.
    """
    framed = np.pad(mask, 1)
    outline = np.count_nonzero(framed[1:] != framed[:-1]) + np.count_nonzero(framed[:, 1:] != framed[:, :-1])
    return 2 * np.count_nonzero(mask) / outline if outline else 0.0


def worth_a_look(mask: np.ndarray) -> bool:
    """Whether a mask, (side, side) bool on the model's own square, is made of small parts."""
    box = mask_box(mask)
    if box is None:
        return False
    extent = max((box[2] - box[0]) / mask.shape[1], (box[3] - box[1]) / mask.shape[0])
    if extent < LEAST_EXTENT or not WIDTHS[0] <= part_width(mask) <= WIDTHS[1]:
        return False
    return int(label(mask)[1]) >= LEAST_PARTS


@torch.inference_mode()
def look_again(
    asker: Asker,
    image: MedicalImage,
    prompts: torch.Tensor,
    logits: torch.Tensor,
    thresholds: torch.Tensor,
    masks: list[np.ndarray],
    qualities: list[float],
) -> list[SecondLook | None]:
    """Refine masks of one image, which is encoded once for all of them.

    Parameters
    ----------
    asker : Asker
        Its model is one of those that :func:`can_look_again` names.
    image : MedicalImage
    prompts : torch.Tensor
        (N, prompt width), of the first pass.
    logits : torch.Tensor
        (N, side, side) mask logits of the first pass, as the model gives them.
    thresholds : torch.Tensor
        (N,) logits above which the pixels of the first masks lie.
    masks : list of numpy.ndarray
        N of (height, width) bool, of the first pass.
    qualities : list of float
        N mask scores of the first pass, in [0, 1].

    Returns
    -------
    list of SecondLook or None
        N; None where the refined mask is another one than the first.

    Raises
    ------
    ModelError
        The model's values are not finite.
    """
    model = asker.model
    size, side = (image.height, image.width), larger_side(model.config.image_size)
    pixels = asker.processor.grounding_pixels(Image.fromarray(image.pixels).convert("RGB"), side)[None]
    predicted = model.decode_masks(model.encode_image(pixels.to(model.device), text=False).maps, prompts)
    best = predicted.best()
    asker.check_numbers(bool(torch.isfinite(best).all()))
    scores = trained_mask_scores(predicted, model.config)
    # both passes count by how far each is above or below its own threshold
    second = best - mask_threshold(best, model.config.mask_threshold)[:, None, None]
    first = (logits - thresholds[:, None, None])[:, None].float()
    both = F.interpolate(first, second.shape[-2:], mode="bilinear", align_corners=False) + second[:, None].float()
    looks: list[SecondLook | None] = []
    for number, (before, quality) in enumerate(zip(masks, qualities, strict=True)):
        # one at a time: at the image's own size they are large
        enlarged = F.interpolate(both[number : number + 1], size, mode="bilinear", align_corners=False)[0, 0]
        mask = (enlarged > 0).cpu().numpy()
        shared = np.count_nonzero(mask & before)
        same = 2 * shared >= AGREEMENT * (np.count_nonzero(mask) + np.count_nonzero(before))
        looks.append(SecondLook(mask, (quality + scores[number]) / 2) if same else None)
    return looks
