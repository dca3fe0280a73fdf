"""A DICOM SEG as masks: the same voxels as were written, also where it leaves out slices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread

pytest.importorskip("highdicom", reason="highdicom is not installed (extra dicom)")

from unibiomed.errors import InputError
from unibiomed.export.dicom import Segment, open_source, write_segmentation
from unibiomed.images import Volume, read_image, read_segmentation, read_volume, read_volume_header


@pytest.fixture
def series(make_series: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    from pydicom.uid import generate_uid

    same = {
        "StudyInstanceUID": generate_uid(),
        "FrameOfReferenceUID": generate_uid(),
        "PositionReferenceIndicator": "",
        "SliceThickness": 2.5,
    }
    values = np.random.default_rng(0).integers(0, 900, (6, 5, 7)).astype(np.int16)
    # from head to feet, turned by 180 degrees
    turned = {"ImageOrientationPatient": [-1, 0, 0, 0, -1, 0]}
    folder: Path = make_series(values, lambda k: {**same, **turned, "ImagePositionPatient": [3, 4, -2.5 * k]})
    return folder


def written(series: Path, path: Path, masks: list[np.ndarray], **options: Any) -> Volume:
    volume = read_volume(series)
    segments = [Segment(label, mask) for label, mask in zip(("liver", "new thing"), masks, strict=False)]
    write_segmentation(path, open_source(series), segments, grid=volume.grid, **options)
    return volume


def random_masks(*, overlap: bool) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    numbers = rng.integers(0, 3, (6, 5, 7))
    masks = [numbers == 1, (numbers == 2) | (overlap & (numbers > 0))]
    for mask in masks:
        # slices that a SEG leaves out, at both ends and in between
        mask[[0, 3, 5]] = False
    return masks


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP", "FRACTIONAL"])
@pytest.mark.parametrize("count", [1, 2])
def test_on_the_grid_of_the_image(kind: str, count: int, series: Path, tmp_path: Path) -> None:
    masks = random_masks(overlap=kind != "LABELMAP")[:count]
    volume = written(series, tmp_path / "s.dcm", masks, kind=kind)
    read = read_segmentation(tmp_path / "s.dcm")
    assert [(one.number, one.label) for one in read.segments] == [(1, "liver"), (2, "new thing")][:count]
    assert read.segments[0].code == ("SCT", "10200004")
    found = read.on_grid(volume.grid)
    assert list(found) == list(range(1, count + 1))
    for number, mask in enumerate(masks, start=1):
        assert np.array_equal(found[number], mask)
    assert read.planes is not None
    assert [round(plane.position[2], 1) for plane in read.planes] == [-10.0, -7.5, -2.5]
    assert all(np.array_equal(mask.sum(axis=(1, 2)) > 0, [True] * 3) for mask in read.masks().values())


def test_as_a_label_volume(series: Path, tmp_path: Path) -> None:
    masks = random_masks(overlap=False)
    volume = written(series, tmp_path / "s.dcm", masks)
    labels = read_volume(tmp_path / "s.dcm")
    # without the first and the last slice, which are empty; the empty one between them is there
    wanted = (masks[0] + 2 * masks[1])[1:5]
    assert np.array_equal(labels.values, wanted)
    assert np.allclose(labels.affine[:3, 3], (volume.affine @ [1, 0, 0, 1])[:3])
    assert read_volume_header(tmp_path / "s.dcm")[0].matches(labels.grid)


def test_a_full_one_matches_its_image(series: Path, tmp_path: Path) -> None:
    mask = np.ones((6, 5, 7), bool)
    volume = written(series, tmp_path / "s.dcm", [mask])
    assert read_volume_header(tmp_path / "s.dcm")[0].matches(volume.grid)


def test_overlapping_segments_are_no_label_volume(series: Path, tmp_path: Path) -> None:
    written(series, tmp_path / "s.dcm", random_masks(overlap=True))
    with pytest.raises(InputError, match="segments overlap"):
        read_volume(tmp_path / "s.dcm")


def test_another_volume_is_refused(series: Path, tmp_path: Path, make_series: Any) -> None:
    written(series, tmp_path / "s.dcm", random_masks(overlap=False))
    values = np.zeros((6, 5, 7), np.int16)
    other = make_series(values, lambda k: {"ImagePositionPatient": [30.0, 0, 2.5 * k]}, name="other")
    with pytest.raises(InputError, match="do not match the pixels"):
        read_segmentation(tmp_path / "s.dcm").on_grid(read_volume(other).grid)


def test_without_a_place(make_dicom: Any, tmp_path: Path) -> None:
    from pydicom.uid import SecondaryCaptureImageStorage, generate_uid

    path = make_dicom(
        np.zeros((5, 7), np.uint8),
        SOPClassUID=SecondaryCaptureImageStorage,
        Modality="OT",
        StudyInstanceUID=generate_uid(),
        SeriesInstanceUID=generate_uid(),
    )
    mask = np.zeros((5, 7), bool)
    mask[1:3, 2:6] = True
    write_segmentation(tmp_path / "s.dcm", open_source(path), [Segment("polyp", mask), Segment("liver", ~mask)])
    read = read_segmentation(tmp_path / "s.dcm")
    assert read.planes is None
    assert np.array_equal(read.masks()[1], mask[None])
    assert np.array_equal(read.masks()[2], ~mask[None])
    with pytest.raises(InputError, match="does not say where its frames lie"):
        read_volume(tmp_path / "s.dcm")


def test_what_is_no_segmentation(make_dicom: Any, series: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no DICOM segmentation"):
        read_segmentation(make_dicom(np.zeros((5, 7), np.int16)))
    written(series, tmp_path / "s.dcm", random_masks(overlap=False))
    with pytest.raises(InputError, match="not an image"):
        read_image(tmp_path / "s.dcm")
    data = (tmp_path / "s.dcm").read_bytes()
    (tmp_path / "cut.dcm").write_bytes(data[:-20])
    with pytest.raises(InputError, match="truncated or damaged"):
        read_segmentation(tmp_path / "cut.dcm")
    dataset = dcmread(tmp_path / "s.dcm")
    del dataset.PerFrameFunctionalGroupsSequence
    dataset.save_as(tmp_path / "bare.dcm")
    with pytest.raises(InputError, match="does not describe each of its"):
        read_segmentation(tmp_path / "bare.dcm")
