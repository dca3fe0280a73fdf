"""Records as rows of Parquet: everything a record says, with its picture and its masks, in one table row.

Parquet is read by `datasets` (streaming), DuckDB and pandas as well; what is JSON in a column is so because records are
nested and those tools read JSON anyway. Every row carries a checksum of its own: one damaged picture costs one row.
"""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unibiomed.data.index import replacing
from unibiomed.data.records import QuestionAnswer, Record, Region
from unibiomed.errors import DataError, InputError
from unibiomed.findings import rle_encode
from unibiomed.images.limits import MAX_PIXELS, quiet, shown

try:
    import pyarrow as pa  # type: ignore[import-untyped,unused-ignore]
    import pyarrow.parquet as pq  # type: ignore[import-untyped,unused-ignore]
except ImportError as error:
    raise DataError("shards need pyarrow; pip install 'unibiomed[train]'") from error

__all__ = [
    "GROUP_BYTES",
    "GROUP_ROWS",
    "SCHEMA",
    "allowed_bad",
    "pa",
    "pack_record",
    "pq",
    "record_to_row",
    "row_to_record",
    "seal",
    "write_rows",
]

GROUP_ROWS = 64
GROUP_BYTES = 2 * 2**20
"""A row group ends at this many rows or bytes: it is what a reader holds in memory, once or a few times a data set."""
MAX_FILE_BYTES = 2**28
MAX_JSON = 2**26

SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("modality", pa.string(), nullable=False),
        pa.field("site", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("image", pa.binary()),
        pa.field("regions", pa.string(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("label_needs_finding", pa.bool_(), nullable=False),
        pa.field("abnormal_known", pa.bool_(), nullable=False),
        pa.field("external", pa.bool_(), nullable=False),
        pa.field("attributes", pa.string(), nullable=False),
        pa.field("questions", pa.string(), nullable=False),
        pa.field("text", pa.string()),
        pa.field("spacing", pa.list_(pa.float64())),
        pa.field("licence", pa.string(), nullable=False),
        pa.field("triplets", pa.int32(), nullable=False),
        pa.field("crc32", pa.uint32(), nullable=False),
    ]
)
"""Columns of a shard; ``regions``, ``attributes`` and ``questions`` are JSON, masks in them COCO run lengths."""

_AS_IT_IS: tuple[str, ...] = ("key", "dataset", "modality", "site", "group", "split", "image", "label", "text")
_AS_IT_IS += ("label_needs_finding", "abnormal_known", "external", "licence")
# PNG and JPEG do not shrink any more; a picture that several rows of a group share is stored once (dictionary).
_COMPRESSION = {name: "NONE" if name == "image" else "ZSTD" for name in SCHEMA.names}
_REPEATED = ["dataset", "modality", "site", "group", "split", "image", "label", "attributes", "questions", "licence"]


def pack_record(record: Record, *, size: int | None = None) -> Record:
    """Draw everything a record points at into the record: the picture as file bytes, the masks as run lengths.

    Parameters
    ----------
    record : Record
        From `unibiomed.data.load_records`.
    size : int, optional
        Longest side of the picture in pixels; larger ones are shrunk with their masks, boxes and spacing.

    Returns
    -------
    Record
        With `image` as PNG or JPEG bytes: the file itself where it is a flat 8-bit grey or RGB picture and not shrunk,
        else a PNG of `Record.load_image`. A region whose mask is empty becomes one that is known to be absent.

    Raises
    ------
    DataError
        The picture or a mask is missing, broken or too large, or they do not fit each other.
    """
    if record.image is None:
        return record
    content, before, after = _content(record, size)
    record.check_masks()
    spacing = record.spacing
    if spacing is not None and before != after:
        spacing = spacing[0] * before[0] / after[0], spacing[1] * before[1] / after[1]
    return replace(
        record,
        image=content,
        regions=tuple(_pack_region(region, before, after, record.key) for region in record.regions),
        spacing=spacing,
        slice_index=None,
        window=None,
        channel=None,
    )


def record_to_row(record: Record, *, size: int | None = None) -> dict[str, Any]:
    """Turn a record into a row of a shard; see `pack_record`.

    Parameters
    ----------
    record : Record
        The record.
    size : int, optional
        Longest side of the picture in pixels.

    Returns
    -------
    dict
        One value a column of `SCHEMA`.

    Raises
    ------
    DataError
        As `pack_record`, or the record is too large for a row.
    """
    packed = pack_record(record, size=size)
    regions = [
        {name: value for name, value in asdict(region).items() if value or name == "target"}
        for region in packed.regions
    ]
    row: dict[str, Any] = {name: getattr(packed, name) for name in _AS_IT_IS}
    row["regions"] = _compact(regions)
    row["attributes"] = _compact(packed.attributes)
    row["questions"] = _compact([asdict(question) for question in packed.questions])
    row["spacing"] = None if packed.spacing is None else [float(side) for side in packed.spacing]
    row["triplets"] = sum(1 for _ in packed.triplets())
    try:
        seal(row)
    except UnicodeEncodeError as error:
        raise DataError(f"{shown(record.key)}: a text holds signs that are not Unicode; mend the table") from error
    if max(len(row[name]) for name in ("regions", "attributes", "questions")) > MAX_JSON:
        raise DataError(f"{shown(record.key)}: its regions or texts exceed {MAX_JSON >> 20} MiB; simplify the masks")
    return row


def row_to_record(row: Mapping[str, Any]) -> Record:
    """Turn a row of a shard back into its record.

    Parameters
    ----------
    row : mapping
        One value a column of `SCHEMA`.

    Returns
    -------
    Record
        Equal to what `pack_record` gave.

    Raises
    ------
    DataError
        The row does not fit its checksum, or is not a row of a shard.
    """
    name = shown(str(row.get("key", "a row")))
    try:
        if row["crc32"] != _checksum(row):
            raise DataError(f"{name}: the row does not fit its checksum; build the shard again")
        if max(len(row[column]) for column in ("regions", "attributes", "questions")) > MAX_JSON:
            raise DataError(f"{name}: the row's texts exceed {MAX_JSON >> 20} MiB; build the shard again")
        return Record(
            **{column: row[column] for column in _AS_IT_IS},
            regions=tuple(_region(item) for item in json.loads(row["regions"])),
            attributes=dict(json.loads(row["attributes"])),
            questions=tuple(QuestionAnswer(**item) for item in json.loads(row["questions"])),
            spacing=None if row["spacing"] is None else (row["spacing"][0], row["spacing"][1]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
        raise DataError(f"{name}: this is not a row that this version wrote; build the shard again") from error


def seal(row: dict[str, Any]) -> dict[str, Any]:
    """Put a row's checksum into it, and return it."""
    row["crc32"] = _checksum(row)
    return row


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> tuple[tuple[int, ...], int]:
    """Write a shard, whole or not at all; the same rows give the same bytes.

    Parameters
    ----------
    path : Path
        The file; its folder has to be there.
    rows : iterable of dict
        From `record_to_row`, taken one by one: no more than a row group is in memory.

    Returns
    -------
    groups : tuple of int
        Rows of each row group; empty where there was no row, and then there is no file.
    triplets : int
        Triplets of all rows.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    groups: list[int] = []
    triplets = 0
    waiting: list[dict[str, Any]] = []
    weight = 0
    with replacing(path) as fresh:
        writer = pq.ParquetWriter(
            fresh, SCHEMA, compression=_COMPRESSION, use_dictionary=_REPEATED, write_statistics=["key", "modality"]
        )
        with writer:
            for row in rows:
                own = len(row["image"] or b"") + len(row["regions"]) + len(row["text"] or "")
                if waiting and (len(waiting) == GROUP_ROWS or weight + own > GROUP_BYTES):
                    groups.append(_write_group(writer, waiting))
                    waiting, weight = [], 0
                waiting.append(row)
                weight += own
                triplets += row["triplets"]
            if waiting:
                groups.append(_write_group(writer, waiting))
        if not groups:
            fresh.unlink()
    return tuple(groups), triplets


def allowed_bad(share: float, seen: int, total: int) -> int:
    """How many broken records are let pass.

    The share is taken of what was seen so far, but of no fewer than 1,000 records (or all, if there are fewer), so that
    an early one does not stop the run; one is let pass unless the share is 0.
    """
    return max(int(share > 0), int(share * max(seen, min(total, 1000))))


def _write_group(writer: Any, rows: list[dict[str, Any]]) -> int:
    writer.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), row_group_size=len(rows))
    return len(rows)


def _checksum(row: Mapping[str, Any]) -> int:
    told = [row[name] for name in SCHEMA.names if name not in ("image", "crc32")]
    return zlib.crc32(row["image"] or b"", zlib.crc32(_compact(told).encode()))


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _content(record: Record, size: int | None) -> tuple[bytes, tuple[int, int], tuple[int, int]]:
    """File bytes of a record's picture, its (height, width), and its (height, width) after shrinking."""
    content = _file(record)
    flat = None if content is None else _flat_size(content)
    if content is not None and flat is not None and (size is None or max(flat) <= size):
        return content, flat, flat
    pixels = record.load_image()
    height, width = pixels.shape[:2]
    picture = Image.fromarray(pixels)
    if size is not None and max(height, width) > size:
        longest = max(height, width)
        fitted = max(1, round(width * size / longest)), max(1, round(height * size / longest))
        picture = picture.resize(fitted, Image.Resampling.BICUBIC)
    values = np.asarray(picture)
    if (values[..., :1] == values).all():
        picture = picture.getchannel(0)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue(), (height, width), (picture.height, picture.width)


def _file(record: Record) -> bytes | None:
    """The bytes of a record's PNG or JPEG file; None for anything else."""
    if isinstance(record.image, bytes):
        return record.image
    assert record.image is not None
    if record.slice_index is not None or record.window is not None:
        return None
    try:
        with record.image.open("rb") as file:
            head = file.read(8)
            if not head.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")):
                return None
            content = head + file.read(MAX_FILE_BYTES)
    except OSError:
        return None  # load_image tells what is wrong
    return content if len(content) <= MAX_FILE_BYTES else None


def _flat_size(content: bytes) -> tuple[int, int] | None:
    """(height, width) of a whole 8-bit grey or RGB picture that needs no turning; None for all others."""
    with quiet():
        try:
            with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as picture:
                deep = any(";16" in str(tile[3]) for tile in picture.tile)
                plain = picture.mode in ("L", "RGB") and not deep and getattr(picture, "n_frames", 1) == 1
                if not plain or picture.width * picture.height > MAX_PIXELS:
                    return None
                picture.load()
                if "transparency" in picture.info or picture.getexif().get(0x0112, 1) != 1:
                    return None
                return picture.height, picture.width
        except Exception:
            # Decoders raise whatever they like on damaged data; load_image tells it in words.
            return None


def _pack_region(region: Region, before: tuple[int, int], after: tuple[int, int], key: str) -> Region:
    if region.box is not None:
        x0, y0, x1, y1 = map(int, region.box)
        (height, width), (rows, columns) = before, after
        if x1 > width or y1 > height:
            raise DataError(f"{shown(key)}: box {region.box} of '{region.target}' leaves the image; mend the table")
        box = x0 * columns // width, y0 * rows // height, -(-x1 * columns // width), -(-y1 * rows // height)
        return replace(region, box=box, values=None, slice_index=None, objects=False, ignored=())
    rle = None
    if region.mask is not None:
        mask = region.load(before)
        try:
            rle = rle_encode(_shrink(mask, after)) if mask.any() else None
        except InputError as error:
            raise DataError(f"{shown(key)}: mask of '{region.target}' cannot be packed ({error})") from error
    # run lengths tell no objects apart
    return replace(region, mask=rle, values=None, further_masks=(), slice_index=None, objects=False, ignored=())


def _shrink(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if mask.shape == size:
        return mask
    share = Image.fromarray(mask.astype(np.uint8) * 255).resize((size[1], size[0]), Image.Resampling.BOX)
    small = np.asarray(share) >= 128
    if not small.any():
        # A speck must not vanish: an empty mask would say that the target is absent.
        rows, columns = np.nonzero(mask)
        small = np.zeros(size, dtype=bool)
        small[rows * size[0] // mask.shape[0], columns * size[1] // mask.shape[1]] = True
    return small


def _region(item: dict[str, Any]) -> Region:
    mask, box = item.pop("mask", None), item.pop("box", None)
    if not isinstance(mask, dict | None) or not item.keys() <= {"target", "abnormal", "attributes"}:
        raise TypeError("not a region of a shard")
    return Region(**item, mask=mask, box=None if box is None else (box[0], box[1], box[2], box[3]))
