"""Only targets with a mask somewhere can be learned."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

from unibiomed.data.records import Record, Region
from unibiomed.train.heads import AuxiliaryHeads, outlined_targets
from unibiomed.train.start import taught_by

from .conftest import TINY, Kit


def with_regions(kit: Kit) -> list[Record]:
    """One image outlines the liver, one says that there is no kidney, one has the box of a lymph node."""
    first, second, third = [record for record in kit.records if record.dataset == "abdomen"][:3]
    liver = next(region for region in first.regions if region.target == "liver")
    assert isinstance(liver.mask, Path)
    return [
        replace(first, regions=(liver, Region("kidney", None))),
        replace(second, regions=(Region("kidney", None),)),
        replace(third, regions=(Region("lymph node", None, box=(4, 4, 20, 20), abnormal=True),)),
    ]


def test_targets_that_are_only_absent_or_boxed_are_left_out(kit: Kit) -> None:
    records = with_regions(kit)
    assert outlined_targets(records) == ["liver"]
    assert outlined_targets(records[1:]) == [] == outlined_targets([])
    heads = AuxiliaryHeads.for_records(records, TINY.width, TINY.hidden_size)
    assert heads.targets == {"liver": 0} and len(heads.prompts.weight) == 1
    # as soon as one image outlines it, it is learned, from all images
    [liver] = [region for region in records[0].regions if region.mask]
    outlined = replace(records[1], regions=(replace(liver, target="kidney"),))
    assert outlined_targets([*records, outlined]) == ["kidney", "liver"]


def test_a_card_names_what_is_outlined(kit: Kit) -> None:
    taught = taught_by(with_regions(kit))
    assert list(taught["targets"]) == ["liver"]
    assert not any(taught["findings"].values()) and not any(taught["abnormal"].values())
    # a box alone is enough for the name of what it holds
    assert "lymph node" in {target for held in taught["regions"].values() for target in held.values()}


def test_stages_pass_over_targets_without_a_prompt(kit: Kit) -> None:
    records = with_regions(kit)
    heads = AuxiliaryHeads.for_records(records, TINY.width, TINY.hidden_size)
    own = replace(kit, heads=heads)
    encoder = own.stage("encoder", records=records, batch=4, presence_targets=4)
    joint = own.stage("joint", records=records[:2], batch=4, prompted=2, named=1, tasks={"segment": 1.0})
    unknown = 0
    for seed in range(5):
        batch = encoder.batch(random.Random(seed))
        assert set(batch["target"].tolist()) | set(batch["judged"][:, 1].tolist()) <= {0}
        batch = joint.batch(random.Random(seed))
        assert set(batch["seg_target"].tolist()) <= {-1, 0}
        assert set(batch["prompt_target"].tolist()) | set(batch["dense_target"].tolist()) <= {0}
        unknown += batch["seg_target"].tolist().count(-1)
    assert unknown, "an absent kidney is asked for in words all the same"
