"""Random views of an image and its masks. Left stays left wherever a name says which side it is."""

from __future__ import annotations

import math
import random

import numpy as np
import torch
import torch.nn.functional as F

from unibiomed.data.records import REGION_TEXT, Record

from .smear import SMEARS, paint_red_cells

# no up, no down, no left, no right: any flip and quarter turn of these is an image of the same kind
TURNABLE = {"pathology", "dermoscopy", "endoscopy"}
# mirror images that do occur (a left and a right eye, breast, thyroid lobe), where no target names a side
MIRRORED = {"ultrasound", "fundus", "OCT"}
# cameras, lamps and stains differ from clinic to clinic; the colours of skin lesions tell what they are
COLOURED = {"pathology", "endoscopy", "fundus"}
# no frame of reference either: a part of such a picture, seen closer, is a picture of the same kind
ZOOMED = {"pathology", "fundus"}


def augment(
    record: Record,
    pixels: np.ndarray,
    masks: dict[int, np.ndarray],
    rng: random.Random,
    *,
    size: int | None = None,
    strength: float = 1.0,
) -> tuple[torch.Tensor, dict[int, torch.Tensor]]:
    """One random view.

    Parameters
    ----------
    record : Record
        Its modality says which flips are allowed.
    pixels : numpy.ndarray
        (height, width, 3) uint8.
    masks : dict of int to numpy.ndarray
        Region number to (height, width) uint8, 255 inside.
    rng : random.Random
        Source of chance.
    size : int, optional
        Side of the view in pixels; that of the pixels when left out.
    strength : float
        0 changes nothing; 1 is the default range.

    Returns
    -------
    tuple
        (3, size, size) float32 in [0, 1], and region number to (size, size) float32 in [0, 1].
    """
    keys = list(masks)
    stack = np.concatenate([pixels.transpose(2, 0, 1), *[masks[k][None] for k in keys]]).astype(np.float32) / 255
    x = torch.from_numpy(stack)
    if strength:
        if record.modality in TURNABLE and not _written(record):
            x = torch.rot90(x, rng.randrange(4), (1, 2))
        if record.modality in TURNABLE | MIRRORED and rng.random() < 0.5 and not _told(record):
            x = x.flip(2)
        if rng.random() < 0.7:
            x = _move(record, x, rng, size, strength)
        elif size:
            x = shrink(x, size)
        if any(region.target in SMEARS for region in record.regions) and rng.random() < 0.6 * strength:
            white = x[3:].amax(0) if len(keys) else torch.zeros(x.shape[1:])
            x = torch.cat([paint_red_cells(x[:3], white, rng), x[3:]])
        x = torch.cat([_recolour(record, x[:3], rng, strength), x[3:]])
    elif size:
        x = shrink(x, size)
    return x[:3].contiguous(), {k: x[3 + i] for i, k in enumerate(keys)}


def _written(record: Record) -> bool:
    """Whether an expert's sentences tell of the image as it was: what is left in it, and what is at the top."""
    return record.text is not None or any(REGION_TEXT in region.attributes for region in record.regions)


def _told(record: Record) -> bool:
    return bool(record.questions) or _written(record)


def shrink(x: torch.Tensor, size: int) -> torch.Tensor:
    """(channels, height, width) in [0, 1] to (channels, size, size), every pixel weighed."""
    if x.shape[1:] == (size, size):
        return x
    return F.interpolate(x[None], (size, size), mode="bilinear", antialias=True, align_corners=False)[0].clamp(0, 1)


def _move(record: Record, x: torch.Tensor, rng: random.Random, size: int | None, strength: float) -> torch.Tensor:
    zoomed = record.modality in ZOOMED and not _told(record)
    spread, towards = (0.35, 0.25) if zoomed else (0.18, 0.0)
    angle, scale = rng.gauss(0, 0.12) * strength, 2 ** (rng.gauss(towards, spread) * strength)
    c, s = np.cos(angle) / scale, np.sin(angle) / scale
    # what is seen closer may be any part of the picture
    reach = max(0.0, 1 - 1 / scale) * zoomed
    shift = [rng.gauss(0, 0.06) * strength + rng.uniform(-reach, reach) for _ in range(2)]
    theta = torch.tensor([[c, -s, shift[0]], [s, c, shift[1]]], dtype=torch.float32)
    side = size or x.shape[1]
    if 1.5 * side * scale < x.shape[1]:
        # a coarse view takes samples: without this, thin lines fall between them
        x = shrink(x, round(1.2 * side * scale))
    grid = F.affine_grid(theta[None], [1, len(x), side, side], align_corners=False)
    return F.grid_sample(x[None], grid, mode="bilinear", padding_mode="zeros", align_corners=False)[0]


def _recolour(record: Record, image: torch.Tensor, rng: random.Random, strength: float) -> torch.Tensor:
    if record.modality == "pathology" and rng.random() < 0.6:
        # every laboratory stains its own way
        mix = torch.eye(3) + torch.tensor([[rng.gauss(0, 0.12) * strength for _ in range(3)] for _ in range(3)])
        image = torch.einsum("ij,jhw->ihw", mix, image - 0.8) + 0.8
    gain, offset = 2 ** (rng.gauss(0, 0.2) * strength), rng.gauss(0, 0.06) * strength
    image = (image * gain + offset).clamp(0, 1)
    if rng.random() < 0.5:
        image = image ** (2 ** (rng.gauss(0, 0.3) * strength))
    if rng.random() < 0.2:
        noise = torch.Generator().manual_seed(rng.getrandbits(31))
        image = image + torch.randn(image.shape, generator=noise) * 0.03
    if record.modality in COLOURED and rng.random() < 0.6:
        image = torch.einsum("ij,jhw->ihw", _colour_matrix(rng, strength), image)
    return image.clamp(0, 1)


def _colour_matrix(rng: random.Random, strength: float) -> torch.Tensor:
    """(3, 3): turn the hue, stretch the saturation, weigh the channels; grey stays grey but for the weights."""
    angle, saturation = rng.gauss(0, 0.25) * strength, 2 ** (rng.gauss(-0.2, 0.5) * strength)
    if rng.random() < 0.1 * strength:
        saturation = 0.0
    grey = torch.full((3, 3), 1 / 3)
    # Rodrigues: a turn about the grey axis
    cross = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / 3**0.5
    turn = math.cos(angle) * (torch.eye(3) - grey) + math.sin(angle) * cross
    gains = torch.tensor([2 ** (rng.gauss(0, 0.15) * strength) for _ in range(3)])
    return gains[:, None] * (grey + saturation * turn)
