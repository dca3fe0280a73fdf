"""Records come back from rows as they were, and no damage to a row goes unnoticed."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unibiomed.data.records import SPLITS, QuestionAnswer, Record, Region
from unibiomed.data.shards import (
    SCHEMA,
    allowed_bad,
    pack_record,
    record_to_row,
    row_to_record,
    seal,
    write_rows,
)
from unibiomed.errors import DataError, OutputError
from unibiomed.findings import rle_encode
from unibiomed.images.modality import MODALITIES
from unibiomed.train.squares import read_square

MakeRecords = Callable[..., list[Record]]
words = st.text(min_size=1, max_size=12).filter(str.strip)
noted = st.dictionaries(words, st.text(max_size=8), max_size=3)


def encoded(pixels: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=kind, **options)
    return buffer.getvalue()


@st.composite
def regions(draw: st.DrawFn, target: str, height: int, width: int) -> Region:
    kind = draw(st.sampled_from(["mask", "box", "absent"]))
    mask, box = None, None
    top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    bottom, right = draw(st.integers(top + 1, height)), draw(st.integers(left + 1, width))
    if kind == "mask":
        inside = np.zeros((height, width), dtype=bool)
        inside[top:bottom, left:right] = True
        mask = rle_encode(inside)
    elif kind == "box":
        box = (left, top, right, bottom)
    return Region(target, mask, abnormal=draw(st.booleans()), attributes=draw(noted), box=box)


@st.composite
def records(draw: st.DrawFn) -> Record:
    height, width = draw(st.integers(1, 20)), draw(st.integers(1, 20))
    shape = (height, width, 3) if draw(st.booleans()) else (height, width)
    pixels = np.random.default_rng(draw(st.integers(0, 9))).integers(0, 256, shape, dtype=np.uint8)
    image = encoded(pixels, draw(st.sampled_from(["PNG", "JPEG"]))) if draw(st.booleans()) else None
    targets = draw(st.lists(words, max_size=3, unique=True)) if image else []
    asked = st.builds(QuestionAnswer, words, words, st.sampled_from(["open", "closed"]), st.text(max_size=4))
    external = draw(st.booleans())
    side = st.floats(0, 999, exclude_min=True)
    return Record(
        key=f"set/{draw(words)}",
        image=image,
        dataset="set",
        modality=draw(st.sampled_from(MODALITIES)),
        site=draw(words),
        group=draw(words),
        split="test" if external else draw(st.sampled_from(SPLITS)),
        regions=tuple(draw(regions(target, height, width)) for target in targets),
        label=draw(st.none() | words),
        abnormal_known=draw(st.booleans()),
        attributes=draw(noted),
        questions=tuple(draw(st.lists(asked, max_size=2))) if image else (),
        text=draw(words if image is None else st.none() | words),
        spacing=draw(st.none() | st.tuples(side, side)),
        label_needs_finding=draw(st.booleans()),
        licence=draw(st.text(max_size=9)),
        external=external,
    )


@settings(max_examples=30)
@given(st.lists(records(), min_size=1, max_size=3))
def test_round_trip_through_a_file(tmp_path_factory: pytest.TempPathFactory, several: list[Record]) -> None:
    path = tmp_path_factory.mktemp("shards") / "a.parquet"
    groups, triplets = write_rows(path, [record_to_row(record) for record in several])
    assert groups == (len(several),)
    assert triplets == sum(sum(1 for t in record.triplets() if t) for record in several)
    rows = pq.read_table(path).to_pylist()
    assert [row_to_record(row) for row in rows] == several
    assert [record_to_row(row_to_record(row)) for row in rows] == rows


def test_packing_resolves_files(tmp_path: Path, make_records: MakeRecords) -> None:
    record = make_records(tmp_path, count=1)[0]
    further = tmp_path / "more.png"
    Image.fromarray(np.eye(16, 24, dtype=np.uint8)).save(further)
    first = replace(record.regions[0], values=None, further_masks=(further,), objects=True)
    record = replace(record, regions=(first, *record.regions[1:]))
    packed = row_to_record(record_to_row(record))
    assert isinstance(record.image, Path)
    assert packed.image == record.image.read_bytes()
    assert np.array_equal(packed.load_image(), record.load_image())
    for was, region in zip(record.regions, packed.regions, strict=True):
        assert np.array_equal(was.load((16, 24)), region.load((16, 24)))
        assert (was.target, was.abnormal, was.absent) == (region.target, region.abnormal, region.absent)
    assert replace(packed, image=None, regions=(), text="x") == replace(record, image=None, regions=(), text="x")


def test_an_empty_mask_is_known_absence(tmp_path: Path, make_records: MakeRecords) -> None:
    record = make_records(tmp_path, count=1)[0]
    Image.fromarray(np.zeros((16, 24), dtype=np.uint8)).save(record.regions[0].mask)
    record = replace(record, regions=record.regions[:1], label=None)
    assert len(list(record.triplets())) == 1
    row = record_to_row(record)
    assert row["triplets"] == 0
    assert row_to_record(row).regions == (Region("liver", None),)


def test_a_value_that_no_target_has_is_not_taken_for_background(tmp_path: Path, make_records: MakeRecords) -> None:
    """A tumour that nobody described would be taught as healthy liver."""
    record = make_records(tmp_path, count=1)[0]
    record.check_masks()
    first = replace(record, regions=record.regions[:1])
    with pytest.raises(DataError, match=r"train_0000_mask.png: value 2 belongs to no target; add one to the entry"):
        record_to_row(first)
    with pytest.raises(DataError, match="value 2 belongs to no target"):
        read_square(first, 32)
    # a target of all values leaves none undescribed
    replace(first, regions=(*first.regions, replace(record.regions[1], values=None))).check_masks()


@pytest.mark.parametrize("kind", ["deep", "palette", "alpha", "turned", "bmp", "deep colour"])
def test_other_pictures_become_png_of_what_is_seen(tmp_path: Path, make_records: MakeRecords, kind: str) -> None:
    rng = np.random.default_rng(3)
    path = tmp_path / "a.img"
    grey = rng.integers(0, 256, (16, 24), dtype=np.uint8)
    colours = rng.integers(0, 256, (16, 24, 3), dtype=np.uint8)
    if kind == "deep":
        Image.fromarray(grey.astype(np.uint16) * 200).save(path, format="PNG")
    elif kind == "palette":
        Image.fromarray(colours).convert("P").save(path, format="PNG")
    elif kind == "alpha":
        Image.fromarray(np.dstack([colours, grey])).save(path, format="PNG")
    elif kind == "turned":
        turn = Image.Exif()
        turn[0x0112] = 3
        Image.fromarray(colours).save(path, format="JPEG", exif=turn)
    elif kind == "bmp":
        Image.fromarray(colours).save(path, format="BMP")
    else:
        path.write_bytes(deep_png(rng.integers(0, 65536, (16, 24, 3), dtype=np.uint16)))
    record = replace(make_records(tmp_path, count=1)[0], image=path)
    packed = pack_record(record)
    assert isinstance(packed.image, bytes)
    assert packed.image != path.read_bytes()
    assert packed.image.startswith(b"\x89PNG")
    assert np.array_equal(packed.load_image(), record.load_image())


def deep_png(pixels: np.ndarray) -> bytes:
    """A PNG of 16 bits a colour, which Pillow cannot write."""
    import struct
    import zlib

    height, width, _ = pixels.shape
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(lines))]
    chunks = [*parts, (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


def test_grey_jpeg_stays_as_it_is(tmp_path: Path, make_records: MakeRecords) -> None:
    record = make_records(tmp_path, count=1)[0]
    content = encoded(np.arange(384, dtype=np.uint8).reshape(16, 24), "JPEG")
    assert pack_record(replace(record, image=content)).image == content


def test_shrinking_keeps_everything_in_place(tmp_path: Path, make_records: MakeRecords) -> None:
    record = make_records(tmp_path, count=1)[0]
    pixels = np.zeros((40, 80), dtype=np.uint8)
    pixels[20:, 60:] = 250
    inside, speck = pixels > 0, np.zeros((40, 80), dtype=bool)
    speck[39, 0] = True
    record = replace(
        record,
        image=encoded(pixels),
        regions=(
            Region("liver", rle_encode(inside)),
            Region("stone", rle_encode(speck)),
            Region("tube", None, box=(60, 20, 80, 40)),
            Region("dot", None, box=(1, 1, 2, 2)),
        ),
    )
    packed = pack_record(record, size=20)
    small = packed.load_image()
    assert small.shape == (10, 20, 3)
    liver = packed.regions[0].load((10, 20))
    assert np.array_equal(liver, np.arange(10)[:, None] // 5 * (np.arange(20) // 15) > 0)
    assert np.array_equal(small[..., 0] > 125, liver)
    stone = packed.regions[1].load((10, 20))
    assert stone.sum() == 1
    assert stone[9, 0]
    assert packed.regions[2].box == (15, 5, 20, 10)
    assert packed.regions[3].box == (0, 0, 1, 1)
    assert packed.spacing == (2.0, 1.0)
    assert pack_record(record, size=80).image == record.image


def test_what_does_not_fit_is_refused_by_name(tmp_path: Path, make_records: MakeRecords) -> None:
    record = make_records(tmp_path, count=1)[0]
    assert isinstance(record.image, Path)
    whole = record.image.read_bytes()
    Image.fromarray(np.ones((5, 5), dtype=np.uint8)).save(tmp_path / "small.png")
    with pytest.raises(DataError, match=r"small\.png.*make them equal"):
        record_to_row(replace(record, regions=(Region("liver", tmp_path / "small.png"),)))
    with pytest.raises(DataError, match=r"toy/train_0000.*leaves the image"):
        record_to_row(replace(record, regions=(Region("liver", None, box=(0, 0, 25, 3)),)))
    with pytest.raises(DataError, match=r"toy/train_0000.*not Unicode"):
        record_to_row(replace(record, text="\ud800"))
    record.image.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"train_0000\.png"):
        record_to_row(record)
    record.image.unlink()
    with pytest.raises(DataError, match=r"train_0000\.png"):
        record_to_row(record)


def test_any_change_of_a_row_is_noticed(tmp_path: Path, make_records: MakeRecords) -> None:
    row = record_to_row(make_records(tmp_path, count=1)[0])
    assert set(row) == set(SCHEMA.names)
    changed: Any
    for name, value in row.items():
        if isinstance(value, bytes):
            changed = value[:-1] + bytes([value[-1] ^ 1])
        elif isinstance(value, str | list):
            changed = value[:-1]
        else:
            changed = "x" if value is None else not value if isinstance(value, bool) else value + 1
        with pytest.raises(DataError, match="checksum") as caught:
            row_to_record({**row, name: changed})
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"regions": "[{}"},
        {"regions": "{}7"},
        {"regions": '["liver"]'},
        {"regions": '[{"target":"liver","mask":"/etc/passwd"}]'},
        {"regions": '[{"target":"liver","further_masks":["/etc/passwd"]}]'},
        {"regions": '[{"target":"liver","box":[1,2]}]'},
        {"regions": '[{"target":7}]'},
        {"regions": "[" * 100_000},
        {"attributes": "3"},
        {"questions": '[{"question":"x"}]'},
        {"spacing": [1.0]},
        {"modality": "sonar"},
        {"dataset": "other"},
    ],
)
def test_hostile_rows_are_refused(tmp_path: Path, make_records: MakeRecords, change: dict[str, Any]) -> None:
    row = record_to_row(make_records(tmp_path, count=1)[0])
    with pytest.raises(DataError, match="toy/train_0000") as caught:
        row_to_record(seal({**row, **change}))
    assert "\n" not in str(caught.value)


def test_groups_end_by_rows_and_by_bytes(
    tmp_path: Path, make_records: MakeRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [record_to_row(record) for record in make_records(tmp_path, count=7)]
    monkeypatch.setattr("unibiomed.data.shards.GROUP_ROWS", 3)
    assert write_rows(tmp_path / "a.parquet", rows)[0] == (3, 3, 1)
    monkeypatch.setattr("unibiomed.data.shards.GROUP_BYTES", 10)
    assert write_rows(tmp_path / "b.parquet", rows)[0] == (1,) * 7
    file = pq.ParquetFile(tmp_path / "a.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(3)] == [3, 3, 1]


def test_files_are_whole_or_not_there(tmp_path: Path, make_records: MakeRecords) -> None:
    rows = [record_to_row(record) for record in make_records(tmp_path / "data", count=4)]
    path = tmp_path / "a.parquet"
    write_rows(path, rows)
    before = path.read_bytes()

    def breaks() -> Any:
        yield rows[0]
        raise DataError("stop")

    with pytest.raises(DataError, match="stop"):
        write_rows(path, breaks())
    assert path.read_bytes() == before
    write_rows(path, rows)
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir() if item.is_file()] == ["a.parquet"]
    assert write_rows(path, []) == ((), 0)
    assert not path.exists()
    with pytest.raises(OutputError, match="cannot be written"):
        write_rows(tmp_path / "none" / "a.parquet", rows)


def test_a_shared_picture_is_stored_once(tmp_path: Path, make_records: MakeRecords) -> None:
    record = make_records(tmp_path, count=1)[0]
    content = encoded(np.random.default_rng(0).integers(0, 256, (100, 100, 3), dtype=np.uint8))
    rows = [record_to_row(replace(record, key=f"toy/{i}", image=content, regions=())) for i in range(30)]
    write_rows(tmp_path / "a.parquet", rows)
    assert (tmp_path / "a.parquet").stat().st_size < 2 * len(content)
    assert {row["image"] for row in pq.read_table(tmp_path / "a.parquet").to_pylist()} == {content}


def test_columns_are_what_the_documentation_says(tmp_path: Path, make_records: MakeRecords) -> None:
    row = record_to_row(make_records(tmp_path, count=1)[0])
    assert json.loads(row["regions"])[1].keys() == {"target", "mask", "abnormal"}
    assert json.loads(row["regions"])[2] == {"target": "spleen"}


def test_without_pyarrow_the_error_says_what_to_install() -> None:
    code = "import sys; sys.modules['pyarrow'] = None\nfrom unibiomed.cli import main\nsys.exit(main(sys.argv[1:]))"
    line = [sys.executable, "-c", code, "data", "build", "--data", ".", "--out", "x"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "unibiomed: shards need pyarrow; pip install 'unibiomed[train]'\n"


def test_share_of_broken_records() -> None:
    assert allowed_bad(0.0, 10**6, 10**6) == 0
    assert allowed_bad(0.01, 5, 20) == 1
    assert allowed_bad(0.01, 5, 10**6) == 10
    assert allowed_bad(0.01, 50_000, 10**6) == 500
