"""No sample is lost or repeated, every position is restored exactly, and damage is counted, named and limited."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unibiomed.data.build import build_shards
from unibiomed.data.index import INDEX, Shard, read_index, write_index
from unibiomed.data.order import Mixture, Walk
from unibiomed.data.reader import Sample, ShardReader
from unibiomed.data.records import Record
from unibiomed.errors import DataError

MakeRecords = Callable[..., list[Record]]
SIZES = {"abdomen": 40, "brain": 90, "chest": 13, "words": 21}


@pytest.fixture(scope="module")
def folder(make_records: MakeRecords, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unibiomed.data.shards.GROUP_ROWS", 4)
        records = [
            *make_records(place, "abdomen", 25, "CT"),
            *make_records(place / "more", "abdomen", 40, "PET")[25:],
            *make_records(place, "brain", 90, "MRI"),
            *make_records(place, "chest", 13, "X-ray"),
            *make_records(place, "words", 21, "X-ray", questions=True),
            *make_records(place, "chest", 5, "X-ray", "test"),
        ]
        build_shards(records, place / "shards", workers=1, rows_per_shard=16)
    return place / "shards"


@pytest.fixture
def own(folder: Path, tmp_path: Path) -> Path:
    """A copy that may be spoilt."""
    return Path(shutil.copytree(folder, tmp_path / "own"))


def keys(samples: Any) -> list[str]:
    return [sample.record.key for sample in samples]


def drawn(reader: ShardReader, count: int) -> list[Sample]:
    return list(islice(reader, count))


def spoil(path: Path, content: bytes) -> None:
    """Change one byte in the middle of where `content` lies in a file."""
    whole = bytearray(path.read_bytes())
    place = bytes(whole).index(content) + len(content) // 2
    whole[place] ^= 1
    path.write_bytes(whole)


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    consumers=st.integers(1, 9),
    window=st.integers(1, 5),
    epoch=st.integers(0, 20),
)
def test_walk_covers_each_row_once(sizes: list[int], consumers: int, window: int, epoch: int) -> None:
    seen: Counter[tuple[int, int]] = Counter()
    shares = []
    for consumer in range(consumers):
        walk = Walk(sizes, "a", seed=1, consumer=consumer, consumers=consumers, window=window)
        first, last = walk.share(epoch)
        shares.append(last - first)
        offset = 0
        while offset < last - first:
            part = walk.window(epoch, offset)
            assert part.first == offset
            assert len(set(part.blocks.tolist())) <= window
            seen.update(zip(part.blocks.tolist(), part.rows.tolist(), strict=True))
            offset = part.last
    assert seen == Counter((block, row) for block, size in enumerate(sizes) for row in range(size))
    assert max(shares) - min(shares) <= 1


@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5), consumers=st.integers(1, 9))
def test_positions_run_through_the_epochs(sizes: list[int], consumers: int) -> None:
    total = sum(sizes)
    for consumer in range(consumers):
        walk = Walk(sizes, "a", seed=1, consumer=consumer, consumers=consumers, window=2)
        lengths = [last - first for first, last in map(walk.share, range(2 * consumers))]
        expected = [(epoch, offset) for epoch, length in enumerate(lengths) for offset in range(length)]
        assert [walk.locate(position) for position in range(2 * total)] == expected


@given(st.integers(0, 20_000))
def test_counting_draws_is_drawing(draws: int) -> None:
    mixture = Mixture([1.0, 0.0, 2.0, 0.0], [0, 1, 1, 2], 3, (7, "a"))
    cells = np.array([mixture.cell(n) for n in range(0, draws, 97)])
    assert set(cells.tolist()) <= {0, 2}
    counts = mixture.counts(draws)
    assert counts.sum() == draws
    assert counts[2] == 0
    assert counts[0] == sum(mixture.cell(n) == 0 for n in range(draws))


@pytest.mark.parametrize(("world", "workers"), [(1, 1), (2, 1), (1, 3), (3, 2), (64, 4)])
def test_an_epoch_gives_every_sample_once(folder: Path, world: int, workers: int) -> None:
    found: list[str] = []
    shares = []
    for rank in range(world):
        for worker in range(workers):
            reader = ShardReader(folder, rank=rank, world=world, worker=worker, workers=workers, decode=False)
            part = keys(reader.epoch(3))
            shares.append(len(part))
            found += part
    assert reader.total == sum(SIZES.values())
    assert len(found) == len(set(found)) == reader.total
    assert max(shares) - min(shares) <= 1


def test_an_index_stands_for_its_folder(folder: Path) -> None:
    index = read_index(folder)
    assert keys(ShardReader(index).epoch(0)) == keys(ShardReader(folder).epoch(0))
    some = replace(index, shards=tuple(shard for shard in index.shards if shard.dataset == index.shards[0].dataset))
    read = {sample.record.dataset for sample in ShardReader([some]).epoch(0)}
    assert read == {index.shards[0].dataset}


def test_order_is_decided_by_seed_and_epoch(folder: Path) -> None:
    def order(epoch: int, **options: Any) -> list[str]:
        return keys(ShardReader(folder, decode=False, **options).epoch(epoch))

    assert order(0) == order(0)
    assert order(0) != order(1)
    assert order(0) != order(0, seed=1)
    assert sorted(order(0)) == sorted(order(1))
    # Shuffled: neighbours in the files are not neighbours in the epoch.
    numbers = [int(key.rsplit("_", 1)[1]) for key in order(0) if key.startswith("brain")]
    assert sum(abs(a - b) == 1 for a, b in pairwise(numbers)) < 15
    assert keys(drawn(ShardReader(folder), 50)) == keys(drawn(ShardReader(folder), 50))
    assert keys(drawn(ShardReader(folder), 50)) != keys(drawn(ShardReader(folder, rank=1, world=2), 50))


def test_samples_are_whole(folder: Path) -> None:
    for sample in drawn(ShardReader(folder), 60):
        assert sample.pixels is not None
        assert np.array_equal(sample.pixels, sample.record.load_image())
        assert sample.task in ("region", "label", "question")
        assert (sample.task == "question") == (sample.record.dataset == "words")
        assert sample.record.split == "train"
    assert [sample.number for sample in drawn(ShardReader(folder), 60)] == list(range(60))
    assert drawn(ShardReader(folder, decode=False), 1)[0].pixels is None
    assert keys(ShardReader(folder, split="test").epoch(0)) != []


@pytest.mark.parametrize("consumers", [1, 3, 6])
def test_streams_of_the_mixture_lose_and_repeat_nothing(folder: Path, consumers: int) -> None:
    epochs: dict[tuple[str, int], list[str]] = defaultdict(list)
    for rank in range(consumers):
        reader = ShardReader(folder, rank=rank, world=consumers, decode=False)
        found: dict[str, list[str]] = defaultdict(list)
        for sample in drawn(reader, 1800 // consumers + 100):
            found[sample.record.dataset].append(sample.record.key)
        for stream, walk in zip(reader._streams, reader._walks, strict=True):
            if stream.dataset in ("brain", "chest", "words"):
                for epoch in range(2):
                    first, last = walk.share(epoch)
                    assert len(found[stream.dataset]) >= last - first
                    epochs[stream.dataset, epoch] += found[stream.dataset][: last - first]
                    found[stream.dataset] = found[stream.dataset][last - first :]
    assert len(epochs) == 6
    for (dataset, _), members in epochs.items():
        assert sorted(members) == [f"{dataset}/train_{number:04d}" for number in range(SIZES[dataset])]


@settings(max_examples=15)
@given(before=st.integers(0, 300), rank=st.integers(0, 1))
def test_mixture_is_restored_exactly(folder: Path, before: int, rank: int) -> None:
    options: dict[str, Any] = {"rank": rank, "world": 2, "decode": False, "shuffle_window": 2}
    reader = ShardReader(folder, **options)
    drawn(reader, before)
    state = json.loads(json.dumps(reader.state_dict()))
    assert len(json.dumps(state)) < 500
    expected = [(s.record, s.task, s.number) for s in drawn(reader, 40)]
    again = ShardReader(folder, **options)
    again.load_state_dict(state)
    assert [(s.record, s.task, s.number) for s in drawn(again, 40)] == expected
    assert again.state_dict() == reader.state_dict()


@settings(max_examples=10)
@given(before=st.integers(0, 60))
def test_epoch_is_restored_exactly(folder: Path, before: int) -> None:
    reader = ShardReader(folder, worker=1, workers=2, decode=False)
    running = reader.epoch(5)
    list(islice(running, before))
    state = json.loads(json.dumps(reader.state_dict()))
    rest = keys(running)
    again = ShardReader(folder, worker=1, workers=2, decode=False)
    again.load_state_dict(state)
    if before:  # the state of a reader that read nothing is in no epoch
        assert keys(again.epoch(5)) == rest
    assert len(keys(again.epoch(5))) == before + len(rest)
    again.load_state_dict(state)
    assert len(keys(again.epoch(6))) in (before + len(rest), before + len(rest) + 1, before + len(rest) - 1)


def test_a_loader_that_reads_ahead_saves_what_was_used(folder: Path) -> None:
    reader = ShardReader(folder, decode=False)
    ahead = drawn(reader, 30)
    state = reader.state_dict() | {"draws": ahead[9].number + 1}
    again = ShardReader(folder, decode=False)
    again.load_state_dict(state)
    assert keys(drawn(again, 20)) == keys(ahead[10:])


def test_memory_may_be_short(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = keys(drawn(ShardReader(folder, decode=False), 200))
    monkeypatch.setattr("unibiomed.data.reader.OPEN_BYTES", 1)
    monkeypatch.setattr("unibiomed.data.reader.OPEN_FILES", 1)
    reader = ShardReader(folder, decode=False)
    assert keys(drawn(reader, 200)) == expected
    assert len(reader._windows) == 1
    assert len(reader._files._open) == 1


def test_weights_decide_the_mixture(folder: Path) -> None:
    plain = ShardReader(folder).mixture
    by_set: Counter[str] = Counter()
    for (dataset, _, _), share in plain.items():
        by_set[dataset] += share
    powers = {name: size**0.4 for name, size in SIZES.items()}
    assert by_set == pytest.approx({name: value / sum(powers.values()) for name, value in powers.items()})
    assert plain["abdomen", "PET", "region"] / plain["abdomen", "CT", "region"] == pytest.approx(15 / 25)

    sizes = ShardReader(folder, power=None).mixture
    assert sizes["brain", "MRI", "label"] / sizes["chest", "X-ray", "label"] == pytest.approx(90 / 13)
    for name, place in (("brain", 0), ("X-ray", 1), ("label", 2)):
        more = ShardReader(folder, weights={name: 3.0}).mixture
        ratios = {cell: more[cell] / plain[cell] for cell in plain}
        least = min(ratios.values())
        assert {cell: round(ratio / least, 6) for cell, ratio in ratios.items()} == {
            cell: 3.0 if cell[place] == name else 1.0 for cell in plain
        }


def test_the_mixture_comes_out_as_weighed(folder: Path) -> None:
    reader = ShardReader(folder, weights={"brain": 0.0, "region": 2.0}, decode=False, shuffle_window=2)
    found = Counter((s.record.dataset, s.record.modality, s.task) for s in drawn(reader, 3000))
    for cell, share in reader.mixture.items():
        assert found[cell] / 3000 == pytest.approx(share, abs=0.03)
    assert not any(dataset == "brain" for dataset, _, _ in found)


def test_weights_may_name_sets_of_other_splits(folder: Path) -> None:
    mixture = ShardReader(folder, split="test", weights={"brain": 2.0}).mixture
    assert {dataset for dataset, _, _ in mixture} == {"chest"}


def test_chosen_data_sets(folder: Path) -> None:
    reader = ShardReader(folder, datasets=["chest"], decode=False)
    assert len(keys(reader.epoch(0))) == 13
    with pytest.raises(DataError, match=r"'nose'.*there are abdomen, brain, chest, words"):
        ShardReader(folder, datasets=["nose"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"split": "dev"}, "'dev'"),
        ({"split": "val"}, "no record of split 'val'"),
        ({"rank": 2, "world": 2}, "count ranks"),
        ({"worker": -1}, "count ranks"),
        ({"shuffle_window": 0}, "out of range"),
        ({"weights": {"nose": 1.0}}, "'nose'"),
        ({"weights": {"brain": -1.0}}, "'brain' is -1"),
        ({"weights": {"brain": float("nan")}}, "'brain' is nan"),
        ({"weights": {"region": 0.0, "label": 0.0, "question": 0.0}}, "all weights are 0"),
    ],
)
def test_wrong_options_are_refused(folder: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        ShardReader(folder, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "named"),
    [({"seed": 1}, "seed"), ({"world": 2}, "world"), ({"workers": 2}, "workers"), ({"power": 1.0}, "mixture")],
)
def test_positions_of_other_readers_are_refused(folder: Path, options: dict[str, Any], named: str) -> None:
    state = ShardReader(folder, **options).state_dict()
    with pytest.raises(DataError, match=f"another {named}"):
        ShardReader(folder).load_state_dict(state)
    with pytest.raises(DataError, match="broken"):
        ShardReader(folder).load_state_dict(ShardReader(folder).state_dict() | {"draws": -1})
    with pytest.raises(DataError, match="another version"):
        ShardReader(folder).load_state_dict({})


def test_position_of_other_shards_is_refused(folder: Path, own: Path) -> None:
    index = read_index(own)
    write_index(own, index.shards[1:])
    with pytest.raises(DataError, match="another shards"):
        ShardReader(own).load_state_dict(ShardReader(folder).state_dict())


def test_two_sets_of_one_name_are_refused(folder: Path, own: Path) -> None:
    with pytest.raises(DataError, match=r"data set 'abdomen' is in .* and in"):
        ShardReader([folder, own])
    write_index(own, [shard for shard in read_index(own).shards if shard.dataset == "chest"])
    write_index_of = [shard for shard in read_index(folder).shards if shard.dataset != "chest"]
    other = own.parent / "other"
    shutil.copytree(folder, other)
    write_index(other, write_index_of)
    assert len(keys(ShardReader([own, other], decode=False).epoch(0))) == sum(SIZES.values())


def test_a_corrupt_image_is_skipped_counted_and_named(folder: Path, own: Path) -> None:
    path = own / "brain" / "train-00001.parquet"
    row = pq.read_table(path).to_pylist()[5]
    spoil(path, row["image"])
    for decode in (True, False):
        reader = ShardReader(own, decode=decode)
        found = keys(reader.epoch(0))
        assert len(found) == reader.total - 1
        assert row["key"] not in found
        assert (reader.seen, reader.bad) == (reader.total, 1)
        ((name, why),) = reader.problems.items()
        assert name == "brain/train-00001.parquet, row group 1, row 1"
        assert row["key"] in why
    # In the mixture it costs its draw, and nothing after it moves.
    whole = {sample.number: sample.record.key for sample in drawn(ShardReader(folder, decode=False), 400)}
    spoilt = {sample.number: sample.record.key for sample in drawn(ShardReader(own, decode=False), 350)}
    assert all(whole[number] == key for number, key in spoilt.items())
    lost = [whole[number] for number in range(max(spoilt)) if number not in spoilt]
    assert set(lost) == {row["key"]}


def test_too_many_corrupt_images_stop_the_run(own: Path) -> None:
    path = own / "brain" / "train-00001.parquet"
    rows = pq.read_table(path).to_pylist()
    for row in rows[:3]:
        spoil(path, row["image"])
    reader = ShardReader(own, decode=False)
    with pytest.raises(DataError, match=r"2 of \d+ records are broken.*share of 0\.01.*brain/train_") as caught:
        keys(reader.epoch(0))
    assert "\n" not in str(caught.value)
    assert len(keys(ShardReader(own, decode=False, max_bad=0.5).epoch(0))) == sum(SIZES.values()) - 3
    with pytest.raises(DataError, match="1 of"):
        keys(ShardReader(own, decode=False, max_bad=0.0).epoch(0))


def test_a_broken_row_group_costs_its_rows(own: Path) -> None:
    path = own / "brain" / "train-00001.parquet"
    meta = pq.ParquetFile(path).metadata.row_group(1)
    column = next(meta.column(i) for i in range(meta.num_columns) if meta.column(i).path_in_schema == "regions")
    whole = bytearray(path.read_bytes())
    begin = column.dictionary_page_offset or column.data_page_offset
    whole[begin : begin + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(whole)
    reader = ShardReader(own, decode=False, max_bad=0.5)
    assert len(keys(reader.epoch(0))) == reader.total - 4
    assert reader.bad == 4
    assert all("row group 1" in name and "cannot be read" in why for name, why in reader.problems.items())


def test_lost_shards_stop_the_run(own: Path) -> None:
    path = own / "brain" / "train-00001.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - 9])
    with pytest.raises(DataError, match=r"brain/train-00001\.parquet: this is no whole Parquet file"):
        keys(ShardReader(own, decode=False).epoch(0))
    shutil.copy(own / "brain" / "train-00005.parquet", path)
    with pytest.raises(DataError, match=r"train-00001\.parquet: the shard does not fit the index"):
        keys(ShardReader(own, decode=False).epoch(0))
    path.unlink()
    with pytest.raises(DataError, match=r"train-00001\.parquet: the shard is missing"):
        keys(ShardReader(own, decode=False).epoch(0))


def test_checksums_of_shards(folder: Path, own: Path) -> None:
    assert len(keys(ShardReader(folder, verify=True, decode=False).epoch(0))) == sum(SIZES.values())
    path = own / "brain" / "train-00001.parquet"
    spoil(path, pq.read_table(path).to_pylist()[0]["image"])
    with pytest.raises(DataError, match=r"train-00001\.parquet.*checksum"):
        keys(ShardReader(own, verify=True, decode=False).epoch(0))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "data build"),
        ("{", "JSON"),
        ("[]", "version"),
        ('{"version": 9, "shards": []}', "version"),
        ('{"version": 1, "shards": [{}]}', "lacks a key"),
        ('{"version": 1, "shards": ["a"]}', "lacks a key"),
        ("[" * 100_000, "JSON"),
    ],
)
def test_broken_indexes_are_refused(tmp_path: Path, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / INDEX).write_text(text)
    with pytest.raises(DataError, match=said) as caught:
        read_index(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [{"file": "../a.parquet"}, {"file": "/a"}, {"groups": [0]}, {"groups": []}, {"groups": [1.5]}, {"bytes": "9"}],
)
def test_hostile_index_entries_are_refused(own: Path, change: dict[str, Any]) -> None:
    values = json.loads((own / INDEX).read_text())
    values["shards"][0] |= change
    (own / INDEX).write_text(json.dumps(values))
    with pytest.raises(DataError, match="build the shards again"):
        read_index(own)
    (own / INDEX).write_text(json.dumps({"version": 1, "shards": [values["shards"][1]] * 2}))
    with pytest.raises(DataError, match="twice"):
        read_index(own)


def test_starting_is_quick_at_the_size_of_the_paper(tmp_path: Path) -> None:
    """An index of 27 million records, more than the paper has images; in processor time."""
    shards = [
        Shard(
            f"set{i % 60}/train-{i:05d}.parquet",
            f"set{i % 60}",
            "train",
            "CT",
            ("region",),
            False,
            (64,) * 16,
            1024,
            1,
            "0" * 64,
        )
        for i in range(26_400)
    ]
    write_index(tmp_path, shards)
    start = time.process_time()
    reader = ShardReader(tmp_path)
    state = reader.state_dict() | {"draws": 10**6}
    reader.load_state_dict(state)
    assert reader.total > 27_000_000
    assert time.process_time() - start < 5


def test_rows_that_belong_elsewhere_are_not_taken_in(own: Path) -> None:
    text = (own / INDEX).read_text()
    (own / INDEX).write_text(text.replace('"split":"test"', '"split":"train"'))
    reader = ShardReader(own, split="train", max_bad=1.0)
    samples = list(reader.epoch(0))
    assert {sample.record.split for sample in samples} == {"train"} and reader.bad == 5
    assert "its index says otherwise" in next(iter(reader.problems.values()))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"file": "a\0b"}, "leaves the folder"),
        ({"groups": (2**31,)}, "more than 2,147,483,647 rows"),
        ({"external": True}, "kept for testing"),
    ],
)
def test_shards_that_cannot_be(own: Path, change: dict[str, Any], words: str) -> None:
    shard = next(shard for shard in read_index(own).shards if shard.split == "train")
    with pytest.raises(DataError, match=words):
        replace(shard, **change)
