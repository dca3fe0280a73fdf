"""Random views of an image and its masks. Left stays left wherever a name says which side it is."""

from __future__ import annotations

import random

import numpy as np
import torch
import torch.nn.functional as F

from unibiomed.data.records import Record

# no up, no down, no left, no right: any flip and quarter turn of these is an image of the same kind
TURNABLE = {"pathology", "dermoscopy", "endoscopy"}
# mirror images that do occur (a left and a right eye, breast, thyroid lobe), where no target names a side
MIRRORED = {"ultrasound", "fundus", "OCT"}


def augment(
    record: Record,
    pixels: np.ndarray,
    masks: dict[int, np.ndarray],
    rng: random.Random,
    *,
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
    strength : float
        0 changes nothing; 1 is the default range.

    Returns
    -------
    tuple
        (3, height, width) float32 in [0, 1], and region number to (height, width) float32 in [0, 1].
    """
    keys = list(masks)
    stack = np.concatenate([pixels.transpose(2, 0, 1), *[masks[k][None] for k in keys]]).astype(np.float32) / 255
    x = torch.from_numpy(stack)
    if strength:
        if record.modality in TURNABLE:
            x = torch.rot90(x, rng.randrange(4), (1, 2))
        if record.modality in TURNABLE | MIRRORED and rng.random() < 0.5 and not record.questions:
            x = x.flip(2)
        angle, scale = rng.gauss(0, 0.12) * strength, 2 ** (rng.gauss(0, 0.15) * strength)
        if rng.random() < 0.7:
            c, s = np.cos(angle) / scale, np.sin(angle) / scale
            shift = [rng.gauss(0, 0.06) * strength for _ in range(2)]
            theta = torch.tensor([[c, -s, shift[0]], [s, c, shift[1]]], dtype=torch.float32)
            grid = F.affine_grid(theta[None], [1, *x.shape], align_corners=False)
            x = F.grid_sample(x[None], grid, mode="bilinear", padding_mode="zeros", align_corners=False)[0]
        image = x[:3]
        gain, offset = 2 ** (rng.gauss(0, 0.2) * strength), rng.gauss(0, 0.06) * strength
        image = (image * gain + offset).clamp(0, 1)
        if rng.random() < 0.5:
            image = image ** (2 ** (rng.gauss(0, 0.3) * strength))
        if rng.random() < 0.2:
            noise = torch.Generator().manual_seed(rng.getrandbits(31))
            image = image + torch.randn(image.shape, generator=noise) * 0.03
        if rng.random() < 0.3 and record.modality in TURNABLE | {"fundus"}:
            image = image * torch.tensor([2 ** rng.gauss(0, 0.12) for _ in range(3)])[:, None, None]
        x = torch.cat([image.clamp(0, 1), x[3:]])
    return x[:3].contiguous(), {k: x[3 + i] for i, k in enumerate(keys)}
