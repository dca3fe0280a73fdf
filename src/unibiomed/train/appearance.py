"""Random grey values, colours and image quality, as they differ between scanners, cameras and file formats."""

from __future__ import annotations

import io
import math
import random

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

__all__ = ["GREY", "degrade", "jpeg", "recolour", "shade", "tone"]

# without colours, as a rule
GREY = {"CT", "MRI", "X-ray", "ultrasound", "PET", "OCT"}
# cameras, lamps and stains differ from clinic to clinic
COLOURED = {"pathology", "endoscopy", "fundus"}
# probability of inverted grey values: MONOCHROME1 radiographs, PET with hot spots in black
INVERTED = {"X-ray": 0.04, "PET": 0.1, "OCT": 0.02}


def tone(modality: str, pixels: np.ndarray, rng: random.Random, strength: float) -> torch.Tensor:
    """Pixels as float32 after a random curve: window, gamma, gain, offset, inversion, response of each channel.

    Parameters
    ----------
    modality : str
    pixels : numpy.ndarray
        (height, width, 3) uint8.
    rng : random.Random
    strength : float

    Returns
    -------
    torch.Tensor
        (3, height, width) in [0, 1]; (1, height, width) where the image is grey and of a grey modality.
    """
    single = modality in GREY and bool(
        np.array_equal(pixels[..., 0], pixels[..., 1]) and np.array_equal(pixels[..., 0], pixels[..., 2])
    )
    curve = np.arange(256, dtype=np.float32) / 255
    if modality in GREY and rng.random() < 0.35 * strength:
        curve = _window(curve, pixels[::4, ::4, 0], rng, strength)
    gain, offset = 2 ** (rng.gauss(0, 0.2) * strength), rng.gauss(0, 0.06) * strength
    curve = np.clip(curve * gain + offset, 0, 1)
    if rng.random() < 0.5:
        curve = curve ** (2 ** (rng.gauss(0, 0.3) * strength))
    curve = _visible(curve, pixels[::4, ::4].max(2))
    if rng.random() < INVERTED.get(modality, 0.0) * strength:
        curve = 1 - curve
    curves = [curve] * (1 if single else 3)
    if modality in COLOURED and rng.random() < 0.3 * strength:
        curves = [curve ** (2 ** (rng.gauss(0, 0.2) * strength)) for curve in curves]
    elif modality == "dermoscopy" and rng.random() < 0.35 * strength:
        # the colours of skin lesions matter: a slight cast alone
        curves = [np.clip(curve * 2 ** (rng.gauss(0, 0.1) * strength), 0, 1) for curve in curves]
    table = np.clip(np.concatenate(curves) * 255 + 0.5, 0, 255).astype(np.uint8).tolist()
    # a table of 8-bit values is far faster on 8-bit pixels than arithmetic on float
    picture = Image.fromarray(np.ascontiguousarray(pixels[..., 0]) if single else pixels)
    array = torch.from_numpy(np.array(picture.point(table)))
    return array[None].float().div_(255) if single else array.permute(2, 0, 1).contiguous().float().div_(255)


def _window(curve: np.ndarray, values: np.ndarray, rng: random.Random, strength: float) -> np.ndarray:
    """Linear between a low and a high grey value, constant beyond them."""
    shown = values[values > 2]
    low, high = 0.0, 1.0
    if shown.size > 50:
        least, most = rng.uniform(0, 15) * strength, 100 - rng.uniform(0, 10) * strength
        low, high = (float(v) / 255 for v in np.percentile(shown, [min(least, 40), max(most, 60)]))
    if rng.random() < 0.5:
        # wider than the values: an image of low contrast
        low, high = low - rng.uniform(0, 0.3) * strength, high + rng.uniform(0, 0.4) * strength
    elif rng.random() < 0.5:
        low = 0.0
    middle, width = (low + high) / 2, max(high - low, 0.35)
    return np.clip((curve - (middle - width / 2)) / width, 0, 1)


def _visible(curve: np.ndarray, values: np.ndarray) -> np.ndarray:
    """`curve`, brighter where it would leave the brightest parts of the image almost black."""
    bright = int(np.percentile(values, 98))
    wanted, made = min(0.35, bright / 255), float(curve[bright])
    return (
        curve if made >= wanted else np.clip(curve + (wanted - made) * np.linspace(0, 255 / max(bright, 1), 256), 0, 1)
    )


def recolour(modality: str, image: torch.Tensor, rng: random.Random, strength: float) -> torch.Tensor:
    """Stains of pathology, hue, saturation and white balance of cameras; (3, height, width) in [0, 1]."""
    if modality == "pathology" and rng.random() < 0.6:
        # every laboratory stains its own way
        mix = torch.eye(3) + torch.tensor([[rng.gauss(0, 0.12) * strength for _ in range(3)] for _ in range(3)])
        image = (mix @ (image.flatten(1) - 0.8) + 0.8).clamp_(0, 1).view_as(image)
    if modality in COLOURED and rng.random() < 0.6:
        mixed = _colour_matrix(rng, strength) @ image.flatten(1)
        # a camera shortens the exposure before a large part of a channel is saturated
        peak = float(mixed[:, ::97].quantile(0.9, dim=1).max())
        image = mixed.div_(max(1.0, peak)).clamp_(0, 1).view_as(image)
    return image


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


def shade(modality: str, image: torch.Tensor, rng: random.Random, strength: float) -> torch.Tensor:
    """Uneven brightness: bias field of MRI, depth gain and speckle of ultrasound, light of cameras and lamps.

    Parameters and result as of `recolour`; one channel is allowed.
    """
    height, width = image.shape[1:]
    if modality == "ultrasound":
        if rng.random() < 0.3 * strength:
            points = torch.tensor([[[rng.gauss(0, 0.4) * strength for _ in range(5)]]])
            gain = F.interpolate(points, height, mode="linear", align_corners=True)[0, 0]
            image = (image * torch.exp2(gain)[:, None]).clamp_(0, 1)
        return _speckle(image, rng, strength) if rng.random() < 0.25 * strength else image
    chance = {"MRI": 0.35, "endoscopy": 0.25, "fundus": 0.25, "dermoscopy": 0.2, "pathology": 0.2, "X-ray": 0.1}
    if rng.random() < chance.get(modality, 0.0) * strength:
        spread = (0.35 if modality == "MRI" else 0.25) * strength
        points = torch.tensor([[[[rng.gauss(0, spread) for _ in range(3)] for _ in range(3)]]])
        field = F.interpolate(torch.exp2(points), (height, width), mode="bilinear", align_corners=True)[0]
        image = (image * field).clamp_(0, 1)
    return image


# ---------------------------------------------------------------- quality


def degrade(image: torch.Tensor, rng: random.Random, strength: float) -> torch.Tensor:
    """Blur, sharpening, lower resolution and noise of random strength.

    Parameters
    ----------
    image : torch.Tensor
        (1 or 3, height, width) float32 in [0, 1].
    rng : random.Random
    strength : float

    Returns
    -------
    torch.Tensor
        As `image`.
    """
    kind = rng.random()
    if kind < 0.12 * strength:
        image = _gaussian(image, rng.uniform(0.5, 0.5 + 1.3 * strength))
    elif kind < 0.18 * strength:
        image = _motion(image, rng.randint(3, 9), rng.choice([(0, 1), (1, 0), (1, 1), (1, -1)]))
    elif kind < 0.26 * strength:
        image = (image + rng.uniform(0.3, 1.2) * (image - _gaussian(image, 1.0))).clamp_(0, 1)
    elif kind < 0.36 * strength:
        image = _resample(image, 1 / rng.uniform(1.3, 1.3 + 2 * strength))
    if rng.random() < 0.25 * strength:
        sigma = rng.uniform(0.008, 0.05) * strength
        # photons: noise grows with the square root of brightness
        level = (image + 0.02).sqrt_() if rng.random() < 0.4 else 1.0
        channels = len(image) if rng.random() < 0.5 else 1
        image = image + _randn(rng, channels, *image.shape[1:]) * level * sigma
    return image.clamp(0, 1)


def _randn(rng: random.Random, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(rng.getrandbits(31)))


def _gaussian(image: torch.Tensor, sigma: float) -> torch.Tensor:
    radius = max(1, math.ceil(2 * sigma))
    weights = [math.exp(-0.5 * (i / sigma) ** 2) for i in range(-radius, radius + 1)]
    padded = F.pad(image[None], (radius, radius, radius, radius), mode="replicate")[0]
    height, width = image.shape[1:]
    down, total = torch.zeros_like(padded[:, :height]), sum(weights)
    for i, weight in enumerate(weights):
        down.add_(padded[:, i : i + height], alpha=weight / total)
    out = torch.zeros_like(image)
    for i, weight in enumerate(weights):
        out.add_(down[:, :, i : i + width], alpha=weight / total)
    return out


def _motion(image: torch.Tensor, length: int, step: tuple[int, int]) -> torch.Tensor:
    """Mean of `length` copies, each shifted by one `step` in pixels."""
    height, width = image.shape[1:]
    half = length // 2
    padded = F.pad(image[None], (length, length, length, length), mode="replicate")[0]
    out = torch.zeros_like(image)
    for i in range(-half, length - half):
        top, left = length + i * step[0], length + i * step[1]
        out.add_(padded[:, top : top + height, left : left + width], alpha=1 / length)
    return out


def _resample(image: torch.Tensor, scale: float) -> torch.Tensor:
    """Reduce the resolution and enlarge the image again."""
    height, width = image.shape[1:]
    small = F.interpolate(
        image[None],
        (max(1, round(height * scale)), max(1, round(width * scale))),
        mode="bilinear",
        antialias=True,
        align_corners=False,
    )
    return F.interpolate(small, (height, width), mode="bilinear", align_corners=False)[0]


def _speckle(image: torch.Tensor, rng: random.Random, strength: float) -> torch.Tensor:
    """Multiplicative noise with grains of one to three pixels."""
    height, width = image.shape[1:]
    grain = rng.uniform(1, 3)
    noise = _randn(rng, 1, 1, round(height / grain), round(width / grain))
    noise = F.interpolate(noise, (height, width), mode="bilinear", align_corners=False)[0]
    return (image * (1 + noise * rng.uniform(0.1, 0.35) * strength)).clamp_(0, 1)


def jpeg(image: torch.Tensor, quality: int) -> torch.Tensor:
    """Compress and decompress.

    Parameters
    ----------
    image : torch.Tensor
        (1 or 3, height, width) float32 in [0, 1].
    quality : int
        1 (worst) to 95.

    Returns
    -------
    torch.Tensor
        Of the same shape, a multiple of 1/255 each.
    """
    array = (image * 255).round_().byte()
    picture = Image.fromarray(array[0].numpy() if len(array) == 1 else array.permute(1, 2, 0).contiguous().numpy())
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    buffer.seek(0)
    with Image.open(buffer) as opened:
        decoded = torch.from_numpy(np.array(opened))
    decoded = decoded[None] if decoded.dim() == 2 else decoded.permute(2, 0, 1)
    return decoded.float().div_(255)
