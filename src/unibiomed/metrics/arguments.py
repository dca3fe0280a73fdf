"""Validation of the arguments of metrics."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from unibiomed.errors import InputError

ROUNDING = 1e-6


def check_lengths(**columns: Sequence[Any] | np.ndarray) -> int:
    """Return the common length of columns.

    Raises
    ------
    InputError
        The lengths differ. The message contains names and lengths, but no values.
    """
    sizes = {name: len(column) for name, column in columns.items()}
    if len(set(sizes.values())) > 1:
        lengths = ", ".join(f"{size} {name}" for name, size in sizes.items())
        raise InputError(f"the lengths differ ({lengths}): give as many values of each")
    return next(iter(sizes.values()))


def as_numbers(values: npt.ArrayLike, name: str, low: float = -np.inf, high: float = np.inf) -> np.ndarray:
    """Convert to a one-dimensional float64 array with values in [`low`, `high`], up to rounding errors.

    Raises
    ------
    InputError
        The values are not one-dimensional, not numbers, NaN, infinite or outside of the range.
    """
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"the {name} are not a sequence of numbers") from error
    if array.ndim != 1:
        raise InputError(f"the {name} have {array.ndim} dimensions: give a sequence of numbers")
    if not np.isfinite(array).all():
        count = int((~np.isfinite(array)).sum())
        raise InputError(f"{count} of the {array.size} {name} are NaN or infinite: replace or remove them first")
    # a proportion computed in float32 may be 1.0000001
    if array.size and (array.min() < low - ROUNDING or array.max() > high + ROUNDING):
        raise InputError(
            f"the {name} range from {array.min():g} to {array.max():g}: give values in [{low:g}, {high:g}]"
        )
    return array


def as_mask(mask: npt.ArrayLike, name: str) -> np.ndarray:
    """Convert a mask to a bool array; non-zero values are inside.

    Raises
    ------
    InputError
        The mask is not numeric or contains NaN.
    """
    array = np.asarray(mask)
    if array.dtype == bool:
        return array
    if array.dtype.kind not in "iuf":
        raise InputError(f"the {name} is not a mask: its values are not numbers")
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise InputError(f"the {name} contains NaN: use 0 for outside and other numbers for inside")
    return array != 0


def mask_pair(prediction: npt.ArrayLike, truth: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Convert two masks to bool arrays of the same shape.

    Raises
    ------
    InputError
        The shapes differ (masks are not broadcast), or a mask contains NaN.
    """
    p, g = as_mask(prediction, "prediction"), as_mask(truth, "truth")
    if p.shape != g.shape:
        raise InputError(f"the prediction has shape {p.shape}, the truth {g.shape}: give masks of the same shape")
    return p, g


def load_library(module: str, package: str, purpose: str) -> Any:
    """Import an optional library.

    Parameters
    ----------
    module : str
        Module to import, such as ``monai.metrics``.
    package : str
        Package to install with pip.
    purpose : str
        What needs the library; begins the error message.

    Raises
    ------
    InputError
        The library is not installed.
    """
    try:
        return import_module(module)
    except ImportError:
        library = module.partition(".")[0]
        raise InputError(f"{purpose} needs {library}: run pip install '{package}'") from None
