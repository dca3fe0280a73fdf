"""highdicom, which writes the objects: it comes with the extra ``dicom``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import UID, generate_uid

from unibiomed.errors import InputError
from unibiomed.images.limits import quiet

from .codes import PRIVATE_SCHEME, PRIVATE_SCHEME_NAME
from .content import Algorithm

__all__ = ["AI", "SERIES_NUMBERS", "check_toolkit", "coding_schemes", "device_uid", "serial_number", "writing"]

AI = Code("123110", "DCM", "Artificial Intelligence")
SERIES_NUMBERS = {"SEG": 9001, "SR": 9002}
"""Far from those of scanners; viewers sort the series of a study by number."""


def check_toolkit() -> None:
    """Make sure that highdicom is installed.

    Raises
    ------
    InputError
        It is not.
    """
    if find_spec("highdicom") is None:
        raise InputError("DICOM SEG and SR need the package highdicom: pip install 'unibiomed[dicom]'")


@contextmanager
def writing(name: str, what: str) -> Iterator[None]:
    """Silence the libraries, and give an error of theirs as one line without anything of the header.

    Their warnings and errors may quote names and dates.
    """
    check_toolkit()
    with quiet():
        try:
            yield
        except InputError:
            raise
        except Exception as error:
            if "Frame Of Reference" in str(error):
                reason = (
                    "they do not say where they lie in the patient (FrameOfReferenceUID, ImagePositionPatient, "
                    "ImageOrientationPatient, PixelSpacing), which this kind of image must: export them again"
                )
            else:
                reason = f"a value of the header is missing or not valid ({type(error).__name__}): export them again"
            raise InputError(f"{name}: no DICOM {what} can be made for these images: {reason}") from None


def device_uid(algorithm: Algorithm) -> UID:
    """UID of the observer of a report: the same for the same algorithm and version."""
    return generate_uid(prefix=None, entropy_srcs=["unibiomed", algorithm.name, algorithm.version])


def serial_number(algorithm: Algorithm) -> str:
    """Serial number of the equipment, which software does not have."""
    return str(device_uid(algorithm)).rpartition(".")[2][:16]


def coding_schemes() -> list[Dataset]:
    """What explains the designator of private codes."""
    item = Dataset()
    item.CodingSchemeDesignator = PRIVATE_SCHEME
    item.CodingSchemeName = PRIVATE_SCHEME_NAME
    item.CodingSchemeResponsibleOrganization = "unibiomed"
    return [item]
