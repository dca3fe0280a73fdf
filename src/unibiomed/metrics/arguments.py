"""What all metrics ask of their arguments: nothing that is not a number, nothing of unequal length or shape."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from unibiomed.errors import InputError

ROUNDING = 1e-6


def check_lengths(**columns: Sequence[Any] | np.ndarray) -> int:
    """Return the one length that all the named columns have.

    Raises
    ------
    InputError
        If they differ; the message gives names and lengths, never values.
    """
    sizes = {name: len(column) for name, column in columns.items()}
    if len(set(sizes.values())) > 1:
        raise InputError(" for ".join(f"{size} {name}" for name, size in sizes.items()) + "; one each is needed")
    return next(iter(sizes.values()))


def as_numbers(values: npt.ArrayLike, name: str, low: float = -np.inf, high: float = np.inf) -> np.ndarray:
    """One-dimensional float64 array of `values`, all of them in [`low`, `high`] but for rounding.

    Raises
    ------
    InputError
        If a value is NaN, infinite, no number, or outside of the range, or if they are not in one row.
    """
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"the {name} are not a row of numbers") from error
    if array.ndim != 1:
        raise InputError(f"the {name} have {array.ndim} dimensions; give one row of numbers")
    if not np.isfinite(array).all():
        count = int((~np.isfinite(array)).sum())
        raise InputError(
            f"{count} of the {array.size} {name} are NaN or infinite; say how to count them before scoring"
        )
    # a share computed in 32 bits may come out as 1.0000001
    if array.size and (array.min() < low - ROUNDING or array.max() > high + ROUNDING):
        raise InputError(
            f"the {name} reach from {array.min():g} to {array.max():g}; they must lie in [{low:g}, {high:g}]"
        )
    return array


def as_flags(values: npt.ArrayLike, name: str) -> np.ndarray:
    """One-dimensional bool array of values that are all 0 or 1.

    Raises
    ------
    InputError
        If a value is anything else: NaN would otherwise pass for true.
    """
    array = as_numbers(values, name)
    if not np.isin(array, (0.0, 1.0)).all():
        raise InputError(f"the {name} must be true or false")
    return array.astype(bool)


def as_mask(mask: npt.ArrayLike, name: str) -> np.ndarray:
    """Bool array of one mask: anything but zero is inside.

    Raises
    ------
    InputError
        If it holds NaN, which is neither inside nor outside.
    """
    array = np.asarray(mask)
    if array.dtype == bool:
        return array
    if array.dtype.kind not in "iuf":
        raise InputError(f"the {name} is no mask: its values are not numbers")
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise InputError(f"the {name} holds NaN; a mask is zero outside and anything else inside")
    return array != 0


def mask_pair(prediction: npt.ArrayLike, truth: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Two masks as bool arrays of one shape.

    Raises
    ------
    InputError
        If the shapes differ (they are never broadcast), or one holds NaN.
    """
    p, g = as_mask(prediction, "prediction"), as_mask(truth, "truth")
    if p.shape != g.shape:
        raise InputError(f"the prediction has shape {p.shape}, the truth {g.shape}; both must be of one shape")
    return p, g


def load_library(module: str, package: str, purpose: str) -> Any:
    """Import a library that only some metrics need.

    Parameters
    ----------
    module : str
        What is imported, such as ``monai.metrics``.
    package : str
        What is to be installed, as pip is told.
    purpose : str
        What needs it, in words that begin the message.

    Raises
    ------
    InputError
        If it is not installed.
    """
    try:
        return import_module(module)
    except ImportError:
        raise InputError(f"{purpose} needs {module.partition('.')[0]}: pip install '{package}'") from None
