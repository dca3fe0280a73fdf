from __future__ import annotations

import gzip
import itertools
import logging

import nibabel as nib
import numpy as np
import pytest

from unibiomed.errors import InputError
from unibiomed.images import mask_to_slice, read_image, read_volume

LEFT, RIGHT, BACK, FRONT, FEET, HEAD = 10, 60, 100, 150, 200, 250


def body(orientation: str, shape: tuple[int, int, int] = (9, 11, 13)) -> np.ndarray:
    """A volume whose faces are marked by value, stored in the given orientation; ``shape`` is along R, A, S."""
    volume = np.zeros(shape, dtype=np.uint8)
    volume[:2], volume[-2:] = LEFT, RIGHT
    volume[3:6, :2], volume[3:6, -2:] = BACK, FRONT
    volume[4, 5, :2], volume[4, 5, -2:] = FEET, HEAD
    letters = ["RL", "AP", "SI"]
    order = [next(i for i, pair in enumerate(letters) if letter in pair) for letter in orientation]
    stored = volume.transpose(order)
    flips = tuple(axis for axis, letter in enumerate(orientation) if letter in "LPI")
    return np.ascontiguousarray(np.flip(stored, flips))


ALL = ["".join(letter) for axes in itertools.permutations(["RL", "AP", "SI"]) for letter in itertools.product(*axes)]


@pytest.mark.parametrize("orientation", ALL)
def test_every_orientation_is_shown_as_radiologists_see_it(make_nifti, orientation):
    image = read_image(make_nifti(body(orientation), orientation))
    assert (image.height, image.width) == (11, 9)
    grey = image.pixels[:, :, 0]
    assert grey[5, 0] == RIGHT and grey[5, -1] == LEFT, "patient right is on image left"
    assert grey[0, 4] == FRONT and grey[-1, 4] == BACK, "anterior is up"
    assert image.details["slice"] == 6 and image.details["slices"] == 13
    assert image.details["plane"] == "axial"
    assert image.details["orientation"] == orientation
    path = make_nifti(body(orientation), orientation)
    assert FEET in read_image(path, slice_index=0).pixels
    assert HEAD in read_image(path, slice_index=12).pixels


@pytest.mark.parametrize("orientation", ALL)
@pytest.mark.parametrize("thick", ["R", "A", "S"])
def test_masks_map_back_to_the_file(make_nifti, orientation, thick):
    volume = np.random.default_rng(1).integers(0, 256, (5, 6, 7), dtype=np.uint8)
    pair = {"R": "RL", "A": "AP", "S": "SI"}[thick]
    sizes = tuple(5.0 if letter in pair else 1.0 for letter in orientation)
    image = read_image(make_nifti(volume, orientation, sizes), slice_index=1)
    details = image.details
    assert details["file_shape"] == volume.shape
    expected = np.take(volume, details["file_slice"], axis=details["file_axis"])
    assert (mask_to_slice(image.pixels[:, :, 0], details) == expected).all()


def test_mask_to_slice_refuses_what_does_not_fit(make_nifti):
    image = read_image(make_nifti(body("RAS")))
    with pytest.raises(InputError, match="does not match"):
        mask_to_slice(np.zeros((3, 3)), image.details)
    with pytest.raises(InputError, match="not those of a slice"):
        mask_to_slice(np.zeros((3, 3)), {"format": "PNG"})


def test_thick_slices_are_cut_as_acquired(make_nifti):
    sagittal = read_image(make_nifti(body("ASR"), "ASR", (0.5, 0.6, 4.0)), slice_index=4)
    assert sagittal.details["plane"] == "sagittal" and sagittal.details["slices"] == 9
    assert sagittal.spacing == pytest.approx((0.6, 0.5))
    grey = sagittal.pixels[:, :, 0]
    assert grey.shape == (13, 11)
    assert grey[6, 0] == FRONT and grey[6, -1] == BACK and grey[0, 5] == HEAD and grey[-1, 5] == FEET
    coronal = read_image(make_nifti(body("LIP"), "LIP", (0.5, 0.6, 4.0)))
    assert coronal.details["plane"] == "coronal"
    grey = coronal.pixels[:, :, 0]
    assert grey[6, 0] == RIGHT and grey[6, -1] == LEFT and grey[0, 4] == HEAD and grey[-1, 4] == FEET


def test_spacing_follows_the_turn_and_the_unit(make_nifti):
    path = make_nifti(body("PIR"), "PIR", (0.5, 0.8, 0.7))
    assert read_image(path).spacing == pytest.approx((0.5, 0.7))
    image = nib.load(path)
    image.header.set_xyzt_units("micron")
    nib.save(image, path)
    assert read_image(path).spacing == pytest.approx((0.0005, 0.0007))


def test_content_decides_not_the_suffix(make_nifti, tmp_path):
    packed = make_nifti(body("RAS"), name="v.nii.gz")
    plain = tmp_path / "plain.nii"
    plain.write_bytes(gzip.decompress(packed.read_bytes()))
    for source, name in ((packed, "packed.png"), (plain, "scan.gz"), (packed, "none")):
        target = tmp_path / name
        target.write_bytes(source.read_bytes())
        assert (read_image(target).pixels == read_image(packed).pixels).all()


def test_nifti_2(tmp_path):
    path = tmp_path / "a.nii"
    nib.save(nib.Nifti2Image(body("RAS"), np.eye(4)), path)
    assert read_image(path).pixels[0, 4, 0] == FRONT


def test_ct_is_recognised_and_windowed(make_nifti):
    volume = np.full((32, 32, 3), -1000, dtype=np.int16)
    volume[8:24, 8:24] = 40
    volume[12:14, 12:14] = 700
    path = make_nifti(volume)
    image = read_image(path, window="abdomen")
    assert image.modality == "CT" and image.details["window"] == (40.0, 400.0)
    assert sorted(np.unique(image.pixels)) == [0, 128, 255]
    assert read_image(path).modality == "CT"
    assert read_image(path, window="40,400").modality == "CT"
    assert read_image(make_nifti(volume + 1024)).modality is None


def test_scale_factors_are_applied(make_nifti, tmp_path):
    path = make_nifti(np.arange(60, dtype=np.int16).reshape(3, 4, 5))
    raw = bytearray(path.read_bytes())
    raw[112:120] = np.array([10, -100], dtype="<f4").tobytes()
    path.write_bytes(raw)
    grey = read_image(path, slice_index=0, window=(0, 1000)).pixels[:, :, 0]
    expected = np.rint(np.clip((np.arange(60).reshape(3, 4, 5)[:, :, 0] * 10 - 100) / 1000 + 0.5, 0, 1) * 255)
    assert (grey == expected.T[::-1, ::-1]).all()


def test_two_dimensions_and_rgb(tmp_path):
    nib.save(nib.Nifti1Image(np.arange(20, dtype=np.uint8).reshape(4, 5), np.eye(4)), tmp_path / "a.nii")
    image = read_image(tmp_path / "a.nii")
    assert (image.height, image.width) == (5, 4)
    expected = np.arange(20, dtype=np.uint8).reshape(4, 5)[:, :, None]
    assert (mask_to_slice(image.pixels[:, :, 0], image.details) == expected[:, :, 0]).all()
    with pytest.raises(InputError, match="single image"):
        read_image(tmp_path / "a.nii", slice_index=0)
    colors = np.zeros((4, 5, 2), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    colors["G"] = 77
    nib.save(nib.Nifti1Image(colors, np.eye(4)), tmp_path / "b.nii")
    assert read_image(tmp_path / "b.nii").pixels[0, 0].tolist() == [0, 77, 0]


def test_slices_out_of_range(make_nifti):
    path = make_nifti(body("RAS"))
    for wrong in (13, -1, 10**6):
        with pytest.raises(InputError, match="choose 0 to 12"):
            read_image(path, slice_index=wrong)


def test_more_than_one_volume_is_refused(make_nifti):
    affine = np.eye(4)
    path = make_nifti(body("RAS"))
    nib.save(nib.Nifti1Image(np.zeros((3, 3, 3, 2), dtype=np.uint8), affine), path)
    with pytest.raises(InputError, match="3x3x3x2"):
        read_image(path)
    nib.save(nib.Nifti1Image(np.full((3, 3, 3, 1), 9, dtype=np.uint8), affine), path)
    assert read_image(path).pixels.max() == 9


def test_infinity_is_refused(make_nifti):
    volume = np.zeros((4, 4, 4), dtype=np.float32)
    volume[1, 1, 2] = np.inf
    path = make_nifti(volume)
    with pytest.raises(InputError, match="infinite"):
        read_image(path)
    assert read_image(path, slice_index=0).height == 4


def test_a_broken_orientation_is_refused(make_nifti):
    path = make_nifti(body("RAS"))
    image = nib.load(path)
    for row in ([0, 0, 0, 0], [np.nan] * 4):
        raw = bytearray(path.read_bytes())
        raw[280:296] = np.array(row, dtype="<f4").tobytes()
        path.write_bytes(raw)
        with pytest.raises(InputError, match="orientation"):
            read_image(path)
    assert image.header["sform_code"] > 0


def header(shape: tuple[int, ...], *, dtype: type = np.uint8, offset: float = 352) -> bytes:
    made = nib.Nifti1Header()
    made.set_data_dtype(dtype)
    made["dim"][: len(shape) + 1] = (len(shape), *shape)
    made["magic"] = b"n+1"
    made["vox_offset"] = offset
    return made.binaryblock + bytes(4)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("head", "said"),
    [
        (header((30000, 30000, 1)), "900|million pixels"),
        (header((32767, 32767, 32767), dtype=np.float64), "GiB"),
        (header((4, 4, 4), offset=2e9), "offset"),
        (header((4, 4, 4), offset=np.nan), "offset"),
        (header((0, 4, 4)), "no image"),
        (header((-4, 4, 4)), "no image|damaged"),
        (header((40, 40, 40)), "truncated"),
    ],
)
def test_headers_that_lie_are_refused_before_decoding(tmp_path, head, said, packed):
    path = tmp_path / "a.nii"
    path.write_bytes(gzip.compress(head + bytes(1000)) if packed else head + bytes(1000))
    with pytest.raises(InputError, match=said):
        read_image(path)


def test_other_gzip_files_pairs_and_cut_files(make_nifti, tmp_path):
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(b"text" * 1000))
    with pytest.raises(InputError, match="no NIfTI"):
        read_image(path)
    good = make_nifti(np.random.default_rng(0).integers(0, 99, (20, 20, 20), dtype=np.int16), name="g.nii.gz")
    path.write_bytes(good.read_bytes()[:-4000])
    with pytest.raises(InputError, match="truncated"):
        read_image(path, slice_index=19)
    nib.save(nib.Nifti1Pair(body("RAS"), np.eye(4)), tmp_path / "p.hdr")
    with pytest.raises(InputError, match="pair"):
        read_image(tmp_path / "p.hdr")


def test_nothing_is_logged(make_nifti, capfd, caplog):
    path = make_nifti(body("RAS"))
    raw = bytearray(path.read_bytes())
    raw[0:4] = b"\0\0\0\0"
    raw[252:254] = b"\xff\x7f"
    path.write_bytes(raw)
    with caplog.at_level(logging.DEBUG):
        try:
            read_image(path)
        except InputError as error:
            assert "\n" not in str(error)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_what_the_header_leaves_open_is_noted(make_nifti):
    ramp = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    assert not any("left and right" in note or "size" in note for note in read_image(make_nifti(ramp)).notes)
    path = make_nifti(ramp, sizes=(2, 2, 2))
    image = nib.load(path)
    image.header["sform_code"] = image.header["qform_code"] = 0
    bare = nib.Nifti1Image(ramp, None, image.header)
    for size, known in ((2.0, True), (0.0, False)):
        bare.header["pixdim"][1:4] = size
        data = bytearray(bare.to_bytes())
        data[76 + 4 : 76 + 16] = np.array([size] * 3, "<f4").tobytes()
        path.write_bytes(data)
        for shown in (read_image(path), read_volume(path).slice_image(1)):
            assert any("left and right" in note for note in shown.notes)
            assert any("size of its voxels" in note for note in shown.notes) != known
            assert (shown.spacing is not None) == known
        assert (read_volume(path).grid.pixel_spacing is not None) == known


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("length", [100, 347])
def test_a_cut_header_is_truncated(make_nifti, length, zipped):
    path = make_nifti(np.zeros((3, 4, 5), np.int16))
    data = path.read_bytes()[:length]
    path.write_bytes(gzip.compress(data) if zipped else data)
    with pytest.raises(InputError, match="truncated in its header"):
        read_image(path)


def test_nan_is_background(make_nifti):
    volume = np.full((20, 20, 3), np.nan, dtype=np.float32)
    volume[5:15, 5:15] = np.linspace(-1000, 400, 100).reshape(10, 10, 1)
    volume[6:14, 6:14] = 40
    path = make_nifti(volume)
    image, whole = read_image(path), read_volume(path)
    assert (whole.slice_image(1).pixels == image.pixels).all()
    assert (image.pixels[:5] == 0).all() and image.pixels.max() == 255
    assert whole.labels is not None and np.isfinite(whole.range_window).all()
