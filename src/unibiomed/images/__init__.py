"""Reading of medical images: supported files and arrays become a `MedicalImage` with the RGB pixels for the model.

Volumes become a `Volume`, whose slices are `MedicalImage` objects.
"""

from __future__ import annotations

from .dicom_segmentation import DicomSegmentation, read_segmentation
from .geometry import Box, check_box, draw_box, mask_box, parse_box
from .grid import Grid
from .image import MedicalImage, from_array
from .limits import MAX_BYTES, MAX_PIXELS
from .modality import MODALITIES, check_modality, modality_from_dicom
from .nifti import mask_to_slice
from .read import read_image
from .study import is_volume
from .volume import Volume, count_channels, read_volume, read_volume_header
from .windowing import WINDOWS, apply_window, parse_window

__all__ = [
    "MAX_BYTES",
    "MAX_PIXELS",
    "MODALITIES",
    "WINDOWS",
    "Box",
    "DicomSegmentation",
    "Grid",
    "MedicalImage",
    "Volume",
    "apply_window",
    "check_box",
    "check_modality",
    "count_channels",
    "draw_box",
    "from_array",
    "is_volume",
    "mask_box",
    "mask_to_slice",
    "modality_from_dicom",
    "parse_box",
    "parse_window",
    "read_image",
    "read_segmentation",
    "read_volume",
    "read_volume_header",
]
