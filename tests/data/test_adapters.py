"""The three readers on made-up folders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unibiomed.data import load_records
from unibiomed.data.records import Record
from unibiomed.errors import DataError

HEAD = 'name = "toy"\nlicence = "CC0"\nadapter = "images"\nmodality = "CT"\nsite = "abdomen"\n'


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((6, 8), 7, dtype=np.uint8)).save(path)


def make(root: Path, entry: str, images: tuple[str, ...] = ("p1_1.png", "p1_2.png", "p2_1.jpg")) -> Path:
    folder = root / "toy"
    for name in images:
        image(folder / "images" / name)
        image(folder / "masks" / f"{name[:-4]}.png")
    (folder / "dataset.toml").write_text(entry)
    return folder


def read(root: Path) -> dict[str, Record]:
    return {record.key.removeprefix("toy/"): record for record in load_records(root, ["toy"])}


def test_images_and_masks(tmp_path: Path) -> None:
    targets = (
        '[[targets]]\nname = "liver"\nvalues = [7]\n'
        '[[targets]]\nname = "edema"\nabnormal = true\nmissing = "absent"\nmasks = ["extra/{stem}_e.png"]\n'
        '[[targets]]\nname = "scar"\nmissing = "unknown"\nmasks = ["extra/{stem}_s.png", "extra/{stem}_t.png"]\n'
    )
    folder = make(tmp_path, HEAD + "group = { pattern = '^(p\\d)_' }\n" + targets)
    image(folder / "extra" / "p1_1_s.png")
    image(folder / "extra" / "p1_1_t.png")
    image(folder / "extra" / "p1_2_t.png")
    records = read(tmp_path)
    assert list(records) == ["p1_1", "p1_2", "p2_1"]
    one, two, other = records.values()
    assert [region.target for region in one.regions] == ["liver", "edema", "scar"]
    assert one.regions[0].load((6, 8)).all()
    assert one.regions[1].mask is None
    assert one.regions[1].abnormal
    assert len(one.regions[2].further_masks) == 1
    assert two.regions[2].mask == folder / "extra" / "p1_2_t.png"
    assert [region.target for region in other.regions] == ["liver", "edema"]
    assert (one.group, other.group) == ("p1", "p2")
    assert one.split == two.split != other.split


def test_a_lost_mask_is_an_error_that_names_it(tmp_path: Path) -> None:
    folder = make(tmp_path, HEAD + '[[targets]]\nname = "liver"\nvalues = [7]\n')
    (folder / "masks" / "p1_2.png").unlink()
    with pytest.raises(DataError, match=r"toy/p1_2: no mask file of 'liver'; restore it, or .* missing = \"absent\""):
        read(tmp_path)


def test_tables_are_joined_by_file_name(tmp_path: Path) -> None:
    entry = (
        HEAD.replace('modality = "CT"', 'modality = { column = "m", map = { MR_T1 = "MRI", PT = "PET" } }')
        + 'group = { columns = ["patient", "age"] }\nlabel = { column = "type", map = { b = "Benign lesion" } }\n'
        + 'spacing = { column = "mm", unless = "^p2" }\nattributes = { "cell count" = "n", "grade" = "g" }\n'
        + '[[tables]]\nfile = "a.csv"\nkey = "id"\n[[tables]]\nfile = "b.jsonl"\nkey = "file"\n'
    )
    folder = make(tmp_path, entry)
    (folder / "a.csv").write_text('id,type,n,g\np1_1.png,b,3,"two\nlines"\np1_2,b,4,\nimages/p2_1.bmp,,5,x\n')
    rows = [
        {
            "file": f"images/{stem}.png",
            "m": "PT" if stem == "p2_1" else "MR_T1",
            "patient": stem[:2],
            "age": 5,
            "mm": mm,
        }
        for stem, mm in (("p1_1", [0.5, 2, 9]), ("p1_2", [1, 1]), ("p2_1", None))
    ]
    (folder / "b.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    records = read(tmp_path)
    assert [record.modality for record in records.values()] == ["MRI", "MRI", "PET"]
    assert [record.label for record in records.values()] == ["Benign lesion", "Benign lesion", None]
    assert records["p1_1"].attributes == {"cell count": "3", "grade": "two lines"}
    assert records["p1_2"].attributes == {"cell count": "4"}
    assert records["p1_1"].spacing == (2.0, 0.5)
    assert records["p2_1"].spacing is None
    assert records["p1_1"].group == records["p1_2"].group == "p1, 5"


def test_blocks_do_not_cross_labels(tmp_path: Path) -> None:
    entry = HEAD + 'group = { block = 10 }\nlabel = { column = "t" }\n[[tables]]\nfile = "t.csv"\nkey = "id"\n'
    folder = make(tmp_path, entry, ("1.png", "9.png", "10.png", "11.png", "12.png"))
    (folder / "t.csv").write_text("id,t\n1,A\n9,A\n10,A\n11,B\n12,B\n")
    records = read(tmp_path)
    assert records["1"].group == records["9"].group
    assert records["11"].group == records["12"].group
    assert len({record.group for record in records.values()}) == 3


def test_near_duplicates_join_or_drop(tmp_path: Path) -> None:
    names = tuple(f"{kind}_{i}.png" for kind in ("a", "b") for i in range(6))
    entry = HEAD + 'near_duplicates = "twins.txt"\nlabel = { pattern = "^(.)" }\n'
    folder = make(tmp_path, entry, names)
    (folder / "twins.txt").write_text("# twins\na_0.jpg a_3.png\n\na_1.png b_1.png b_2.png\n")
    records = read(tmp_path)
    assert len(records) == 12
    assert records["a_0"].group == records["a_3"].group == "a_0"
    assert records["a_1"].split == records["b_1"].split == records["b_2"].split
    (folder / "dataset.toml").write_text("drop_mixed_labels = true\n" + entry)
    assert set(read(tmp_path)) == {name[:-4] for name in names} - {"a_1", "b_1", "b_2"}


def test_official_split_and_twins_across_it(tmp_path: Path) -> None:
    entry = (
        HEAD
        + 'near_duplicates = "t.txt"\nsplit = { pattern = "^(train|new)_", map = { train = "train", new = "test" } }\n'
    )
    folder = make(tmp_path, entry, ("train_1.png", "train_2.png", "new_1.png"))
    (folder / "t.txt").write_text("train_2.png new_1.png\n")
    assert {stem: r.split for stem, r in read(tmp_path).items()} == {
        "new_1": "test",
        "train_1": "train",
        "train_2": "test",
    }


def test_questions(tmp_path: Path) -> None:
    entry = (
        HEAD.replace('"images"', '"questions"').replace(
            'modality = "CT"', 'modality = { column = "organ", map = { C = "X-ray" } }'
        )
        + "shared_images = true\n[modality_words]\n'\\bCT\\b' = \"CT\"\n'\\bMRI\\b' = \"MRI\"\n"
        + '[[tables]]\nfile = "train.json"\nkey = "image"\nsplit = "train"\nkeep = { phrase = ["free"] }\n'
        + '[[tables]]\nfile = "test.json"\nkey = "image"\nsplit = "test"\n'
    )
    folder = make(tmp_path, entry)
    common = {"organ": "C", "answer_type": "CLOSED "}
    train = [
        {"qid": 1, "image": "p1_1.png", "question": " Is this  an MRI?", "answer": "no", "phrase": "free", **common},
        {"qid": 2, "image": "p1_1.png", "question": "How many?", "answer": 2, "phrase": "free", **common},
        {"qid": 3, "image": "p1_1.png", "question": "Left out?", "answer": "yes", "phrase": "frame", **common},
        {
            "qid": 4,
            "image": "p1_2.png",
            "question": "What does the CT show?",
            "answer": "cyst",
            "phrase": "free",
            **common,
        },
    ]
    test = [
        {"qid": 5, "image": "p1_1.png", "question": "Where?", "answer": "here", "organ": "C", "answer_type": "OPEN"}
    ]
    (folder / "train.json").write_text(json.dumps(train))
    (folder / "test.json").write_text(json.dumps(test))
    records = read(tmp_path)
    assert list(records) == ["p1_1.test", "p1_1.train", "p1_2.train"]
    assert [q.qid for q in records["p1_1.train"].questions] == ["1", "2"]
    assert records["p1_1.train"].questions[0].question == "Is this an MRI?"
    assert records["p1_1.train"].questions[1].answer == "2"
    assert records["p1_1.train"].questions[1].kind == "closed"
    assert records["p1_1.train"].modality == "X-ray"
    assert records["p1_2.train"].modality == "CT"
    assert records["p1_1.test"].group == records["p1_1.train"].group
    (folder / "dataset.toml").write_text(entry.replace("shared_images = true\n", ""))
    with pytest.raises(DataError, match=r"toy/p1_1: is in tables of two splits.*or set shared_images = true"):
        read(tmp_path)
    test[0]["image"] = "gone.png"
    (folder / "test.json").write_text(json.dumps(test))
    with pytest.raises(DataError, match=r"toy/test\.json.*gone"):
        read(tmp_path)


def test_reports(tmp_path: Path) -> None:
    entry = (
        HEAD.replace('"images"', '"reports"')
        + 'text = ["findings", "impression"]\n[[tables]]\nfile = "r.csv"\nkey = "uid"\n'
    )
    folder = make(tmp_path, entry)
    (folder / "r.csv").write_text(
        "uid,findings,impression\n1,Clear lungs. XXXX seen. No effusion..,Normal.\n2,,Stable XXXX.\n3,,Normal chest.\n"
    )
    records = read(tmp_path)
    assert list(records) == ["1", "3"]
    assert records["1"].text == "Findings: Clear lungs. No effusion. Impression: Normal."
    assert records["3"].text == "Impression: Normal chest."
    assert records["1"].image is None


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ('label = { column = "type" }\n', "column 'type'"),
        ('group = { pattern = "^(x)" }\n', "does not fit"),
        ("group = { block = 4 }\n", "not a number"),
        ('near_duplicates = "none.txt"\n', "none.txt"),
        ('[[tables]]\nfile = "none.csv"\nkey = "id"\n', "none.csv"),
        ('[[tables]]\nfile = "bad.json"\nkey = "id"\n', "bad.json"),
        ('[[tables]]\nfile = "list.json"\nkey = "id"\n', "list.json"),
        ('[[tables]]\nfile = "rows.csv"\nkey = "id"\n', "column 'id'"),
        ('label = { pattern = "^(p)", map = { q = "Q" } }\n', "'p' is not one of q"),
        ('[[targets]]\nname = "liver"\nmasks = ["none/{stem}.png"]\n', "toy/none: mask folder"),
        ('images = "photos"\n', "toy/photos"),
    ],
)
def test_files_that_do_not_fit_are_named(tmp_path: Path, extra: str, words: str) -> None:
    folder = make(tmp_path, HEAD + extra)
    (folder / "bad.json").write_text("[" * 100_000)
    (folder / "list.json").write_text("[1, 2]")
    (folder / "rows.csv").write_text("name,x\na,1\n")
    with pytest.raises(DataError, match=words) as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


def test_two_images_of_one_name_and_no_image(tmp_path: Path) -> None:
    folder = make(tmp_path, HEAD, ("a.png", "a.jpg"))
    with pytest.raises(DataError, match="named 'a'"):
        read(tmp_path)
    for path in (folder / "images").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="no records"):
        read(tmp_path)


ABSENT = (
    "[[targets]]\nname = 'scar'\nmasks = []\nabnormal = true\n"
    "absent_if = { type = ['normal', 'healthy'], view = ['AP'] }\n"
)


def test_absence_depends_on_columns(tmp_path: Path) -> None:
    tables = '[[tables]]\nfile = "t.csv"\nkey = "id"\n'
    drawn = "[[targets]]\nname = 'edema'\nmasks = ['extra/{stem}.png']\nabsent_if = { type = ['normal'] }\n"
    folder = make(tmp_path, HEAD + tables + ABSENT + drawn)
    image(folder / "extra" / "p2_1.png")
    (folder / "t.csv").write_text("id,type,view\np1_1,normal,AP\np1_2,normal,PA\np2_1,ill,AP\n")
    records = read(tmp_path)
    known = {name: {r.target: r.absent for r in record.regions} for name, record in records.items()}
    assert known == {"p1_1": {"scar": True, "edema": True}, "p1_2": {"edema": True}, "p2_1": {"edema": False}}
    assert records["p1_1"].regions[0].abnormal
    (folder / "t.csv").write_text("id,type,view\np1_1,normal,AP\np1_2,normal,PA\n")
    with pytest.raises(DataError, match="toy/p2_1: no table row with a column 'type'"):
        read(tmp_path)


def test_values_without_a_target_are_ignored_where_the_entry_says_so(tmp_path: Path) -> None:
    targets = "[[targets]]\nname = 'liver'\nvalues = [1]\n"
    folder = make(tmp_path, HEAD + targets)  # the masks hold 7
    with pytest.raises(DataError, match="value 7 belongs to no target"):
        read(tmp_path)["p1_1"].check_masks()
    (folder / "dataset.toml").write_text(HEAD + "ignore_values = [7]\n" + targets)
    record = read(tmp_path)["p1_1"]
    record.check_masks()
    assert not record.regions[0].load((6, 8)).any()


def test_sets_with_one_name_for_the_split_agree(tmp_path: Path) -> None:
    """A patient is on the same side in each set, however few groups a set has."""
    sides = {}
    for number, patients in ((1, range(4)), (2, range(60))):
        root = tmp_path / str(number)
        entry = HEAD + "split_with = 'eyes'\ngroup = { pattern = '^p(\\d+)_' }\n"
        make(root, entry, tuple(f"p{patient}_{number}.png" for patient in patients))
        sides[number] = {record.group: record.split for record in read(root).values()}
    assert sides[1].items() <= sides[2].items()
    assert set(sides[2].values()) == {"train", "val", "test"}


def test_images_outside_a_split_rule_are_split_by_hash(tmp_path: Path) -> None:
    names = tuple(f"a_{i}.png" for i in range(3)) + tuple(f"b_{i}.png" for i in range(10))
    entry = HEAD + "split = { value = 'train', unless = '^b' }\n"
    folder = make(tmp_path, entry, names)
    splits = {name: record.split for name, record in read(tmp_path).items()}
    assert {split for name, split in splits.items() if name.startswith("a")} == {"train"}
    assert sorted(split for name, split in splits.items() if name.startswith("b")) == ["test"] * 2 + ["train"] * 8
    tested = next(name for name, split in splits.items() if split == "test")
    (folder / "twins.txt").write_text(f"a_1.png {tested}.png\n")
    (folder / "dataset.toml").write_text(entry + "near_duplicates = 'twins.txt'\n")
    assert read(tmp_path)[tested].split == "train"
