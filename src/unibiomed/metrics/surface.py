"""How far the surfaces of two masks are apart, in millimetres; the distances are MONAI's.

The rule for empty masks is that of `segmentation`: both empty is the best value, one empty is the worst.
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
    """Normalised surface Dice: the share of both surfaces that lies within a tolerance of the other one, in [0, 1].

    The surface is that of Nikolov et al. (2018): marching squares or cubes, so that each piece weighs as many mm or
    mm² as it has. The border of the image is a surface where a mask reaches it.

    Parameters
    ----------
    prediction, truth : np.ndarray
        (height, width) or (depth, height, width), of one shape; anything but zero is inside.
    tolerance : float
        Millimetres; 0 or more.
    spacing : float or sequence of float
        Millimetres from one pixel to the next, for each axis of the arrays in their order.

    Returns
    -------
    float
        1 where both masks are empty, 0 where one is.

    Raises
    ------
    InputError
        If the shapes differ, a mask holds NaN, the tolerance or spacing cannot be used, or MONAI is not installed.
    """
    p, g, steps = _prepare(prediction, truth, spacing)
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise InputError(f"the tolerance is {tolerance}; give millimetres, 0 or more")
    if not (p.any() and g.any()):
        return float(p.any() == g.any())
    # each piece of surface weighs its true size, so that thick slices do not count as thin ones
    options = {"class_thresholds": [float(tolerance)], "use_subvoxels": True}
    return _measure("compute_surface_dice", p, g, steps, **options)


def hd95(prediction: np.ndarray, truth: np.ndarray, *, spacing: float | Sequence[float] = 1.0) -> float:
    """95 % Hausdorff distance in mm: the larger of the two 95th percentiles of the distances from edge to edge.

    An edge is the pixels of a mask that have a neighbour outside of it, across a side; what lies beyond the border of
    the image is outside. Percentiles are interpolated, each pixel weighs the same.

    Parameters
    ----------
    prediction, truth : np.ndarray
        (height, width) or (depth, height, width), of one shape; anything but zero is inside.
    spacing : float or sequence of float
        Millimetres from one pixel to the next, for each axis of the arrays in their order.

    Returns
    -------
    float
        0 where both masks are empty. Where one is, the diagonal of the image in mm: there is no distance to measure,
        and a NaN would drop exactly the images that went worst from every mean. No measured distance is longer.

    Raises
    ------
    InputError
        If the shapes differ, a mask holds NaN, the spacing cannot be used, or MONAI is not installed.
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
        raise InputError(f"the masks have {p.ndim} dimensions; surfaces are measured in 2 or 3")
    given = np.asarray(spacing, dtype=float)
    steps = tuple(float(step) for step in (np.full(p.ndim, given) if given.ndim == 0 else given.ravel()))
    if len(steps) != p.ndim or not all(math.isfinite(step) and step > 0 for step in steps):
        raise InputError(f"the spacing is {spacing}; give millimetres above 0, one number or {p.ndim}")
    return p, g, steps


def _measure(metric: str, p: np.ndarray, g: np.ndarray, steps: tuple[float, ...], **options: Any) -> float:
    """One of MONAI's metrics of two masks that are not empty."""
    purpose, package = "the distance of surfaces", "unibiomed[evaluate]"
    monai = load_library("monai.metrics", package, purpose)
    torch = load_library("torch", package, purpose)
    # it reads (batch, class, ...) tensors, and would drop the only class as background
    a, b = (torch.from_numpy(np.ascontiguousarray(mask)[None, None]) for mask in (p, g))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI uses what it deprecates
        return float(getattr(monai, metric)(a, b, include_background=True, spacing=steps, **options).item())
