"""The ten imaging modalities, and their codes in DICOM."""

from __future__ import annotations

import numpy as np

from ..errors import InputError

MODALITIES = (
    "CT",
    "MRI",
    "X-ray",
    "ultrasound",
    "endoscopy",
    "dermoscopy",
    "fundus",
    "OCT",
    "pathology",
    "PET",
)
"""Names of the modalities, as used in prompts; microscopy and blood smears belong to pathology."""

_FROM_DICOM = {
    "CT": "CT",
    "MR": "MRI",
    "CR": "X-ray",
    "DX": "X-ray",
    "RG": "X-ray",
    "MG": "X-ray",
    "XA": "X-ray",
    "RF": "X-ray",
    "IO": "X-ray",
    "PX": "X-ray",
    "US": "ultrasound",
    "IVUS": "ultrasound",
    "ES": "endoscopy",
    "DMS": "dermoscopy",
    "OP": "fundus",
    "OPT": "OCT",
    "OCT": "OCT",
    "IVOCT": "OCT",
    "SM": "pathology",
    "GM": "pathology",
    "PT": "PET",
}


def modality_from_dicom(code: object) -> str | None:
    """Convert a DICOM Modality (0008,0060) code.

    Parameters
    ----------
    code
        Value of the element; unknown codes are accepted.

    Returns
    -------
    str or None
        One of `MODALITIES`; None for unknown or ambiguous codes, for example ``XC`` (external-camera photography).
    """
    return _FROM_DICOM.get(str(code).strip().upper())


def check_modality(name: str) -> str:
    """Return the entry of `MODALITIES` for ``name``, which may differ in case.

    Raises
    ------
    InputError
        If the name is not one of `MODALITIES`.
    """
    if isinstance(name, str):
        for known in MODALITIES:
            if name.strip().lower() == known.lower():
                return known
    raise InputError(f"unknown modality: choose one of {', '.join(MODALITIES)}")


def looks_like_hounsfield(values: np.ndarray) -> bool:
    """Whether the values of a grey image are probably Hounsfield units.

    The criteria are those of a CT slice of the body: a fraction of air (-1100 to -900) or lower padding values, a
    fraction of soft tissue (-150 to 250), and no values outside the range of CT scanners. MR phase maps, which also
    have negative values, are distributed evenly and reach below -4000.

    Parameters
    ----------
    values
        Real numbers of any shape; NaN is ignored.

    Returns
    -------
    bool
    """
    if values.dtype.kind == "f" and (empty := np.isnan(values)).any():
        values = values[~empty]
    if not values.size:
        return False
    low, high = float(values.min()), float(values.max())
    if not (-3100 <= low <= -900 and 100 <= high <= 33000):
        return False
    air = float(np.mean(values <= -900))
    soft = float(np.mean((values >= -150) & (values <= 250)))
    # A uniform distribution over -1024..3071 has about 3 % in the air range and 10 % in the soft-tissue range.
    return air >= 0.05 and soft >= 0.02 and air + soft >= 0.3
