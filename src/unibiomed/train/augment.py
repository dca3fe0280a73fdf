"""Random views of an image and its masks: geometry here, grey values and colours in `appearance` and `overlays`."""

from __future__ import annotations

import math
import random
import re
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

from unibiomed.data.records import REGION_TEXT, Record

from .appearance import degrade, jpeg, recolour, shade, tone
from .overlays import draw_overlays
from .smear import SMEARS, paint_red_cells

# images without an upright position: any flip and quarter turn of these is an image of the same kind
TURNABLE = {"pathology", "dermoscopy", "endoscopy"}
# slices that other readers and file formats store flipped or rotated
SLICES = {"CT", "MRI", "PET"}
# mirror images that do occur (a left and a right eye, breast, thyroid lobe), where no target names a side
MIRRORED = {"ultrasound", "fundus", "OCT"}
# a part of such an image, magnified, is an image of the same kind
ZOOMED = {"pathology", "fundus"}
# cameras with a circular or clipped field of view
SCOPES = {"endoscopy", "fundus", "dermoscopy"}

SIDED = re.compile(r"\b(left|right)\b", re.IGNORECASE)
TRIES = 4
LEAST_SHARE, KEPT_SHARE, LEAST_PIXELS = 0.08, 0.25, 12


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
        Its modality, targets and texts determine which changes are allowed.
    pixels : numpy.ndarray
        (height, width, 3) uint8.
    masks : dict of int to numpy.ndarray
        Region number to (height, width) uint8, 255 inside.
    rng : random.Random
        Source of randomness; the view depends on nothing else.
    size : int, optional
        Side of the view in pixels; that of the pixels when left out.
    strength : float
        0 changes nothing; 1 is the default range. Probabilities and ranges are proportional to it.

    Returns
    -------
    tuple
        (3, size, size) float32 in [0, 1], and region number to (size, size) float32 in [0, 1]. The mask of a target
        that is outside of the view, or of which only a sliver is left, is empty.
    """
    keys = list(masks)
    if not strength:
        stack = np.concatenate([pixels.transpose(2, 0, 1), *[masks[k][None] for k in keys]]).astype(np.float32) / 255
        x = torch.from_numpy(stack)
        if size:
            x = shrink(x, size)
        return x[:3].contiguous(), {k: x[3 + i] for i, k in enumerate(keys)}
    image = tone(record.modality, pixels, rng, strength)
    truth = torch.zeros(0, *image.shape[1:])
    if keys:
        truth = torch.from_numpy(np.stack([masks[k] for k in keys])).float().div_(255)
    if any(region.target in SMEARS for region in record.regions) and rng.random() < 0.6 * strength:
        white = truth.amax(0) if len(truth) else torch.zeros(image.shape[1:])
        image = paint_red_cells(image, white, rng)
    image = shade(record.modality, recolour(record.modality, image, rng, strength), rng, strength)
    image, truth = _geometry(record, image, truth, rng, size or image.shape[1], strength)
    image = degrade(image, rng, strength)
    image = draw_overlays(record.modality, image, truth, rng, strength)
    if rng.random() < 0.25 * strength:
        image = jpeg(image, rng.randint(15, 70))
    if len(image) == 1:
        image = image.expand(3, -1, -1)
    return image.contiguous(), {k: truth[i] for i, k in enumerate(keys)}


def shrink(x: torch.Tensor, size: int) -> torch.Tensor:
    """(channels, height, width) in [0, 1] to (channels, size, size), every pixel weighed."""
    if x.shape[1:] == (size, size):
        return x
    return F.interpolate(x[None], (size, size), mode="bilinear", antialias=True, align_corners=False)[0].clamp(0, 1)


def _written(record: Record) -> bool:
    """Whether an expert's sentences refer to the image as it was, for example to its left or its top."""
    return record.text is not None or any(REGION_TEXT in region.attributes for region in record.regions)


def _told(record: Record) -> bool:
    """Whether an expert's questions or sentences refer to the image as it was."""
    return bool(record.questions) or _written(record)


def _sided(record: Record) -> bool:
    """Whether the name of a target says on which side of the body it is."""
    return any(SIDED.search(region.target) for region in record.regions)


def _geometry(
    record: Record, image: torch.Tensor, truth: torch.Tensor, rng: random.Random, size: int, strength: float
) -> tuple[torch.Tensor, torch.Tensor]:
    turns, mirrored = _orientation(record, rng, strength)
    if turns:
        image, truth = torch.rot90(image, turns, (1, 2)), torch.rot90(truth, turns, (1, 2))
    if mirrored:
        image, truth = image.flip(2), truth.flip(2)
    if record.modality in SCOPES and rng.random() < 0.2 * strength:
        image, truth = _field_of_view(image, truth, rng)
    if rng.random() < 0.7:
        return _move(record, image, truth, rng, size, strength)
    return shrink(image, size), shrink(truth, size) if len(truth) else truth.new_zeros(0, size, size)


def _orientation(record: Record, rng: random.Random, strength: float) -> tuple[int, bool]:
    """Number of quarter turns, and whether the image is mirrored."""
    turns, mirrored = 0, False
    mirrorable = not _told(record) and not _sided(record)
    if record.modality in TURNABLE and not _written(record):
        turns = rng.randrange(4)
    if record.modality in TURNABLE | MIRRORED and mirrorable:
        mirrored = rng.random() < 0.5
    if record.modality in SLICES and not _told(record) and rng.random() < 0.25 * strength:
        turns, mirrored = rng.choice(
            [(t, m) for m in ((False, True) if mirrorable else (False,)) for t in range(4)][1:]
        )
    return turns, mirrored


# ---------------------------------------------------------------- scale, aspect ratio and place


@dataclass(frozen=True)
class _Affine:
    """Which part of an image a view shows: ``source = rotation @ diag(1 / scale) @ view + shift``, in [-1, 1]."""

    angle: float
    scale: tuple[float, float]
    shift: tuple[float, float]

    def matrix(self) -> torch.Tensor:
        c, s = math.cos(self.angle), math.sin(self.angle)
        (wide, high), (right, down) = self.scale, self.shift
        return torch.tensor([[c / wide, -s / high, right], [s / wide, c / high, down]], dtype=torch.float32)

    def apply(self, x: torch.Tensor, side: int) -> torch.Tensor:
        """(channels, height, width) to (channels, side, side); zero outside of the image."""
        grid = F.affine_grid(self.matrix()[None], [1, len(x), side, side], align_corners=False)
        return F.grid_sample(x[None], grid, mode="bilinear", padding_mode="zeros", align_corners=False)[0]

    def shares(self, masks: torch.Tensor, side: int) -> torch.Tensor:
        """Share of each mask's area that the view shows."""
        seen = self.apply(masks, side).mean((1, 2)) / (self.scale[0] * self.scale[1])
        return seen / masks.mean((1, 2)).clamp(min=1e-9)


def _move(
    record: Record, image: torch.Tensor, truth: torch.Tensor, rng: random.Random, side: int, strength: float
) -> tuple[torch.Tensor, torch.Tensor]:
    # what a view leaves of each target is estimated on a quarter of the side, with the image as a whole as first mask
    coarse = F.avg_pool2d(truth[None], 4, ceil_mode=True)[0] if len(truth) else truth[:, ::4, ::4]
    coarse = torch.cat([torch.ones(1, *coarse.shape[1:]), coarse])
    for _ in range(TRIES):
        view = _draw_affine(record, coarse, rng, strength)
        shares = view.shares(coarse, 48)
        if bool(((shares < 0.004) | (shares >= KEPT_SHARE) | (shares >= 0.5 * shares[0])).all()):
            break
    else:
        view = replace(view, scale=(1.0, 1.0), shift=(0.0, 0.0))
    fill = _fill(image, rng)
    moved = _sample(view, truth, side)
    if min(view.scale) < 0.8 and _lost_thin(truth, moved, view):
        # thin targets such as vessels would disappear from a small view although the image still shows them
        view = replace(view, scale=(1.0, 1.0), shift=(0.0, 0.0))
        moved = _sample(view, truth, side)
    if len(truth):
        _clear_slivers(truth, moved, view, float(view.shares(coarse[:1], 48)))
    if bool(fill.any()):
        return _sample(view, image - fill, side).add_(fill).clamp_(0, 1), moved
    return _sample(view, image, side), moved


def _draw_affine(record: Record, coarse: torch.Tensor, rng: random.Random, strength: float) -> _Affine:
    zoomed = record.modality in ZOOMED and not _told(record)
    spread, towards = (0.3, 0.2) if zoomed else (0.15, 0.0)
    angle, scale = rng.gauss(0, 0.12) * strength, 2 ** (rng.gauss(towards, spread) * strength)
    # a magnified part may be any part of the image
    reach = max(0.0, 1 - 1 / scale) * zoomed
    right, down = (rng.gauss(0, 0.06) * strength + rng.uniform(-reach, reach) for _ in range(2))
    kind = rng.random()
    if kind < 0.2 * strength and not _told(record):
        scale, right, down = _crop(coarse[1:], rng, 2.5 if zoomed else 2.0)
    elif kind > 1 - 0.15 * strength:
        # no target becomes smaller than a few pixels
        least = max([0.3, *(4 / math.sqrt(float(area) * 16 + 1e-6) for area in coarse[1:].sum((1, 2)))])
        scale = max(min(1.0, least), 2 ** rng.uniform(-1.7, -0.1))
        # inset images are upright
        angle = angle if rng.random() < 0.3 else 0.0
        free = 1 / scale - 1
        right, down = rng.uniform(-free, free), rng.uniform(-free, free)
    wide = high = scale
    if rng.random() < 0.3 * strength:
        stretch = math.exp(rng.uniform(math.log(0.75), math.log(1.33)))
        wide, high = (wide * stretch, high) if rng.random() < 0.5 else (wide, high * stretch)
    if rng.random() < 0.1 * strength:
        # letterbox: a wide or high image padded to a square
        angle, narrow = 0.0, rng.uniform(0.55, 0.9)
        wide, high = (wide * narrow, high) if rng.random() < 0.4 else (wide, high * narrow)
    return _Affine(angle, (wide, high), (right, down))


def _crop(masks: torch.Tensor, rng: random.Random, most: float) -> tuple[float, float, float]:
    """Scale and centre of a crop around one of the masks, of which a part stays inside."""
    side = masks.shape[-1]
    present = [mask for mask in masks if bool(mask.max() > 0)]
    if not present:
        scale = rng.uniform(1.1, most)
        free = 1 - 1 / scale
        return scale, rng.uniform(-free, free), rng.uniform(-free, free)
    mask = rng.choice(present) > 0
    rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    extent = max(bottom - top, right - left) / side
    scale = min(max(rng.uniform(0.3, 0.9) / extent, 1.1), most)
    # at most half of a view beyond the target's centre
    jitter = 0.6 / scale
    centre = [(left + right) / side - 1, (top + bottom) / side - 1]
    return scale, centre[0] + rng.uniform(-jitter, jitter), centre[1] + rng.uniform(-jitter, jitter)


def _fill(image: torch.Tensor, rng: random.Random) -> torch.Tensor:
    """(channels, 1, 1): what is shown outside of the image, black in most views."""
    kind = rng.random()
    if kind < 0.75:
        return torch.zeros(len(image), 1, 1)
    if kind < 0.92:
        border = torch.cat([image[:, ::8, 0], image[:, ::8, -1], image[:, 0, ::8], image[:, -1, ::8]], 1)
        return border.mean(1)[:, None, None]
    return torch.full((len(image), 1, 1), 1.0 if kind < 0.95 else rng.uniform(0.05, 0.5))


def _sample(view: _Affine, x: torch.Tensor, side: int) -> torch.Tensor:
    scale = min(view.scale)
    if not len(x):
        return x.new_zeros(0, side, side)
    if 1.5 * side * scale < x.shape[1]:
        # a coarse view takes samples: without this, thin lines fall between them
        small = round(1.2 * side * scale)
        x = F.interpolate(x[None], (small, small), mode="bilinear", antialias=True, align_corners=False)[0]
    return view.apply(x, side).clamp_(-1, 1)


def _lost_thin(before: torch.Tensor, after: torch.Tensor, view: _Affine) -> bool:
    """Whether a mask lost more of its pixels above 0.5 than of its area."""
    area, solid = before.mean((1, 2)), (before > 0.5).float().mean((1, 2))
    shown = after.mean((1, 2)) / area.clamp(min=1e-9)
    return bool(((after > 0.5).float().mean((1, 2)) < 0.6 * solid * shown).any())


def _clear_slivers(before: torch.Tensor, after: torch.Tensor, view: _Affine, visible: float) -> None:
    """Empty the masks in `after` of which the view shows so little that presence is ambiguous.

    A target spread over the image, such as nuclei, is present in any part of it; so the share that is left is compared
    to the part of the image that is visible, too.
    """
    shares = after.mean((1, 2)) / (view.scale[0] * view.scale[1]) / before.mean((1, 2)).clamp(min=1e-9)
    few = (after.sum((1, 2)) < LEAST_PIXELS) & (shares < 0.5)
    after[few | ((shares < LEAST_SHARE) & (shares < 0.5 * visible))] = 0


def _field_of_view(image: torch.Tensor, truth: torch.Tensor, rng: random.Random) -> tuple[torch.Tensor, torch.Tensor]:
    """Black outside of a circle or of a square without corners, unless that hides more than a tenth of a target."""
    side = image.shape[1]
    at = torch.linspace(-1, 1, side)
    right, down = rng.gauss(0, 0.08), rng.gauss(0, 0.08)
    if rng.random() < 0.65:
        reach = torch.sqrt((at[None] - right) ** 2 + (at[:, None] - down) ** 2)
        edge = rng.uniform(0.75, 1.15)
    else:
        reach = (at[None] - right).abs() + (at[:, None] - down).abs()
        edge = rng.uniform(1.25, 1.7)
    # sharp borders and vignettes
    soft = rng.choice([0.01, 0.02, 0.1])
    seen = ((edge - reach) / soft + 0.5).clamp(0, 1)
    hidden = truth * (seen > 0.5)
    if bool((hidden.sum((1, 2)) < 0.9 * truth.sum((1, 2))).any()):
        return image, truth
    return image * seen, hidden
