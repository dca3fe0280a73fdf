"""What a SEG or SR refers to has to be there: one series, one patient, valid identifiers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread

from unibiomed.errors import InputError
from unibiomed.export.dicom import is_dicom, open_source
from unibiomed.images import read_volume

Make = Callable[..., Path]


def change(path: Path, **elements: object) -> None:
    dataset = dcmread(path)
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path)


def test_the_order_of_a_volume(make_series: Make) -> None:
    folder = make_series(places=(10, 7.5, 5, 2.5, 0))
    (folder / "notes.txt").write_text("not DICOM")
    source = open_source(folder, files=read_volume(folder).details["files"])
    assert source.frames == 5
    assert source.size == (6, 7)
    assert source.planes is not None
    assert [round(plane.position[2], 1) for plane in source.planes] == [-100, -97.5, -95, -92.5, -90]
    assert {dataset.SOPInstanceUID for dataset in open_source(folder).datasets} == {
        dataset.SOPInstanceUID for dataset in source.datasets
    }
    assert source.reference(0) == (source.datasets[0].SOPClassUID, source.datasets[0].SOPInstanceUID, None)


def test_pixels_are_not_kept(make_series: Make) -> None:
    assert all("PixelData" not in dataset for dataset in open_source(make_series()).datasets)


@pytest.mark.parametrize("keyword", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
@pytest.mark.parametrize("value", ["", "not a UID"])
def test_identifiers_have_to_be_there(keyword: str, value: str, radiograph: Path) -> None:
    change(radiograph, **{keyword: value})
    with pytest.raises(InputError, match=keyword) as caught:
        open_source(radiograph)
    assert "\n" not in str(caught.value)


def test_a_series_without_identifiers(shared_data: Path) -> None:
    with pytest.raises(InputError, match="SOPInstanceUID, StudyInstanceUID, SeriesInstanceUID are empty"):
        open_source(shared_data / "volumes" / "abdomen_ct" / "example_ct_dicom")


def test_two_patients_or_series(make_series: Make) -> None:
    folder = make_series()
    path = sorted(folder.iterdir())[2]
    change(path, PatientID="ANOTHER")
    with pytest.raises(InputError, match="differ in their patient") as caught:
        open_source(folder)
    assert "ANOTHER" not in str(caught.value)
    change(path, PatientID="SECRET-0815", SeriesInstanceUID="1.2.3")
    with pytest.raises(InputError, match="differ in their SeriesInstanceUID"):
        open_source(folder)


def test_one_image_twice(make_series: Make) -> None:
    folder = make_series()
    first = sorted(folder.iterdir())[0]
    (folder / "copy.dcm").write_bytes(first.read_bytes())
    with pytest.raises(InputError, match="the same SOPInstanceUID"):
        open_source(folder)


def test_what_is_no_source(tmp_path: Path, radiograph: Path) -> None:
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    with pytest.raises(InputError, match="not a DICOM image"):
        open_source(tmp_path / "picture.png")
    with pytest.raises(InputError, match="no such file"):
        open_source(tmp_path / "missing.dcm")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no DICOM images"):
        open_source(tmp_path / "empty")
    change(radiograph, Modality="SEG")
    with pytest.raises(InputError, match="a segmentation"):
        open_source(radiograph)
    assert is_dicom(radiograph)
    assert not is_dicom(tmp_path / "picture.png")


def test_a_damaged_file(radiograph: Path) -> None:
    data = radiograph.read_bytes()
    radiograph.write_bytes(data[:200])
    with pytest.raises(InputError) as caught:
        open_source(radiograph)
    assert "SECRET" not in str(caught.value)


def test_a_position_without_frame_of_reference(make_series: Make) -> None:
    source = open_source(make_series(FrameOfReferenceUID=""))
    assert source.planes is None
    assert all("FrameOfReferenceUID" not in dataset for dataset in source.datasets)
