"""Image perturbations at five strengths, for measuring the robustness of a model.

Geometric perturbations (flip, crop, rotation) transform the ground-truth mask together with the pixels. The others
change pixel values only.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

__all__ = ["PERTURBATIONS", "STRENGTHS", "Perturbation", "perturb_image", "perturb_mask"]

STRENGTHS = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Perturbation:
    """One kind of perturbation.

    Parameters
    ----------
    pixels : callable
        Maps ``(pixels, level, rng)`` to the perturbed pixels, (height, width, 3) uint8 of the same size.
    levels : tuple of float
        Value of ``level`` at each of the five strengths.
    mask : callable, optional
        Maps ``(mask, level)`` to the transformed mask. None if the perturbation is not geometric.
    """

    pixels: Callable[[np.ndarray, float, np.random.Generator], np.ndarray]
    levels: tuple[float, float, float, float, float]
    mask: Callable[[np.ndarray, float], np.ndarray] | None = None


def perturb_image(pixels: np.ndarray, name: str, strength: int, seed: int) -> np.ndarray:
    """Apply a perturbation to an image.

    Parameters
    ----------
    pixels : numpy.ndarray
        (height, width, 3) uint8.
    name : str
        One of `PERTURBATIONS`.
    strength : int
        1 to 5.
    seed : int
        Seed of the noise.

    Returns
    -------
    numpy.ndarray
        (height, width, 3) uint8.
    """
    kind = PERTURBATIONS[name]
    return kind.pixels(pixels, kind.levels[strength - 1], np.random.default_rng(seed))


def perturb_mask(mask: np.ndarray, name: str, strength: int) -> np.ndarray:
    """Apply a perturbation to a ground-truth mask, (height, width) bool."""
    kind = PERTURBATIONS[name]
    return mask if kind.mask is None else kind.mask(mask, kind.levels[strength - 1])


def _flip(pixels: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    return np.ascontiguousarray(pixels[:, ::-1])


def _contrast(pixels: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    mean = pixels.mean()
    return _to_uint8((pixels - mean) * level + mean)


def _noise(pixels: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    return _to_uint8(pixels + rng.normal(0, level, pixels.shape[:2])[..., None])


def _jpeg(pixels: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=round(level))
    return np.asarray(Image.open(buffer).convert("RGB"))


def _crop(pixels: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    height, width = pixels.shape[:2]
    cropped = Image.fromarray(pixels).crop(_central_box(height, width, level))
    return np.asarray(cropped.resize((width, height), Image.Resampling.BILINEAR))


def _crop_mask(mask: np.ndarray, level: float) -> np.ndarray:
    height, width = mask.shape
    cropped = Image.fromarray(mask.astype(np.uint8)).crop(_central_box(height, width, level))
    return np.asarray(cropped.resize((width, height), Image.Resampling.NEAREST)) > 0


def _central_box(height: int, width: int, fraction: float) -> tuple[int, int, int, int]:
    """Return the central box that removes `fraction` of each side of the image."""
    dy, dx = round(height * fraction / 2), round(width * fraction / 2)
    return dx, dy, max(width - dx, dx + 1), max(height - dy, dy + 1)


def _rotate(pixels: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).rotate(level, Image.Resampling.BILINEAR))


def _rotate_mask(mask: np.ndarray, level: float) -> np.ndarray:
    return np.asarray(Image.fromarray(mask.astype(np.uint8)).rotate(level, Image.Resampling.NEAREST)) > 0


def _blur(pixels: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    return _to_uint8(ndimage.gaussian_filter(pixels.astype(np.float32), (level, level, 0)))


def _to_uint8(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.clip(np.round(values), 0, 255), dtype=np.uint8)


PERTURBATIONS: Mapping[str, Perturbation] = {
    # a flip has no strength, so it is evaluated at strength 1 only
    "flip": Perturbation(_flip, (1, 1, 1, 1, 1), lambda mask, level: np.ascontiguousarray(mask[:, ::-1])),
    "contrast": Perturbation(_contrast, (0.8, 0.6, 0.45, 0.3, 0.2)),
    "noise": Perturbation(_noise, (5, 10, 20, 35, 50)),
    "jpeg": Perturbation(_jpeg, (75, 50, 30, 15, 7)),
    "blur": Perturbation(_blur, (0.5, 1, 2, 3, 5)),
    "crop": Perturbation(_crop, (0.05, 0.1, 0.2, 0.3, 0.4), _crop_mask),
    "rotation": Perturbation(_rotate, (5, 10, 20, 30, 45), _rotate_mask),
}
