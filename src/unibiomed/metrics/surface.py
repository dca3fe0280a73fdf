"""Surface distances of two masks in millimetres, computed by MONAI.

Empty masks are treated as in `segmentation`: two empty masks get the best value, one empty mask gets the worst.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from unibiomed.errors import InputError

from .arguments import load_library, mask_pair


def surface_dice(
    prediction: np.ndarray, truth: np.ndarray, *, tolerance: float, spacing: float | Sequence[float] = 1.0
) -> float:
    """Compute the normalised surface Dice, the fraction of both surfaces within a tolerance of the other, in [0, 1].

    The surface is that of Nikolov et al. (2018), made by marching squares or cubes, with elements weighted by their
    length in mm or area in mm². The border of the image is part of the surface of a mask that reaches it.

    Parameters
    ----------
    prediction, truth : np.ndarray
        (height, width) or (depth, height, width), of the same shape; non-zero values are inside.
    tolerance : float
        Tolerance in mm, 0 or more.
    spacing : float or sequence of float
        Pixel spacing in mm, for all axes or for each axis in the order of the array.

    Returns
    -------
    float
        1 if both masks are empty, 0 if one is empty.

    Raises
    ------
    InputError
        The shapes differ, a mask contains NaN, tolerance or spacing are invalid, or MONAI is not installed.
    """
    p, g, steps = _prepare(prediction, truth, spacing)
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise InputError(f"tolerance {tolerance} is invalid: give millimetres, 0 or more")
    if not (p.any() and g.any()):
        return float(p.any() == g.any())
    # elements are weighted by their size, which depends on the slice thickness
    options = {"class_thresholds": [float(tolerance)], "use_subvoxels": True}
    return _measure("compute_surface_dice", p, g, steps, **options)


def hd95(prediction: np.ndarray, truth: np.ndarray, *, spacing: float | Sequence[float] = 1.0) -> float:
    """Compute the 95 % Hausdorff distance in mm: the larger 95th percentile of the distances between both edges.

    The edge consists of the pixels of a mask with a face neighbour outside of it; pixels beyond the border of the image
    are outside. Percentiles are interpolated, with equal weights of all pixels.

    Parameters
    ----------
    prediction, truth : np.ndarray
        (height, width) or (depth, height, width), of the same shape; non-zero values are inside.
    spacing : float or sequence of float
        Pixel spacing in mm, for all axes or for each axis in the order of the array.

    Returns
    -------
    float
        0 if both masks are empty. If one is empty, the diagonal of the image in mm, which is an upper bound of all
        distances: NaN would exclude the worst images from means.

    Raises
    ------
    InputError
        The shapes differ, a mask contains NaN, the spacing is invalid, or MONAI is not installed.
    """
    p, g, steps = _prepare(prediction, truth, spacing)
    if not (p.any() and g.any()):
        return 0.0 if p.any() == g.any() else math.hypot(*(n * step for n, step in zip(p.shape, steps, strict=True)))
    return _measure("compute_hausdorff_distance", p, g, steps, percentile=95)


def _prepare(
    prediction: np.ndarray, truth: np.ndarray, spacing: float | Sequence[float]
) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    p, g = mask_pair(prediction, truth)
    if p.ndim not in (2, 3):
        raise InputError(f"the masks have {p.ndim} dimensions: give masks with 2 or 3")
    given = np.asarray(spacing, dtype=float)
    steps = tuple(float(step) for step in (np.full(p.ndim, given) if given.ndim == 0 else given.ravel()))
    if len(steps) != p.ndim or not all(math.isfinite(step) and step > 0 for step in steps):
        raise InputError(f"spacing {spacing} is invalid: give one number or {p.ndim} numbers above 0 in mm")
    return p, g, steps


def _measure(metric: str, p: np.ndarray, g: np.ndarray, steps: tuple[float, ...], **options: Any) -> float:
    """Compute a metric of MONAI for two masks that are not empty."""
    purpose, package = "surface distance", "unibiomed[evaluate]"
    monai = load_library("monai.metrics", package, purpose)
    torch = load_library("torch", package, purpose)
    # MONAI takes (batch, class, ...) tensors; include_background keeps the only class
    a, b = (torch.from_numpy(np.ascontiguousarray(mask)[None, None]) for mask in (p, g))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI uses deprecated functions of its own
        return float(getattr(monai, metric)(a, b, include_background=True, spacing=steps, **options).item())
