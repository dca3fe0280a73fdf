"""The data sets of public bug reports in the shared folder: each has a README that says what is right."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from unibiomed.data import Record, load_records
from unibiomed.data.add import Added, add_dataset
from unibiomed.data.check_records import read_or_tell
from unibiomed.data.entries import read_entry


@pytest.fixture
def copied(shared_data: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Copy a case, as `data add` writes into its folder; a description that is there is taken away."""

    def copy(name: str) -> Path:
        source = shared_data.parent / "cases" / name
        if not source.is_dir():
            pytest.skip(f"no cases: {source} is not a folder")
        shutil.copytree(source, tmp_path / source.name)
        (tmp_path / source.name / "dataset.toml").unlink(missing_ok=True)
        return tmp_path / source.name

    return copy


def add(folder: Path, **options: str) -> tuple[Added, list[Record]]:
    added = add_dataset(folder, **{"site": "abdomen", "modality": "CT", **options})
    return added, list(load_records(folder.parent, [folder.name]))


def test_the_channels_of_4d_volumes(copied):
    added, records = add(copied("data-4d-nnunet/Task900_Mine"), modality=None)
    assert added.proposal.entry["channel"] == 0 and added.proposal.entry["modality"] == "MRI"
    assert any("4 channels (0 FLAIR, 1 T1w, 2 t1gd, 3 T2w)" in question for question in added.proposal.questions)
    assert len(records) == 24 and records[0].load_image().ndim == 3


def test_one_bad_row_stops_nothing(copied):
    folder = copied("data-coco-one-bad-row/set")
    added = add_dataset(folder, site="abdomen", modality="CT")
    records, problems = read_or_tell(read_entry(added.path, folder.parent))
    assert len(records) == 24 and len(problems) == 3
    assert any("and 2 more" in question for question in added.proposal.questions)
    known = [record for record in records if record.regions]
    assert len(known) == 23, "nothing is known of the target whose outline cannot be read"


@pytest.mark.parametrize("kind", ["backslash", "absolute"])
def test_paths_of_windows_and_of_another_machine(copied, kind):
    _, records = add(copied(f"data-coco-windows-paths/{kind}"))
    assert len(records) == 24
    assert all(record.load_image().shape == (*record.regions[0].load().shape, 3) for record in records)
    assert not any("anna" in record.key for record in records)


def test_dicom_images_with_masks(copied):
    folder = copied("data-dicom-2d/set")
    added, records = add(folder, modality=None)
    assert added.proposal.entry["modality"] == "X-ray"
    assert len(records) == 24 and all(record.regions[0].load().any() for record in records)
    assert records[0].load_image().std() > 5


def test_grey_masks_saved_as_colours(copied):
    _, records = add(copied("data-masks-grey-as-rgb/rgb"))
    assert len(records) == 24 and all(record.regions[0].load().any() for record in records)


def test_the_store_of_monai_label(copied):
    added, records = add(copied("data-monailabel/set"))
    assert [target["name"] for target in added.proposal.entry["targets"]] == ["spleen"]
    assert len(records) == 36
