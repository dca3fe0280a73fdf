"""Which image comes next: drawn from records in memory, or streamed from shards."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from difflib import get_close_matches
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, Protocol

from unibiomed.data.catalog import known_entries
from unibiomed.data.index import INDEX, TASKS, read_index
from unibiomed.data.records import Record
from unibiomed.data.scene import named_by_image
from unibiomed.errors import DataError
from unibiomed.images.modality import MODALITIES

from .recipe import DataRecipe, Recipe, StageRecipe

BY_NAME = ("dense_weight", "align_weight", "label_weight", "distill_weight", "prompted", "named", "even_labels")
"""Settings of a stage that need the names of all targets or labels, or how many there are."""


class Source(Protocol):
    """Where records come from."""

    def draw(self, rng: random.Random) -> Record:
        """The next record; a source that knows no order of its own decides by `rng`."""

    def state(self) -> dict[str, Any] | None:
        """Where the source stands, as JSON; None where it has no order of its own."""

    def restore(self, state: dict[str, Any] | None) -> None:
        """Go on where `state` was taken."""

    def problems(self) -> dict[str, str]:
        """Broken records that were left out since this was last asked: name, and what is wrong."""

    def rarity(self, record: Record) -> list[float]:
        """How much each region of a record counts when one is drawn for a box."""


class Mixture:
    """Draws records: the data set first, then one of its images.

    Parameters
    ----------
    records : sequence of Record
        What may be drawn.
    recipe : DataRecipe
        How often each data set is.
    even : bool
        Within a data set each label is as often as the others; if not, each image.

    Raises
    ------
    DataError
        If no data set has a weight.
    """

    def __init__(self, records: Sequence[Record], recipe: DataRecipe, *, even: bool = False) -> None:
        groups: dict[str, list[Record]] = defaultdict(list)
        for record in records:
            groups[record.dataset].append(record)
        self.names = sorted(groups)
        self.groups = groups
        self.weights = [len(groups[n]) ** recipe.power * recipe.weights.get(n, 1.0) for n in self.names]
        if self.names and not any(self.weights):
            raise DataError(f"every data set has a weight of 0 ({', '.join(self.names)}): raise one of 'weights'")
        self._images = Counter(label for record in records for label in set(_labels(record)) if even and label[1])
        self._odds = {n: list(accumulate(map(self._odd, groups[n]))) for n in self.names} if even else {}

    def draw(self, rng: random.Random) -> Record:
        """One record."""
        name = rng.choices(self.names, self.weights)[0]
        if self._odds:
            return rng.choices(self.groups[name], cum_weights=self._odds[name])[0]
        return rng.choice(self.groups[name])

    def rarity(self, record: Record) -> list[float]:
        """For each region the inverse of how many images have its label; 1 where labels are not drawn evenly."""
        return [1 / max(self._images[label], 1) for label in _labels(record)]

    def _odd(self, record: Record) -> float:
        known = sum(1 / self._images[label] for label in set(_labels(record)) if label[1])
        return known or 1 / len(self.groups[record.dataset])

    def state(self) -> None:
        """None: what is drawn depends on the random numbers alone."""
        return None

    def restore(self, state: dict[str, Any] | None) -> None:
        """Nothing to do."""

    def problems(self) -> dict[str, str]:
        """None: what is broken in a folder of data sets ends the training."""
        return {}


def _labels(record: Record) -> list[tuple[str, str, str]]:
    """What each region of a record is called, by the image's label where that names it; ``""`` for absent ones."""
    labels = []
    for region in record.regions:
        diagnosis = record.label if named_by_image(record, region) and not region.absent else None
        labels.append((record.dataset, "" if region.absent else region.target, diagnosis or ""))
    return labels


class Shards:
    """Streams records from shards, see `unibiomed.data.reader`.

    Parameters
    ----------
    folder : Path
        With the shards of one or many data sets.
    recipe : DataRecipe
        Which data sets, and how often each is.
    seed : int
        Decides the order.
    rank, world : int
        Which of how many processes this is.
    worker, workers : int
        Which of how many loading processes of this rank.
    """

    def __init__(
        self,
        folder: Path,
        recipe: DataRecipe,
        seed: int,
        rank: int = 0,
        world: int = 1,
        worker: int = 0,
        workers: int = 1,
    ) -> None:
        from unibiomed.data.reader import ShardReader

        self._reader = ShardReader(
            folder,
            split="train",
            seed=seed,
            datasets=streamed_datasets(folder, recipe),
            weights=recipe.weights,
            power=recipe.power,
            rank=rank,
            world=world,
            worker=worker,
            workers=workers,
            decode=False,
        )
        self._stream = iter(self._reader)
        self._told = 0

    def draw(self, rng: random.Random) -> Record:
        """The next record of the stream."""
        return next(self._stream).record

    def rarity(self, record: Record) -> list[float]:
        """All alike: shards do not tell how often a label is."""
        return [1.0] * len(record.regions)

    def state(self) -> dict[str, Any] | None:
        """The reader's position."""
        return self._reader.state_dict()

    def restore(self, state: dict[str, Any] | None) -> None:
        """Go on from a position."""
        if state is not None:
            self._reader.load_state_dict(state)
            self._stream = iter(self._reader)

    def problems(self) -> dict[str, str]:
        """What the reader skipped since this was last asked."""
        fresh = dict(islice(self._reader.problems.items(), self._told, None))
        self._told += len(fresh)
        return fresh


def check_names(data: Path, recipe: Recipe) -> None:
    """Refuse names in `weights` and `held_out` that are neither in a folder nor in the catalogue: a spelling mistake.

    A recipe may name sets that are not there; it is often run with a part of its data. (Shards check weights of their
    own accord.)

    Parameters
    ----------
    data : Path
        Folder with data sets, or with shards of them.
    recipe : Recipe

    Raises
    ------
    DataError
        If there is one.
    """
    sharded = (data / INDEX).exists()
    named = dict.fromkeys(recipe.data.held_out or (), "held_out")
    if not sharded:
        weights = [recipe.data.weights, *(stage.weights for stage in recipe.stages)]
        named |= dict.fromkeys((name for table in weights for name in table), "weights")
    known = {entry.name for entry in known_entries(None if sharded else data)} if named else set()
    if sharded and named:
        known |= {shard.dataset for shard in read_index(data).shards}
    for name in sorted(named.keys() - known):
        near = get_close_matches(name, sorted(known), n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"data sets are known by their folders under '{data}'"
        if name in MODALITIES or name in TASKS:
            hint = "modalities and tasks are weighed in shards only"
            if named[name] == "held_out":
                hint = "only data sets can be held out"
        raise DataError(f"{named[name]}: there is no data set '{name}'; {hint}")


def check_streamed(stages: Sequence[StageRecipe]) -> None:
    """Refuse stages that need the names of all targets, which shards do not list.

    Raises
    ------
    DataError
        If there is one.
    """
    for stage in stages:
        if stage.kind == "boxes":
            raise DataError(
                f"stage '{stage.name}' has kind: boxes, which reads the same images again and again, and shards are "
                "streams: leave it out, or give --data the data sets themselves"
            )
        asked = ["kind: encoder"] if stage.kind == "encoder" else [name for name in BY_NAME if getattr(stage, name)]
        if asked:
            raise DataError(
                f"stage '{stage.name}' has {asked[0]}, which needs the names of all targets, and shards do not list "
                "them: leave it out, or give --data the data sets themselves"
            )


def streamed_datasets(folder: Path, recipe: DataRecipe) -> list[str] | None:
    """Data sets whose shards are read; None for all of them."""
    if not recipe.held_out:
        return recipe.datasets
    names = sorted({shard.dataset for shard in read_index(folder).shards})
    return [name for name in (names if recipe.datasets is None else recipe.datasets) if name not in recipe.held_out]


def streamed_licences(folder: Path, recipe: DataRecipe) -> dict[str, str]:
    """Licence of each data set whose training split is streamed, as its first record states it."""
    from unibiomed.data.reader import ShardReader

    wanted = streamed_datasets(folder, recipe)
    index = read_index(folder)
    names = {s.dataset for s in index.shards if s.split == "train" and (not wanted or s.dataset in wanted)}
    readers = {name: ShardReader(index, datasets=[name], decode=False) for name in sorted(names)}
    return {name: next(iter(reader)).record.licence for name, reader in readers.items()}
