"""Presence along the slices of a volume, and the presence of a volume."""

from __future__ import annotations

import numpy as np

__all__ = ["SMOOTHING_MM", "axis_weights", "logits", "mean_odds", "reflect", "smooth", "volume_presence"]

SMOOTHING_MM = 3.0
"""Standard deviation of the Gaussian along the axis, in mm."""
SMOOTHING_SLICES = 0.6
"""Standard deviation where the distance of slices is not known, in slices."""
LEAST_WEIGHT = 0.02
"""Neighbours with a lower weight, relative to the slice itself, are left out."""
MAX_REACH = 3
"""Neighbours on either side, at most."""
SMALLEST = 1e-4
"""Presence of a slice below which, and 1 minus which above, its logit does not go: calibration is not as fine."""
SCALE, OFFSET = 1.0, 0.0
"""Platt scaling of the mean odds, see ``benchmarks/volumes.py``."""


def axis_weights(distance_mm: float | None, sigma_mm: float = SMOOTHING_MM) -> np.ndarray:
    """Weights of a slice and its neighbours.

    Parameters
    ----------
    distance_mm : float or None
        Between slices; None where it is not known.
    sigma_mm : float
        Standard deviation of the Gaussian; 0 for slices alone.

    Returns
    -------
    numpy.ndarray
        (2 * reach + 1,), positive, of sum 1; the slice itself is in the middle.
    """
    sigma = SMOOTHING_SLICES if distance_mm is None else sigma_mm / distance_mm
    if sigma_mm <= 0 or sigma <= 0:
        return np.ones(1)
    steps = np.arange(-MAX_REACH, MAX_REACH + 1)
    weights = np.exp(-0.5 * (steps / sigma) ** 2)
    weights = weights[weights >= LEAST_WEIGHT]
    return weights / weights.sum()


def reflect(index: int, count: int) -> int:
    """An index beyond the ends of `count` slices, reflected about the first or the last slice."""
    if count == 1:
        return 0
    period = 2 * (count - 1)
    index %= period
    return period - index if index >= count else index


def logits(presence: np.ndarray) -> np.ndarray:
    """Logits of probabilities, limited by `SMALLEST`."""
    limited = np.clip(np.asarray(presence, np.float64), SMALLEST, 1 - SMALLEST)
    return np.log(limited / (1 - limited))


def smooth(presence: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Average presence along the axis, as logits.

    At the ends slices are reflected, so that a lesion on the first or last slice has neighbours as elsewhere.

    Parameters
    ----------
    presence : numpy.ndarray
        (slices, targets) probabilities.
    weights : numpy.ndarray
        See `axis_weights`.

    Returns
    -------
    numpy.ndarray
        (slices, targets) probabilities.
    """
    count, reach = len(presence), len(weights) // 2
    values = logits(presence)
    mixed = np.zeros_like(values)
    for step, weight in zip(range(-reach, reach + 1), weights, strict=True):
        mixed += weight * values[[reflect(k + step, count) for k in range(count)]]
    return 1 / (1 + np.exp(-mixed))


def mean_odds(smoothed: np.ndarray) -> np.ndarray:
    """Logarithm of the mean odds over slices: (slices, targets) probabilities to (targets,)."""
    values = logits(smoothed)
    top = values.max(axis=0)
    mean: np.ndarray = top + np.log(np.exp(values - top).mean(axis=0))
    return mean


def volume_presence(smoothed: np.ndarray) -> np.ndarray:
    """Presence of targets anywhere in a volume.

    The odds of the slices are averaged. If a slice without the target has odds of `o` on average, so has a volume of
    any number of slices without it: the expectation of a mean does not grow with the number of its terms, as that of
    the maximum does, and by Markov's inequality a mean of `t` times `o` is found in at most one of `t` such volumes.

    Parameters
    ----------
    smoothed : numpy.ndarray
        (slices, targets) probabilities after :func:`smooth`.

    Returns
    -------
    numpy.ndarray
        (targets,) probabilities.
    """
    return 1 / (1 + np.exp(-(SCALE * mean_odds(smoothed) + OFFSET)))
