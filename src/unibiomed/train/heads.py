"""Heads that help the training and are not shipped."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

from torch import nn

from unibiomed.data.records import Record


def outlined_targets(records: Iterable[Record]) -> list[str]:
    """Names, sorted, of the targets with a mask in at least one record.

    A target that only appears as absent, or only in a box, cannot be learned: the model would always call it absent.
    """
    return sorted({region.target for record in records for region in record.regions if region.mask is not None})


class AuxiliaryHeads(nn.Module):
    """Heads that help the training and are not shipped: a prompt and a map a target, the image's label, a box's target.

    Parameters
    ----------
    targets, labels : sequence of str
        What the data sets name.
    width : int
        Channels of the neck.
    hidden_size : int
        Of the language model.
    """

    def __init__(self, targets: Sequence[str], labels: Sequence[str], width: int, hidden_size: int) -> None:
        super().__init__()
        self.targets = {target: i for i, target in enumerate(targets)}
        self.labels = {label: i for i, label in enumerate(labels)}
        self.prompts = nn.Embedding(len(targets), width)
        with warnings.catch_warnings():
            # a stream of shards names no target
            warnings.filterwarnings("ignore", "Initializing zero-element tensors")
            self.dense = nn.Conv2d(width // 8, len(targets), 1)
            self.region = nn.Sequential(nn.LayerNorm(hidden_size), nn.Linear(hidden_size, len(targets)))
        self.label = nn.Linear(width, len(labels))

    @classmethod
    def for_records(cls, records: Sequence[Record], width: int, hidden_size: int) -> AuxiliaryHeads:
        """Heads for every label of `records`, and every target that they outline somewhere."""
        targets = outlined_targets(records)
        labels = sorted({record.label for record in records if record.label} | {"No findings"})
        return cls(targets, labels, width, hidden_size)
