"""Masks written as SEG lie on the same places of the patient, whoever reads them, and the standard is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread

pytest.importorskip("highdicom", reason="highdicom is not installed (extra dicom)")

import highdicom as hd

from unibiomed import __version__
from unibiomed.errors import InputError
from unibiomed.export.dicom import Algorithm, Segment, open_source, write_segmentation
from unibiomed.images import Volume, read_image, read_volume

Make = Callable[..., Path]
Check = Callable[[Path], list[str]]

SERIES: dict[str, dict[str, Any]] = {
    "axial": {},
    "sagittal": {"directions": ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0))},
    "negative cosines": {"directions": ((-1.0, 0.0, 0.0), (0.0, -1.0, 0.0))},
    "oblique": {"directions": ((0.8, 0.6, 0.0), (-0.36, 0.48, 0.8))},
    "tilted gantry": {"lean": (0.0, 0.3, 0.0)},
    "from head to feet": {"places": (10, 7.5, 5, 2.5, 0)},
    "a little uneven": {"places": (0, 2.5, 5.1, 7.5, 10)},
    "isotropic": {"places": (0, 1, 2, 3, 4), "spacing": (1.0, 1.0)},
    "compressed": {"compressed": True},
}


def masks_of(volume: Volume, count: int, *, overlap: bool) -> list[np.ndarray]:
    """Random masks; without overlap, no two have a voxel in common."""
    rng = np.random.default_rng(1)
    if overlap:
        return [rng.random(volume.grid.shape) < 0.3 for _ in range(count)]
    numbers = rng.integers(0, count + 1, volume.grid.shape)
    return [numbers == k + 1 for k in range(count)]


@pytest.mark.parametrize("kind", SERIES)
def test_voxels_keep_their_place(
    kind: str, make_series: Make, segment_points: Any, mask_points: Any, errors_of: Check, tmp_path: Path
) -> None:
    folder = make_series(**SERIES[kind])
    volume = read_volume(folder)
    masks = masks_of(volume, 2, overlap=True)
    out = tmp_path / "seg.dcm"
    segments = [Segment("liver", masks[0]), Segment("spleen", masks[1])]
    written = write_segmentation(out, open_source(folder), segments, grid=volume.grid)
    found = segment_points(out)
    if kind == "a little uneven":
        # the grid of the volume evens out the slices, the SEG keeps them where they are
        assert {number: len(points) for number, points in found.items()} == {1: masks[0].sum(), 2: masks[1].sum()}
    else:
        assert found == {k: mask_points(mask, volume.affine) for k, mask in enumerate(masks, start=1)}
    assert errors_of(out) == []
    assert written.notes == ()


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP", "FRACTIONAL"])
@pytest.mark.parametrize("count", [1, 3])
def test_highdicom_reads_the_same_masks(kind: str, count: int, make_series: Make, tmp_path: Path) -> None:
    folder = make_series()
    volume = read_volume(folder)
    source = open_source(folder, files=volume.details["files"])
    masks = masks_of(volume, count, overlap=False)
    segments = [Segment("liver", mask, probability=0.5) for mask in masks]
    out = tmp_path / "seg.dcm"
    write_segmentation(out, source, segments, grid=volume.grid, kind=kind)  # type: ignore[arg-type]
    read = hd.seg.segread(out)
    pixels = read.get_pixels_by_source_instance(
        [dataset.SOPInstanceUID for dataset in source.datasets], ignore_spatial_locations=True, rescale_fractional=True
    )
    # axial, from the feet up, as the files: the order of the volume
    for k, mask in enumerate(masks):
        assert np.allclose(pixels[..., k], mask * (0.5 if kind == "FRACTIONAL" else 1), atol=1 / 255)
    assert len(read.segment_numbers) == count
    assert read.SpecificCharacterSet == "ISO_IR 192"
    assert str(read.PatientName) == "Müller^Jürgen"
    assert read.StudyInstanceUID == source.datasets[0].StudyInstanceUID
    assert read.FrameOfReferenceUID == source.datasets[0].FrameOfReferenceUID


def test_what_a_segment_says(make_series: Make, tmp_path: Path) -> None:
    folder = make_series()
    volume = read_volume(folder)
    mask = masks_of(volume, 1, overlap=False)[0]
    made = [
        Segment("kidney tumor", mask, side="left", tracking_id="kidney tumor 1", tracking_uid="1.2.3"),
        Segment("left kidney", mask),
        Segment("something new", mask),
    ]
    algorithm = Algorithm("unibiomed nano", "0.1.0 8d3f")
    written = write_segmentation(tmp_path / "s.dcm", open_source(folder), made, grid=volume.grid, algorithm=algorithm)
    tumor, kidney, new = dcmread(tmp_path / "s.dcm").SegmentSequence
    assert (tumor.SegmentLabel, tumor.TrackingID, tumor.TrackingUID) == ("kidney tumor 1", "kidney tumor 1", "1.2.3")
    assert tumor.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "49755003"
    assert tumor.SegmentedPropertyTypeCodeSequence[0].CodeValue == "126880001"
    region = tumor.AnatomicRegionSequence[0]
    assert (region.CodeValue, region.AnatomicRegionModifierSequence[0].CodeMeaning) == ("64033007", "Left")
    assert tumor.SegmentAlgorithmType == "AUTOMATIC"
    identified = tumor.SegmentationAlgorithmIdentificationSequence[0]
    assert (identified.AlgorithmName, identified.AlgorithmVersion) == ("unibiomed nano", "0.1.0 8d3f")
    kind = kidney.SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodeValue, kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning) == ("64033007", "Left")
    assert new.SegmentedPropertyTypeCodeSequence[0].CodingSchemeDesignator == "99UNIBIOMED"
    assert len(written.notes) == 1
    assert "something new" in written.notes[0]
    dataset = dcmread(tmp_path / "s.dcm")
    assert dataset.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == "99UNIBIOMED"
    assert Algorithm().version == __version__


def test_a_labelmap_refuses_overlap(make_series: Make, tmp_path: Path) -> None:
    folder = make_series()
    volume = read_volume(folder)
    segments = [Segment("liver", mask) for mask in masks_of(volume, 2, overlap=True)]
    with pytest.raises(InputError, match="overlap, which a LABELMAP cannot hold"):
        write_segmentation(tmp_path / "s.dcm", open_source(folder), segments, grid=volume.grid, kind="LABELMAP")
    assert not (tmp_path / "s.dcm").exists()


def test_fractions_of_pixels(make_series: Make, tmp_path: Path) -> None:
    folder = make_series()
    volume = read_volume(folder)
    mask = masks_of(volume, 1, overlap=False)[0]
    odds = np.random.default_rng(2).random(mask.shape).astype(np.float32)
    segment = Segment("liver", mask, probability=0.1, fraction=odds)
    write_segmentation(tmp_path / "s.dcm", open_source(folder), [segment], grid=volume.grid, kind="FRACTIONAL")
    dataset = dcmread(tmp_path / "s.dcm")
    assert (dataset.SegmentationType, dataset.SegmentationFractionalType) == ("FRACTIONAL", "PROBABILITY")
    stored = dataset.pixel_array / dataset.MaximumFractionalValue
    heights = [
        group.PlanePositionSequence[0].ImagePositionPatient[2] for group in dataset.PerFrameFunctionalGroupsSequence
    ]
    assert np.abs(stored[np.argsort(heights)] - np.where(mask, odds, 0)).max() <= 1 / 255


def test_dcmqi_reads_the_same_voxels(make_series: Make, dcmqi: Any, tmp_path: Path) -> None:
    import nibabel as nib

    folder = make_series(((0.8, 0.6, 0.0), (-0.36, 0.48, 0.8)))
    volume = read_volume(folder)
    masks = masks_of(volume, 2, overlap=True)
    segments = [Segment("liver", masks[0], tracking_id="liver 1"), Segment("polyp", masks[1])]
    write_segmentation(tmp_path / "s.dcm", open_source(folder), segments, grid=volume.grid)
    words = ("--outputDirectory", tmp_path, "--outputType", "nifti", "--prefix", "q")
    dcmqi("segimage2itkimage", "--inputDICOM", tmp_path / "s.dcm", *words)
    for number, mask in enumerate(masks, start=1):
        image = nib.load(tmp_path / f"q-{number}.nii.gz")
        places = np.argwhere(np.asarray(image.dataobj)) @ image.affine[:3, :3].T + image.affine[:3, 3]
        indices = np.rint((places - volume.affine[:3, 3]) @ np.linalg.inv(volume.affine[:3, :3]).T).astype(int)
        found = np.zeros_like(mask)
        found[tuple(indices.T)] = True
        assert np.array_equal(found, mask)
    told = json.loads((tmp_path / "q-meta.json").read_text())["segmentAttributes"]
    assert [one[0]["SegmentedPropertyTypeCodeSequence"]["CodeMeaning"] for one in told] == ["Liver", "Polyp"]
    assert told[0][0]["TrackingIdentifier"] == "liver 1"


@pytest.mark.parametrize("name", ["radiograph", "secondary_capture"])
def test_images_without_a_place(name: str, request: pytest.FixtureRequest, errors_of: Check, tmp_path: Path) -> None:
    path = request.getfixturevalue(name)
    mask = np.zeros((8, 9), bool)
    mask[2:4, 3:8] = True
    write_segmentation(tmp_path / "s.dcm", open_source(path), [Segment("pneumothorax", mask)])
    dataset = dcmread(tmp_path / "s.dcm")
    assert np.array_equal(dataset.pixel_array.reshape(8, 9), mask)
    assert "FrameOfReferenceUID" not in dataset
    assert errors_of(tmp_path / "s.dcm") == []


def test_one_frame_of_several_without_a_place(captured_frames: Path, errors_of: Check, tmp_path: Path) -> None:
    mask = np.zeros((8, 9), bool)
    mask[2:4, 3:8] = True
    source = open_source(captured_frames, frame=2)
    written = write_segmentation(tmp_path / "s.dcm", source, [Segment("polyp", mask)])
    dataset = dcmread(tmp_path / "s.dcm")
    assert np.array_equal(dataset.pixel_array.reshape(8, 9), mask)
    reference = dataset.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
    assert reference.ReferencedFrameNumber == 3
    assert written.source_frames == ((2,),)
    assert errors_of(tmp_path / "s.dcm") == []
    with pytest.raises(InputError, match="several frames: say which one"):
        write_segmentation(tmp_path / "t.dcm", open_source(captured_frames), [Segment("polyp", mask)])
    with pytest.raises(InputError, match="frame 4 does not exist"):
        open_source(captured_frames, frame=4)


def test_one_frame_of_an_enhanced_image(enhanced: Path, errors_of: Check, tmp_path: Path) -> None:
    image = read_image(enhanced, slice_index=1)
    mask = np.zeros((image.height, image.width), bool)
    mask[1:3, 4:9] = True
    write_segmentation(tmp_path / "s.dcm", open_source(enhanced, frame=1), [Segment("liver", mask)])
    dataset = dcmread(tmp_path / "s.dcm")
    assert np.array_equal(dataset.pixel_array.reshape(8, 9), mask)
    group = dataset.PerFrameFunctionalGroupsSequence[0]
    original = dcmread(enhanced).PerFrameFunctionalGroupsSequence[1]
    assert group.PlanePositionSequence[0] == original.PlanePositionSequence[0]
    assert group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber == 2
    assert errors_of(tmp_path / "s.dcm") == []


def test_a_volume_of_an_enhanced_image(enhanced: Path, segment_points: Any, mask_points: Any, tmp_path: Path) -> None:
    from unibiomed.images.grid import make_grid

    source = open_source(enhanced)
    assert source.planes is not None
    places = np.array([plane.position for plane in source.planes])[::-1]
    affine = np.eye(4)
    affine[:3, 0] = np.array(source.planes[0].along_row) * 0.7
    affine[:3, 1] = np.array(source.planes[0].along_column) * 0.8
    affine[:3, 2] = places[1] - places[0]
    affine[:3, 3] = places[0]
    grid = make_grid((9, 8, 4), np.diag([-1.0, -1, 1, 1]) @ affine, "enhanced")
    mask = np.random.default_rng(3).random(grid.shape) < 0.4
    write_segmentation(tmp_path / "s.dcm", source, [Segment("liver", mask)], grid=grid)
    assert segment_points(tmp_path / "s.dcm") == {1: mask_points(mask, grid.affine)}


def test_masks_that_do_not_fit(make_series: Make, radiograph: Path, tmp_path: Path) -> None:
    folder = make_series()
    volume = read_volume(folder)
    mask = np.ones(volume.grid.shape, bool)
    source = open_source(folder)
    with pytest.raises(InputError, match="need its grid"):
        write_segmentation(tmp_path / "s.dcm", source, [Segment("liver", mask)])
    with pytest.raises(InputError, match="another shape"):
        write_segmentation(tmp_path / "s.dcm", source, [Segment("liver", mask[1:])], grid=volume.grid)
    with pytest.raises(InputError, match="do not say where they lie"):
        write_segmentation(tmp_path / "s.dcm", open_source(radiograph), [Segment("liver", mask)], grid=volume.grid)
    with pytest.raises(InputError, match="another size"):
        write_segmentation(tmp_path / "s.dcm", open_source(radiograph), [Segment("liver", mask[0])])
    with pytest.raises(InputError, match="1 to 65535 segments"):
        write_segmentation(tmp_path / "s.dcm", source, [], grid=volume.grid)
    other = read_volume(make_series(places=(100, 102.5, 105, 107.5, 110), name="other"))
    with pytest.raises(InputError, match="do not match the pixels"):
        write_segmentation(tmp_path / "s.dcm", source, [Segment("liver", mask)], grid=other.grid)


def test_without_frame_of_reference_a_ct_is_refused(make_series: Make, tmp_path: Path) -> None:
    folder = make_series(places=(0,), FrameOfReferenceUID=None)
    path = next(folder.iterdir())
    with pytest.raises(InputError, match="do not say where they lie in the patient") as caught:
        write_segmentation(tmp_path / "s.dcm", open_source(path), [Segment("liver", np.ones((6, 7), bool))])
    assert "SECRET" not in str(caught.value)
    assert "\n" not in str(caught.value)
