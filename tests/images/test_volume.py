"""Volumes show what single slices show, whatever the order in the file."""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unibiomed.errors import InputError
from unibiomed.images import mask_to_slice, read_image, read_volume, read_volume_header
from unibiomed.images.volume import as_labels

ALL = ["".join(letter) for axes in itertools.permutations(["RL", "AP", "SI"]) for letter in itertools.product(*axes)]
in_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)


def stored_as(body: np.ndarray, orientation: str) -> np.ndarray:
    """A volume along R, A, S, in the order of a file of that orientation."""
    order = [next(i for i, pair in enumerate(("RL", "AP", "SI")) if letter in pair) for letter in orientation]
    flips = tuple(axis for axis, letter in enumerate(orientation) if letter in "LPI")
    return np.flip(body.transpose(order), flips)


def affine_of(orientation: str, sizes: tuple[float, ...], shape: tuple[int, ...]) -> np.ndarray:
    """Affine of such a file, with the voxel at the left, back and foot end at the origin."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, letter in enumerate(orientation):
        row = next(i for i, pair in enumerate(("RL", "AP", "SI")) if letter in pair)
        negative = letter in "LPI"
        affine[row, axis] = -sizes[row] if negative else sizes[row]
        affine[row, 3] = sizes[row] * (shape[row] - 1) if negative else 0
    return affine


def write(path: Path, body: np.ndarray, orientation: str, sizes: tuple[float, ...] = (1, 1, 1)) -> Path:
    image = nib.Nifti1Image(stored_as(body, orientation), affine_of(orientation, sizes, body.shape))
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


@in_one_folder
@given(
    first=st.sampled_from(ALL),
    second=st.sampled_from(ALL),
    shape=st.tuples(*[st.integers(1, 6)] * 3),
    sizes=st.tuples(*[st.sampled_from((0.5, 0.7, 1.0, 2.0, 5.0))] * 3),
    kind=st.sampled_from(("uint8", "int16", "float32")),
)
def test_slices_are_those_of_read_image_and_of_the_labels(tmp_path, first, second, shape, sizes, kind):
    body = np.random.default_rng(3).integers(0, 200, shape).astype(kind)
    path = write(tmp_path / "image.nii", body, first, sizes)
    other = write(tmp_path / "labels.nii", (body % 5).astype(np.uint8), second, sizes)
    volume, labels = read_volume(path), read_volume(other)
    assert volume.grid.matches(labels.grid)
    for k in range(len(volume)):
        single = read_image(path, slice_index=k)
        shown = volume.slice_image(k)
        assert (shown.pixels == single.pixels).all()
        assert shown.details == single.details
        assert shown.spacing == single.spacing
        assert (labels.labels(k) == volume.values[k] % 5).all()
    assert read_volume_header(path)[0].matches(volume.grid)


@pytest.mark.parametrize("orientation", ALL)
def test_masks_are_reordered_to_the_file(tmp_path, orientation):
    body = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
    path = write(tmp_path / "a.nii.gz", body, orientation, (1, 1, 3))
    volume = read_volume(path)
    assert volume.plane == "axial" and volume.spacing == (3, 1, 1) and volume.values.dtype == np.int16
    back = volume.to_file_order(volume.values)
    assert (back == np.asarray(nib.load(path).dataobj)).all()
    assert np.allclose(volume.grid.file_affine, nib.load(path).affine)
    details = volume.slice_image(2).details
    cut = np.take(back, details["file_slice"], axis=details["file_axis"])
    assert (mask_to_slice(volume.values[2], details) == cut).all()
    with pytest.raises(InputError, match="does not match"):
        volume.to_file_order(np.zeros((2, 2, 2)))


def test_affine_points_to_the_patient(tmp_path):
    body = np.zeros((4, 5, 6), dtype=np.int16)
    body[3, 0, 5] = 7  # the right, back, head end
    volume = read_volume(write(tmp_path / "a.nii", body, "LIA", (1, 2, 3)))
    index = np.argwhere(volume.values == 7)[0]
    assert (volume.affine @ (*index, 1))[:3] == pytest.approx((3, 0, 15))


@in_one_folder
@given(angle=st.floats(-40, 40), orientation=st.sampled_from(ALL))
def test_oblique_labels_stay_aligned(tmp_path, angle, orientation):
    body = np.random.default_rng(4).integers(0, 9, (4, 5, 6)).astype(np.uint8)
    turn = np.eye(4)
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    turn[1:3, 1:3] = [[c, -s], [s, c]]
    paths = []
    for name, letters in (("a.nii", "RAS"), ("b.nii", orientation)):
        affine = turn @ affine_of(letters, (1, 1, 1.2), body.shape)
        nib.save(nib.Nifti1Image(stored_as(body, letters), affine), tmp_path / name)
        paths.append(tmp_path / name)
    one, two = (read_volume(path) for path in paths)
    assert one.grid.matches(two.grid)
    assert (one.values == two.values).all()


def test_shifted_labels_do_not_match(tmp_path):
    body = np.zeros((4, 5, 6), dtype=np.uint8)
    one = read_volume(write(tmp_path / "a.nii", body, "RAS")).grid
    image = nib.Nifti1Image(body, np.diag([1.0, 1, 1, 1]) + np.array([[0, 0, 0, 1.0]] + [[0.0] * 4] * 3))
    nib.save(image, tmp_path / "b.nii")
    assert not one.matches(read_volume(tmp_path / "b.nii").grid)
    assert not one.matches(read_volume(write(tmp_path / "c.nii", body[:3], "RAS")).grid)


def test_windows(tmp_path):
    body = np.full((32, 32, 4), -1000, dtype=np.int16)
    body[8:24, 8:24] = 40
    body[0, 0, 0] = 700
    volume = read_volume(write(tmp_path / "ct.nii", body, "LPS"))
    assert volume.modality == "CT"
    assert sorted(np.unique(volume.slice_image(0, "abdomen").pixels)) == [0, 128, 255]
    assert (volume.slice_image(1, (40, 400)).pixels == volume.slice_image(1, "40,400").pixels).all()
    with pytest.raises(InputError, match="does not exist"):
        volume.slice_image(4)
    mr = np.zeros((10, 10, 4), dtype=np.float32)
    mr[..., 1], mr[..., 2] = 50, 100
    mr[0, 0, 3] = np.nan
    volume = read_volume(write(tmp_path / "mr.nii", mr, "RAS"))
    assert volume.modality is None
    assert volume.range_window == (75, 50)
    greys = [int(volume.slice_image(k, volume.range_window).pixels.max()) for k in range(3)]
    assert greys == [0, 0, 255]
    assert (volume.slice_image(3).pixels == 0).all(), "of NaN and zeros nothing is to be seen"
    assert not volume.values.flags.writeable
    flat = read_volume(write(tmp_path / "flat.nii", np.zeros((3, 3, 3), dtype=np.int16), "RAS"))
    assert flat.range_window[1] > 0 and not flat.slice_image(0, flat.range_window).pixels.any()


def test_rescale_and_size_limits(tmp_path, monkeypatch):
    path = write(tmp_path / "a.nii", np.arange(60, dtype=np.int16).reshape(3, 4, 5), "RAS")
    raw = bytearray(path.read_bytes())
    raw[112:120] = np.array([2, -10], dtype="<f4").tobytes()
    path.write_bytes(raw)
    assert read_volume(path).values.max() == 59 * 2 - 10
    monkeypatch.setattr("unibiomed.images.volume.MAX_BYTES", 60 * 8 - 1)
    with pytest.raises(InputError, match="the rescaled volume"):
        read_volume(path)


def test_labels_must_be_integers(tmp_path):
    assert as_labels(np.array([0.0, 3.0], dtype=np.float32), "a").dtype == np.int32
    assert as_labels(np.array([np.nan, 3.0]), "a").tolist() == [0, 3], "NaN is background"
    for wrong in (0.5, np.inf, 1e20):
        with pytest.raises(InputError, match="fractions"):
            as_labels(np.array([wrong]), "a")


def test_other_files_are_refused_as_volume(tmp_path, make_dicom):
    with pytest.raises(InputError, match="no such file"):
        read_volume(tmp_path / "none.nii")
    (tmp_path / "a.nii").write_bytes(b"text" * 500)
    with pytest.raises(InputError, match="not a volume"):
        read_volume(tmp_path / "a.nii")
    nib.save(nib.Nifti1Image(np.zeros((3, 3, 3, 2), dtype=np.uint8), np.eye(4)), tmp_path / "b.nii")
    with pytest.raises(InputError, match="3x3x3x2"):
        read_volume(tmp_path / "b.nii")
    colors = np.zeros((4, 5, 2), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(colors, np.eye(4)), tmp_path / "c.nii")
    with pytest.raises(InputError, match="not grey"):
        read_volume(tmp_path / "c.nii")
    with pytest.raises(InputError, match="folder with all files"):
        read_volume(make_dicom(np.zeros((4, 4), dtype=np.uint16)))
    cut = write(tmp_path / "d.nii", np.ones((9, 9, 9), dtype=np.int16), "RAS")
    cut.write_bytes(cut.read_bytes()[:-100])
    with pytest.raises(InputError, match="truncated"):
        read_volume(cut)
    assert read_volume_header(cut)[0].shape == (9, 9, 9)


@pytest.mark.parametrize("further", [(3,), (1, 3), (3, 2)])
def test_channels(tmp_path, further):
    body = np.random.default_rng(0).integers(-50, 900, (4, 5, 6, *further)).astype(np.int16)
    path = tmp_path / "a.nii.gz"
    nib.save(nib.Nifti1Image(body, np.diag([1.0, 1, 3, 1])), path)
    flat = body.reshape((4, 5, 6, -1), order="F")
    for channel in range(flat.shape[3]):
        volume = read_volume(path, channel)
        assert (volume.to_file_order(volume.values) == flat[..., channel]).all()
        assert volume.grid.matches(read_volume_header(path, channel)[0])
    for read in (read_volume, read_volume_header):
        with pytest.raises(InputError, match=f"channel {flat.shape[3]} does not exist"):
            read(path, flat.shape[3])
        with pytest.raises(InputError, match=r"the shape 4x5x6x[x\d]+: choose a channel"):
            read(path)
    with pytest.raises(InputError, match="save the volume you want as a 3-D file"):
        read_image(path)


def test_a_single_volume_is_channel_0(tmp_path, worded):
    path = write(tmp_path / "a.nii", np.ones((4, 5, 6), dtype=np.int16), "RAS")
    for file in (path, worded(tmp_path / "a", path, "nrrd", packed=False)):
        assert (read_volume(file, 0).values == 1).all()
        with pytest.raises(InputError, match="channel 1 does not exist"):
            read_volume(file, 1)


# ---- NRRD and MetaImage


@pytest.mark.parametrize("orientation", ["LPS", "RAS", "ASR", "SLA"])
@pytest.mark.parametrize("ending", ["nrrd", "nhdr", "mha", "mhd"])
@pytest.mark.parametrize(("packed", "big"), [(True, False), (False, True)])
def test_nrrd_and_metaimage_have_the_geometry_of_nifti(tmp_path, worded, orientation, ending, packed, big):
    body = np.random.default_rng(5).integers(-50, 900, (4, 5, 6)).astype(np.int16)
    nifti = read_volume(write(tmp_path / "a.nii", body, orientation, (1, 1, 2.5)))
    volume = read_volume(worded(tmp_path / "a", tmp_path / "a.nii", ending, packed=packed, big=big))
    assert volume.grid.matches(nifti.grid)
    assert (volume.values == nifti.values).all() and volume.values.dtype == np.int16
    assert volume.grid.orientation == orientation
    assert (volume.slice_image(1).pixels == nifti.slice_image(1).pixels).all()
    assert (volume.to_file_order(volume.values) == nifti.to_file_order(nifti.values)).all()
    assert volume.details["orientation_known"] and volume.source == "a"


@pytest.mark.parametrize("ending", ["nrrd", "mha"])
def test_missing_and_excess_voxels_are_refused(tmp_path, worded, ending):
    write(tmp_path / "a.nii", np.ones((4, 5, 6), dtype=np.int16), "RAS")
    for packed in (True, False):
        path = worded(tmp_path / "a", tmp_path / "a.nii", ending, packed=packed)
        path.write_bytes(path.read_bytes()[:-12])
        with pytest.raises(InputError, match="truncated"):
            read_volume(path)


@in_one_folder
@given(st.data())
def test_damaged_headers_raise_only_input_errors(tmp_path, worded, data):
    write(tmp_path / "a.nii", np.ones((3, 4, 5), dtype=np.int16), "RAS")
    ending = data.draw(st.sampled_from(("nrrd", "mha")))
    path = worded(tmp_path / "a", tmp_path / "a.nii", ending, packed=data.draw(st.booleans()))
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=6))
    path.write_bytes(raw)
    try:
        read_volume(path)
    except InputError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ("NRRD0004\ntype: short\ndimension: 3\nsizes: 4 3 2\nencoding: raw\ndata file: /etc/passwd\n\n", "same folder"),
        ("NRRD0004\ntype: short\ndimension: 3\nsizes: 4 3 2\nencoding: raw\ndata file: ../x.raw\n\n", "same folder"),
        ("NRRD0004\ntype: short\ndimension: 3\nsizes: 4 3 2\nendian: little\nencoding: raw\n\n", "truncated"),
        ("NRRD0004\ntype: short\ndimension: 3\n\n", "damaged"),
        (
            "NRRD0004\ntype: short\ndimension: 3\nsizes: 9999 9999 9999\nendian: little\nencoding: raw\n\n",
            "GiB",
        ),
        (
            "NRRD0004\ntype: short\ndimension: 2\nsizes: 4 3\nendian: little\nencoding: raw\n\n" + "x" * 24,
            "grey volume",
        ),
        ("ObjectType = Image\nNDims = 3\nDimSize = 4 3 2\nElementType = MET_SHORT\n", "damaged"),
        (
            "ObjectType = Image\nNDims = 3\nDimSize = 4 3 2\nElementType = MET_SHORT\nElementDataFile = /etc/passwd\n",
            "same folder",
        ),
    ],
)
def test_invalid_headers_are_refused(tmp_path, head, words):
    (tmp_path / "a").write_bytes(head.encode())
    with pytest.raises(InputError, match=words) as caught:
        read_volume(tmp_path / "a")
    assert "\n" not in str(caught.value)


# ---- DICOM series


def test_series_are_sorted_by_position_and_rescaled(make_series):
    values = np.random.default_rng(6).integers(0, 2000, (5, 6, 8)).astype(np.uint16)
    folder = make_series(values, lambda k: {"WindowCenter": 40, "WindowWidth": 400})
    (folder / "notes.txt").write_text("not an image")
    (folder / "deeper").mkdir()
    volume = read_volume(folder)
    assert volume.values.dtype == np.int16
    assert (volume.values == values.astype(int) - 1024).all()
    assert volume.spacing == pytest.approx((2.5, 0.8, 0.7)) and volume.plane == "axial" and volume.modality == "CT"
    assert (volume.affine @ (2, 3, 4, 1))[:3] == pytest.approx((-2.8, -2.4, 5.0))
    for k, name in enumerate(volume.details["files"]):
        single = read_image(folder / name)
        assert (volume.slice_image(k).pixels == single.pixels).all()
        assert volume.slice_image(k).modality == single.modality
    assert read_volume_header(folder)[1] == "CT"
    assert "SECRET" not in str(volume.details) and volume.source == "series"


def test_series_from_the_head_and_sagittal(make_series):
    values = np.random.default_rng(7).integers(0, 2000, (4, 6, 8)).astype(np.uint16)
    down = read_volume(make_series(values, lambda k: {"ImagePositionPatient": [0, 0, -2.5 * k]}, "down"))
    assert (down.values == values[::-1].astype(int) - 1024).all()
    # Columns run to the back, rows to the feet, as sagittal slices are seen; slices go to the patient's left.
    turned = {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}
    side = read_volume(make_series(values, lambda k: {**turned, "ImagePositionPatient": [2.5 * k, 0, 0]}, "side"))
    assert side.plane == "sagittal"
    assert (side.values == values[::-1].astype(int) - 1024).all()


def test_fractions_and_large_values_keep_their_value(make_series):
    values = np.full((2, 3, 3), 60000, dtype=np.uint16)
    pet = read_volume(make_series(values, lambda k: {"RescaleSlope": 0.25 * (k + 1), "Modality": "PT"}, "pet"))
    assert pet.values.dtype == np.float32 and pet.modality == "PET"
    assert pet.values[:, 0, 0].tolist() == [60000 * 0.25 - 1024, 60000 * 0.5 - 1024]
    with pytest.raises(InputError, match="is for CT"):
        pet.slice_image(0, "lung")
    ct = read_volume(make_series(values, name="ct"))
    assert ct.values.dtype == np.int32 and ct.values.min() == 60000 - 1024


def test_padding_does_not_affect_the_range(make_series):
    values = np.random.default_rng(8).integers(1000, 1100, (2, 20, 20)).astype(np.int16)
    values[:, :10] = -2000
    volume = read_volume(make_series(values, lambda k: {"PixelPaddingValue": -2000}))
    center, width = volume.range_window
    assert width < 110 and 0 < center < 80


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda k: {"SeriesInstanceUID": "1.2.3" if k < 3 else "1.2.4"},
            "2 series, choose one with --series",
        ),
        (lambda k: {"PatientID": f"{k > 2}"}, "several patients"),
        (lambda k: {"ImagePositionPatient": [0, 0, 2.5 * (k + 2 * (k > 1))]}, "2 missing between slices 1 and 2"),
        (lambda k: {"ImagePositionPatient": [0, 0, 2.5 * max(k, 1)]}, "same position"),
        (lambda k: {"ImagePositionPatient": [0, 0, [0, 2.5, 5, 6, 8.5][k]]}, "closer"),
        (lambda k: {"PixelSpacing": [0.8, 0.7 + 0.1 * (k == 4)]}, "another pixel spacing"),
        (lambda k: {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0] if k else [0, 1, 0, 1, 0, 0]}, "another orientation"),
        (lambda k: {"Modality": "MR" if k == 2 else "CT"}, "another modality"),
        (lambda k: {"ImagePositionPatient": []}, "position of the image is not known"),
        (lambda k: {"PhotometricInterpretation": "MONOCHROME1"}, "only grey"),
        (lambda k: {"PixelSpacing": [0.0, 1.0]}, "not positive"),
    ],
)
def test_series_that_do_not_form_a_volume_are_refused(make_series, change, words):
    folder = make_series(np.zeros((5, 4, 4), dtype=np.uint16), change)
    with pytest.raises(InputError, match=words) as caught:
        read_volume(folder)
    message = str(caught.value)
    assert "\n" not in message and "Secret" not in message and "1.2.3" not in message


def test_folders_without_a_series_and_sizes_that_differ(make_series, tmp_path, make_dicom):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no DICOM images"):
        read_volume(tmp_path / "empty")
    folder = make_series(np.zeros((3, 4, 4), dtype=np.uint16))
    one = sorted(folder.iterdir())[1]
    header = pydicom.dcmread(one, stop_before_pixels=True)
    other = make_dicom(
        np.zeros((4, 5), dtype=np.uint16),
        **{k: header.get(k) for k in ("SeriesInstanceUID", "ImagePositionPatient", "ImageOrientationPatient")},
        PixelSpacing=[0.8, 0.7],
    )
    other.rename(one)
    with pytest.raises(InputError, match="this image has 5 x 4 pixels, but most images of its series have 4 x 4"):
        read_volume(folder)
    one.write_bytes(one.read_bytes()[:-10])
    cut = make_series(np.zeros((3, 4, 4), dtype=np.uint16), name="cut")
    path = sorted(cut.iterdir())[0]
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match="damaged"):
        read_volume(cut)


def test_nothing_is_printed(make_series, capfd):
    folder = make_series(np.zeros((3, 4, 4), dtype=np.uint16))
    read_volume(folder)
    assert capfd.readouterr() == ("", "")


# ---- real volumes


def test_real_volumes(shared_data):
    volumes = shared_data / "volumes"
    if not volumes.is_dir():
        pytest.skip("no real volumes")
    ct = read_volume(volumes / "abdomen_ct" / "example_ct_dicom")
    labels = read_volume(volumes / "abdomen_ct" / "example_seg_dicom.nii.gz")
    assert ct.modality == "CT" and ct.values.shape == (20, 512, 512)
    assert ct.grid.matches(labels.grid)
    # 5 is the liver in the class map that comes with the file.
    numbers = np.concatenate([ct.values[k][labels.labels(k) == 5] for k in range(len(ct))])
    assert 40 < numbers.mean() < 130
    for patient, modality in itertools.product(("STS_003", "STS_032"), ("CT", "MR_T1", "PET")):
        path = volumes / "sarcoma_pet_ct_mr" / patient / f"{modality}_image.nii.gz"
        image, mask = read_volume(path), read_volume(str(path).replace("_image", "_mask"))
        assert image.grid.matches(mask.grid)
        assert image.modality == ("CT" if modality == "CT" else None)
        k = len(image) // 2
        assert (image.slice_image(k).pixels == read_image(path, slice_index=k).pixels).all()
    brain, lesion = (read_volume(volumes / "brain_mr_nrrd" / f"brain1_{name}.nrrd") for name in ("image", "label"))
    assert brain.grid.matches(lesion.grid) and lesion.values.any()
    assert brain.values[lesion.values > 0].mean() > 300


@pytest.mark.parametrize(("lines", "known"), [(["ElementSpacing = 2 2 3"], True), ([], False)])
def test_a_metaimage_without_sizes_has_none_in_mm(tmp_path, lines, known):
    head = ["ObjectType = Image", "NDims = 3", "DimSize = 5 4 3", "ElementType = MET_UCHAR", *lines]
    voxels = np.arange(60, dtype=np.uint8).tobytes()
    path = tmp_path / "a.mha"
    path.write_bytes("\n".join([*head, "ElementDataFile = LOCAL\n"]).encode() + voxels)
    image = read_volume(path).slice_image(1)
    assert (image.spacing is not None) == known
    assert any("size of its voxels" in note for note in image.notes) != known
    assert any("left and right" in note for note in image.notes), "there is no TransformMatrix"


@pytest.mark.parametrize(("lines", "known"), [(["spacings: 2 2 3"], True), ([], False)])
def test_an_nrrd_without_sizes_has_none_in_mm(tmp_path, lines, known):
    head = ["NRRD0004", "type: uchar", "dimension: 3", "sizes: 5 4 3", "encoding: raw", *lines]
    path = tmp_path / "a.nrrd"
    path.write_bytes(("\n".join(head) + "\n\n").encode() + np.arange(60, dtype=np.uint8).tobytes())
    image = read_volume(path).slice_image(1)
    assert (image.spacing is not None) == known
    assert any("size of its voxels" in note for note in image.notes) != known
