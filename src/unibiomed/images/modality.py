"""The ten imaging modalities the model knows, and how files name them."""

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
"""Names of the modalities, as they appear in prompts; microscopy and blood smears count as pathology."""

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
    """Translate a DICOM Modality (0008,0060) code.

    Parameters
    ----------
    code
        The element's value; anything that is not a known code is accepted.

    Returns
    -------
    str or None
        One of `MODALITIES`; None for codes that do not settle it. ``XC`` (a photograph) is such a code: it may be
        dermoscopy, a wound or an operating field.
    """
    return _FROM_DICOM.get(str(code).strip().upper())


def check_modality(name: str) -> str:
    """Return the spelling of `MODALITIES` for ``name``, whatever its case.

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
    """Tell whether a grey image without a header holds CT numbers.

    Asks for what every CT slice of a body has and other images lack: a share of air (-1100 to -900) or of padding
    below it, a share of soft tissue (-150 to 250), and nothing beyond the range of scanners. MR phase maps, which also
    hold negative numbers, spread evenly and reach below -4000.

    Parameters
    ----------
    values
        Real numbers of any shape; NaN is left out.

    Returns
    -------
    bool
        True when the values are those of a CT slice.
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
    # An even spread over -1024..3071 puts about 3 % into the air band and 10 % into the soft-tissue band.
    return air >= 0.05 and soft >= 0.02 and air + soft >= 0.3
