"""Studies as people have them: several series, folders in folders, zip files, and files of several frames."""

from __future__ import annotations

import io
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from unibiomed.errors import InputError
from unibiomed.images import archive, is_volume, read_image, read_volume

VALUES = np.random.default_rng(0).integers(0, 2000, (5, 6, 7)).astype(np.uint16)


def pack(path: Path, members: dict[str, bytes], **kind: int) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, **kind) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def contents(folder: Path, below: str = "") -> dict[str, bytes]:
    return {f"{below}{path.name}": path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def several(make_series: Callable[..., Path]) -> Path:
    """A folder with two series and a localizer of one image."""
    folder = make_series(VALUES)
    make = {
        "second": (VALUES[:3], {"SeriesInstanceUID": "1.2.3", "Modality": "MR"}),
        "scout": (VALUES[:1], {"SeriesInstanceUID": "1.2.4", "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}),
    }
    for name, (values, elements) in make.items():
        for path in make_series(
            values, lambda k, e=elements: e | {"ImagePositionPatient": [0, 0, 3 * k]}, name
        ).iterdir():
            path.rename(folder / f"{name}_{path.name}")
    return folder


def test_one_of_several_series_is_chosen(several):
    with pytest.raises(InputError) as caught:
        read_volume(several)
    assert str(caught.value) == (
        "series: the folder contains 3 series, choose one with --series N: 1: CT, 5 images of 7 x 6; "
        "2: MRI, 3 images of 7 x 6; 3: CT, 1 image of 7 x 6, localizer"
    )
    assert np.array_equal(read_volume(several, series=1).values.max(), VALUES.max() - 1024)
    assert read_volume(several, series=2).modality == "MRI" and len(read_volume(several, series=2)) == 3
    with pytest.raises(InputError, match="series 4 does not exist: choose 1 to 3"):
        read_volume(several, series=4)


def test_a_localizer_is_never_chosen_by_itself(several):
    for path in several.glob("second_*"):
        path.unlink()
    volume = read_volume(several)
    assert len(volume) == 5 and "of 2 series the one that is no localizer was read" in volume.details["notes"]


def test_a_series_in_folders_of_a_folder(make_series, tmp_path):
    folder = make_series(VALUES)
    (tmp_path / "study" / "DICOM" / "S1").mkdir(parents=True)
    (tmp_path / "study" / "report.txt").write_text("nothing")
    for path in sorted(folder.iterdir()):
        path.rename(tmp_path / "study" / "DICOM" / "S1" / path.name)
    volume = read_volume(tmp_path / "study")
    assert len(volume) == 5
    for name, values in zip(volume.details["files"], volume.values, strict=True):
        assert (
            np.array_equal(read_image(tmp_path / "study" / name).pixels, volume.slice_image(0).pixels) or values.any()
        )
        assert (tmp_path / "study" / name).is_file() and name.startswith("DICOM/S1/")


def test_a_zip_of_a_series(make_series, tmp_path):
    folder = make_series(VALUES, lambda k: {"WindowCenter": 40, "WindowWidth": 400})
    packed = pack(tmp_path / "study.zip", contents(folder, "export/IM/") | {"export/README": b"nothing"})
    assert is_volume(packed) and is_volume(folder) and not is_volume(next(folder.iterdir()))
    volume, same = read_volume(packed), read_volume(folder)
    assert np.array_equal(volume.values, same.values) and np.array_equal(volume.affine, same.affine)
    assert volume.source == "study.zip" and volume.modality == "CT"
    assert volume.details["files"] == tuple(f"export/IM/{name}" for name in same.details["files"])


def test_a_zip_of_one_nifti_file(make_nifti, tmp_path):
    path = make_nifti(VALUES.astype(np.int16), "LPS", (1.0, 1.0, 2.0))
    volume = read_volume(pack(tmp_path / "one.zip", {f"a/{path.name}": path.read_bytes()}))
    assert np.array_equal(volume.values, read_volume(path).values) and volume.source == "one.zip"


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"../evil.dcm": b"x"}, "a path outside of it"),
        ({"/etc/evil": b"x"}, "a path outside of it"),
        ({"a/..\\..\\evil": b"x"}, "a path outside of it"),
        ({"C:\\evil": b"x"}, "a path outside of it"),
        ({}, "contains no DICOM images"),
        ({"a.txt": b"x", "b.txt": b"y"}, "contains no DICOM images"),
        ({"bomb": bytes(40 * 2**20)}, "grow more than 200 times"),
    ],
)
def test_a_zip_that_is_no_study(tmp_path, members, words):
    path = pack(tmp_path / "study.zip", members)
    before = {one for one in tmp_path.parent.rglob("*")}
    with pytest.raises(InputError, match=words) as caught:
        read_volume(path)
    message = str(caught.value)
    assert message.startswith("study.zip: ") and "\n" not in message and "unibiomed-" not in message
    assert {one for one in tmp_path.parent.rglob("*")} == before


def test_links_damage_and_too_many_members(tmp_path, monkeypatch):
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as file:
        file.writestr(link, "/etc/passwd")
    with pytest.raises(InputError, match="holds a link"):
        read_volume(tmp_path / "link.zip")
    whole = pack(tmp_path / "whole.zip", {"a": b"x" * 100, "b": b"y" * 100}).read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[:-30])
    with pytest.raises(InputError, match="damaged or encrypted"):
        read_volume(tmp_path / "cut.zip")
    spoiled = bytearray(whole)
    spoiled[40] ^= 255
    (tmp_path / "spoiled.zip").write_bytes(spoiled)
    with pytest.raises(InputError, match="damaged or encrypted"):
        read_volume(tmp_path / "spoiled.zip")
    monkeypatch.setattr(archive, "MAX_MEMBERS", 1)
    with pytest.raises(InputError, match="more than 1 files"):
        read_volume(tmp_path / "whole.zip")
    monkeypatch.setattr(archive, "MAX_MEMBERS", 9)
    monkeypatch.setattr(archive, "MAX_BYTES", 150)
    with pytest.raises(InputError, match="more than 0 GiB"):
        read_volume(tmp_path / "whole.zip")


def test_a_zip_that_lies_about_its_sizes(tmp_path, monkeypatch):
    """The sizes in the directory of the file are changed: what is unpacked counts."""
    whole = bytearray(pack(tmp_path / "whole.zip", {"a": b"x" * 100_000}).read_bytes())
    for mark, at in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        start = whole.index(mark) + at
        whole[start : start + 4] = (10).to_bytes(4, "little")
    (tmp_path / "lies.zip").write_bytes(whole)
    monkeypatch.setattr(archive, "MAX_BYTES", 5000)
    with pytest.raises(InputError, match=r"damaged or encrypted|more than"):
        read_volume(tmp_path / "lies.zip")


@pytest.fixture
def enhanced(make_dicom: Callable[..., Path]) -> Callable[..., Path]:
    """A file of several frames, stored from the head down in a mixed order, as enhanced CT has it."""

    def make(change: Callable[[int], dict[str, object]] = lambda k: {}) -> Path:
        order = [3, 0, 4, 1, 2]
        per_frame = []
        for k in order:
            elements = {"ImagePositionPatient": [0.0, 0.0, 2.5 * k], **change(k)}
            group, item = Dataset(), Dataset()
            item.ImagePositionPatient = elements["ImagePositionPatient"]
            group.PlanePositionSequence = [item]
            turned = Dataset()
            turned.ImageOrientationPatient = elements.get("ImageOrientationPatient", [1, 0, 0, 0, 1, 0])
            group.PlaneOrientationSequence = [turned]
            values = Dataset()
            values.RescaleSlope, values.RescaleIntercept = 1, -1024
            group.PixelValueTransformationSequence = [values]
            per_frame.append(group)
        shared, measures = Dataset(), Dataset()
        measures.PixelSpacing = [0.8, 0.7]
        shared.PixelMeasuresSequence = [measures]
        return make_dicom(
            VALUES[order],
            PerFrameFunctionalGroupsSequence=pydicom.Sequence(per_frame),
            SharedFunctionalGroupsSequence=pydicom.Sequence([shared]),
        )

    return make


def test_frames_of_a_file_are_a_volume(enhanced, make_series):
    path = enhanced()
    assert is_volume(path)
    volume, same = read_volume(path), read_volume(make_series(VALUES))
    assert np.array_equal(volume.values, same.values) and np.allclose(volume.affine, same.affine)
    assert volume.spacing == pytest.approx(same.spacing) and volume.modality == "CT"
    assert volume.details["frames"] == (1, 3, 4, 0, 2)
    assert np.array_equal(volume.slice_image(2, "abdomen").pixels, same.slice_image(2, "abdomen").pixels)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda k: {"ImagePositionPatient": [0, 0, 2.5 * max(k, 1)]}, "same position"),
        (lambda k: {"ImagePositionPatient": [0, 0, 2.5 * (k + 2 * (k > 1))]}, "2 missing between"),
        (lambda k: {"ImageOrientationPatient": [0, 1, 0, 1, 0, 0] if k == 2 else [1, 0, 0, 0, 1, 0]}, "differ in"),
        (lambda k: {"ImagePositionPatient": [0.0, 0.0]}, "does not say where frame"),
    ],
)
def test_frames_that_are_no_volume(enhanced, change, words):
    path = enhanced(change)
    assert not is_volume(path)
    with pytest.raises(InputError, match=words) as caught:
        read_volume(path)
    assert "\n" not in str(caught.value) and "Secret" not in str(caught.value)


def test_what_is_a_volume(make_nifti, tmp_path):
    assert is_volume(make_nifti(VALUES.astype(np.int16), "LPS", (1.0, 1.0, 2.0)))
    for name, content in {"a.png": b"\x89PNG\r\n\x1a\n", "b.nii.gz": b"\x1f\x8bxx", "c": b""}.items():
        (tmp_path / name).write_bytes(content)
        assert not is_volume(tmp_path / name)
    assert not is_volume(tmp_path / "missing")
    buffer = io.BytesIO()
    zipfile.ZipFile(buffer, "w").close()
    (tmp_path / "empty.zip").write_bytes(buffer.getvalue())
    assert is_volume(tmp_path / "empty.zip")
