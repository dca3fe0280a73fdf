from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from unibiomed.data import iter_records
from unibiomed.data.adapters import volumes
from unibiomed.data.scene import Scene
from unibiomed.data.shards import pack_record
from unibiomed.images import read_volume

TARGETS = (
    '[[targets]]\nname = "liver"\nvalues = [1, 2]\nmasks = ["labels/{stem}.nii"]\n'
    '[[targets]]\nname = "tumor"\nvalues = [2]\nabnormal = true\nmasks = ["labels/{stem}.nii"]\n'
    '[[targets]]\nname = "spleen"\nmasks = ["spleen/{stem}.nii"]\nmissing = "unknown"\n'
)


def made(toy, count=3):
    rng = np.random.default_rng(0)
    for k in range(count):
        values = rng.integers(-1000, 1000, (5, 6, 7)).astype(np.int16)
        labels = np.zeros((5, 6, 7), dtype=np.uint8)
        labels[2:, 3:, 2:5] = 1
        labels[3, 4, 4] = 2
        toy.volume(f"images/c{k}_0000.nii.gz", values)
        # The labels are stored from head to feet, and with their axes in another order.
        turned = nib.as_closest_canonical(nib.Nifti1Image(labels, np.diag([1.0, 1, 3, 1])))
        turned = turned.as_reoriented(nib.orientations.axcodes2ornt("IPR"))
        (toy.folder / "labels").mkdir(exist_ok=True)
        nib.save(turned, toy.folder / "labels" / f"c{k}.nii")
    toy.volume("spleen/c0.nii", np.ones((5, 6, 7), dtype=np.uint8))


@pytest.mark.parametrize("ending", ["nii", "nrrd", "mha"])
def test_slices_of_volumes(toy, worded, ending):
    made(toy)
    if ending != "nii":
        for path in sorted(toy.folder.glob("*/*.nii*")):
            worded(path.with_name(f"{path.name.split('.')[0]}.{ending}"), path, ending, packed=True)
            path.unlink()
    toy.entry("volumes", "stem = '(.+)_0000$'\n" + TARGETS.replace(".nii", f".{ending}"))
    records = toy.read()
    assert len(records) == 21
    assert list(records)[:2] == ["c0_0000@0", "c0_0000@1"]
    one, other = records["c0_0000@4"], records["c1_0000@4"]
    assert (one.slice_index, one.group, one.spacing, one.modality) == (4, "c0_0000", (1.0, 1.0), "CT")
    assert [region.target for region in one.regions] == ["liver", "tumor", "spleen"]
    assert [region.target for region in other.regions] == ["liver", "tumor"]
    assert len({record.split for name, record in records.items() if name.startswith("c1")}) == 1
    image, labels = one.load_image(), read_volume(toy.folder / "labels" / f"c0.{ending}")
    assert image.shape == (6, 5, 3)
    assert (one.regions[1].load(image.shape[:2]) == (labels.labels(4) == 2)).all()
    assert one.regions[1].load().sum() == 1 and one.regions[0].load().sum() == 9
    assert records["c0_0000@0"].regions[2].load().all() and not records["c0_0000@0"].regions[0].load().any()


def test_every_nth_slice_and_empty_slices(toy):
    made(toy, 1)
    toy.entry("volumes", "stem = '(.+)_0000$'\nevery = 3\n" + TARGETS)
    assert list(toy.read()) == ["c0_0000@0", "c0_0000@3", "c0_0000@6"]
    no_spleen = TARGETS[: TARGETS.rindex("[[targets]]")]
    toy.entry("volumes", "stem = '(.+)_0000$'\nskip_empty = true\n" + no_spleen)
    assert list(toy.read()) == ["c0_0000@2", "c0_0000@3", "c0_0000@4"]
    tumor = no_spleen[no_spleen.rindex("[[targets]]") :]
    toy.entry("volumes", "stem = '(.+)_0000$'\nskip_empty = true\n" + tumor)
    assert list(toy.read()) == ["c0_0000@4"]


def test_voxels_are_read_only_where_empty_slices_are_skipped(toy, monkeypatch):
    made(toy, 2)
    toy.entry("volumes", "stem = '(.+)_0000$'\n" + TARGETS)
    opened = []
    monkeypatch.setattr(volumes, "read_volume", lambda path: opened.append(path.name) or read_volume(path))
    records = iter_records(toy.root, ["toy"])
    assert next(records).key == "toy/c0_0000@0"
    assert opened == []
    toy.entry("volumes", "stem = '(.+)_0000$'\nskip_empty = true\n" + TARGETS)
    records = iter_records(toy.root, ["toy"])
    assert next(records).key == "toy/c0_0000@0", "the spleen is on every slice"
    assert opened == ["c0.nii", "c0.nii"]


def test_labels_on_another_grid_are_refused(toy, refused):
    toy.volume("images/a.nii", np.zeros((5, 6, 7), dtype=np.int16))
    toy.volume("labels/a.nii", np.zeros((5, 6, 8), dtype=np.uint8))
    toy.entry("volumes", TARGETS.replace("spleen/", "labels/"))
    refused(r"toy/labels/a.nii: the label volume has other voxels.*\(8, 6, 5\) and \(7, 6, 5\)")
    shifted = np.diag([1.0, 1, 3, 1])
    shifted[0, 3] = 2
    toy.volume("labels/a.nii", np.zeros((5, 6, 7), dtype=np.uint8), shifted)
    refused("lies elsewhere")
    toy.text("labels/a.nii", "no volume at all" * 50)
    refused("toy/labels/a.nii: not a volume")


def test_the_modality_comes_from_the_entry_or_the_header(toy, refused, monkeypatch):
    toy.volume("images/a.nii", np.zeros((5, 6, 7), dtype=np.int16))
    toy.entry("volumes", modality=None)
    refused("toy/a: the file does not tell its modality")
    header = volumes.read_volume_header
    monkeypatch.setattr(volumes, "read_volume_header", lambda *asked: (header(*asked)[0], "PET"))
    assert toy.read()["a@0"].modality == "PET"
    toy.entry("volumes")
    refused("its header says PET, the entry CT")
    toy.entry("images", modality=None)
    refused("lacks a key")


def test_one_volume_of_several_in_a_file(toy, refused):
    values = np.random.default_rng(0).integers(0, 255, (5, 6, 7, 3)).astype(np.uint8)
    toy.volume("images/a.nii.gz", values)
    toy.volume("labels/a.nii", np.ones((5, 6, 7), dtype=np.uint8))
    shown = []
    for channel in range(3):
        toy.entry("volumes", f"channel = {channel}\n" + TARGETS.replace("spleen/", "labels/"))
        record = toy.read()["a@2"]
        shown.append(record.load_image()[..., 0])
        toy.volume("alone.nii", values[..., channel])
        assert (shown[-1] == read_volume(toy.folder / "alone.nii").slice_image(2).pixels[..., 0]).all()
        assert record.regions[0].load(shown[-1].shape).all()
        assert pack_record(record).channel is None
    assert not (shown[0] == shown[1]).all()
    toy.entry("volumes", "channel = 3")
    refused(r"toy/images/a\.nii\.gz: channel 3 does not exist: choose 0 to 2")
    toy.entry("volumes")
    refused(r"toy/images/a\.nii\.gz: this NIfTI file has the shape 5x6x7x3: choose a channel, or save")
    toy.entry("volumes", "channel = -1")
    refused("channel is negative")
    toy.entry("images", "channel = 0")
    refused("not for volumes")


def test_windows_of_slices(toy):
    values = np.full((20, 20, 4), -1000, dtype=np.int16)
    values[5:15, 5:15] = 40
    values[5:15, 5:15, 1] = 80
    toy.volume("images/a.nii", values)
    for site, window, grey in (
        ("abdomen", "", 128),
        ("chest", "", round(255 * (600 + 40 + 750) / 1500)),
        ("brain", "", 128),
        ("abdomen", 'window = "40,80"', 128),
        ("pelvis", 'window = "lung"', round(255 * (600 + 40 + 750) / 1500)),
    ):
        toy.entry("volumes", window, site=site)
        assert toy.read()["a@0"].load_image().max() == grey
    toy.entry("volumes", modality="MRI")
    values[:] = 0
    values[5:15, 5:15] = 100
    values[5:15, 5:15, 1] = 200
    values[5:15, 5:15, 2] = 300
    toy.volume("images/b.nii", values)
    greys = [int(toy.read()[f"b@{k}"].load_image().max()) for k in range(3)]
    assert greys == [0, 128, 255], "one range for the volume, so that slices stay comparable"


def test_dicom_folders_and_pictures_of_volumes(toy, shared_data):
    series = shared_data / "volumes" / "abdomen_ct"
    if not series.is_dir():
        pytest.skip("no real volumes")
    (toy.folder / "images").mkdir()
    (toy.folder / "images" / "one").symlink_to(series / "example_ct_dicom")
    (toy.folder / "images" / "empty").mkdir()
    (toy.folder / "labels").mkdir()
    (toy.folder / "labels" / "one.nii.gz").symlink_to(series / "example_seg_dicom.nii.gz")
    toy.entry(
        "volumes",
        '[[targets]]\nname = "liver"\nvalues = [5]\nmasks = ["labels/{stem}.nii.gz"]\n',
        modality=None,
    )
    records = toy.read()
    assert len(records) == 20
    record = records["one@10"]
    assert record.modality == "CT" and record.spacing == pytest.approx((0.977, 0.977), abs=1e-3)
    liver = record.regions[0].load((512, 512))
    grey = record.load_image()[..., 0][liver]
    assert liver.sum() > 1000 and 130 < grey.mean() < 200, "about 85 HU in the abdominal window"


def test_flat_masks_are_not_volumes(toy, refused):
    toy.volume("images/a.nii", np.zeros((5, 6, 7), dtype=np.int16))
    toy.image("labels/a.png")
    toy.entry("volumes", '[[targets]]\nname = "liver"\nmasks = ["labels/{stem}.png"]\n')
    refused("toy/labels/a.png: not a volume")


def test_sides_of_sagittal_slices_are_not_the_patients(toy):
    """Left of such a picture is the front."""
    shape = (4, 20, 20)
    labels = np.zeros(shape, dtype=np.uint8)
    labels[:, 2:6, 8:12] = 1
    for name, sizes in (("sagittal", [5.0, 1, 1, 1]), ("axial", [1.0, 1, 5, 1])):
        axes = (0, 1, 2) if name == "sagittal" else (1, 2, 0)
        toy.volume(f"images/{name}.nii", np.zeros(shape, dtype=np.int16).transpose(axes), np.diag(sizes))
        toy.volume(f"labels/{name}.nii", labels.transpose(axes), np.diag(sizes))
    toy.entry("volumes", '[[targets]]\nname = "liver"\nmasks = ["labels/{stem}.nii"]\n')
    said = {}
    for name, record in toy.read().items():
        mask = record.regions[0].load(record.load_image().shape[:2])
        facts = Scene(record, {0: mask}).facts(0)
        said[name.partition("@")[0]] = (facts.side in ("left", "right"), bool(facts.patient_side))
    assert said == {"sagittal": (True, False), "axial": (True, True)}
