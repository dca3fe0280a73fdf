"""Findings as DICOM objects: a Segmentation (SEG) and a Structured Report (SR, TID 1500) beside the source images.

The objects are written with highdicom, which comes with the extra ``dicom``.
"""

from __future__ import annotations

from .content import Algorithm, Contents, LookedFor, Measurement, Segment, contents_of
from .report import WrittenReport, write_report
from .segmentation import WrittenSegmentation, write_segmentation
from .source import DicomSource, is_dicom, open_source
from .toolkit import check_toolkit
from .volume_content import contents_of_volume
from .writing import DicomOptions, WrittenDicom, write_dicom

__all__ = [
    "Algorithm",
    "Contents",
    "DicomOptions",
    "DicomSource",
    "LookedFor",
    "Measurement",
    "Segment",
    "WrittenDicom",
    "WrittenReport",
    "WrittenSegmentation",
    "check_toolkit",
    "contents_of",
    "contents_of_volume",
    "is_dicom",
    "open_source",
    "write_dicom",
    "write_report",
    "write_segmentation",
]
