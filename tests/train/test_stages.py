"""What each stage reads, and which parts its losses teach."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from unibiomed.data.records import Region
from unibiomed.errors import DataError
from unibiomed.model.processing import END, IMAGE_TOKEN, IMAGENET_MEAN, IMAGENET_STD
from unibiomed.train.heads import AuxiliaryHeads
from unibiomed.train.mixture import Mixture
from unibiomed.train.optimizer import part_of
from unibiomed.train.packing import IGNORE, encode_turn, normalise_batch, pack, pad
from unibiomed.train.recipe import DataRecipe
from unibiomed.train.stages import Stage

from .conftest import RATES, TINY, Kit, stage_recipe

KINDS = ("encoder", "text", "joint")
ALL = stage_recipe("joint")
"""Trains every part, under the names of `RATES`."""


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    return one == other


def pixels_of(images: torch.Tensor) -> torch.Tensor:
    """Images of a batch in 0 to 255 again."""
    mean, std = torch.tensor(IMAGENET_MEAN).view(3, 1, 1), torch.tensor(IMAGENET_STD).view(3, 1, 1)
    return ((images * std + mean) * 255).round()


def green(images: torch.Tensor) -> torch.Tensor:
    return (pixels_of(images) == torch.tensor([0.0, 255, 0]).view(3, 1, 1)).all(1)


def learn(stage: Stage, seed: int = 0) -> dict[str, float]:
    losses = stage.losses(stage.batch(random.Random(seed)))
    torch.stack(list(losses.values())).sum().backward()
    return {name: float(value.detach()) for name, value in losses.items()}


def moved(kit: Kit) -> set[str]:
    """Parts, and single heads, that have a gradient that is not zero."""
    found = set()
    for prefix, module in (("", kit.model), ("aux.", kit.heads)):
        for name, parameter in module.named_parameters():
            if parameter.grad is not None and bool(parameter.grad.any()):
                found.add(f"{prefix}{name.split('.')[0]}" if prefix else part_of(name, ALL))
    return found


def answers(kit: Kit, batch: dict[str, Any]) -> list[str]:
    return [kit.processor.decode(row[row != IGNORE].tolist()) for row in batch["labels"]]


# ---------------------------------------------------------------- what is read


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_depends_on_its_own_chance_alone(kit: Kit, kind: str) -> None:
    stage = kit.stage(kind, batch=3)
    first = stage.batch(random.Random(5))
    torch.manual_seed(99)
    stage.batch(random.Random(6))
    again = stage.batch(random.Random(5))
    assert first.keys() == again.keys()
    assert all(same(first[name], again[name]) for name in first)
    other = stage.batch(random.Random(6))
    assert not all(same(first[name], other[name]) for name in first)


@pytest.mark.parametrize("augment", [0.0, 1.0])
def test_a_truth_for_every_seg(kit: Kit, augment: float) -> None:
    stage = kit.stage("joint", batch=4, turns=3, augment=augment)
    seg = kit.model.config.seg_token_id
    counts = set()
    for seed in range(12):
        batch = stage.batch(random.Random(seed))
        asked = int((batch["labels"] == seg).sum())
        assert asked == (len(batch["truth"]) if batch["truth"].shape[-1] > 1 else 0)
        assert not bool(((batch["input_ids"] == seg) & (batch["labels"] == IGNORE)).any())
        assert asked == len(batch.get("seg_target", ()))
        assert len(batch["input_ids"]) == len(batch["label"]) == len(batch["grounding_pixels"]) == 4
        counts.add(asked)
    assert len(counts) > 2


def test_truths_stand_in_the_order_of_the_seg(kit: Kit) -> None:
    """Without augmentation, the truth of each ``[SEG]`` is the mask of the target that its question names."""
    stage = kit.stage("joint", batch=4, turns=1, augment=0.0, tasks={"segment": 1.0, **dict.fromkeys(OTHERS, 0.0)})
    liver = {key: kit.store.load(key)[1] for key in kit.store.row if key.startswith("abdomen")}
    seen = set()
    for seed in range(8):
        batch = stage.batch(random.Random(seed))
        prompts = [kit.processor.decode(row.tolist()) for row in batch["input_ids"]]
        assert len(prompts) == len(batch["truth"])  # one target a question here
        for prompt, truth, image in zip(prompts, batch["truth"], batch["grounding_pixels"], strict=True):
            picture = pixels_of(image)
            key = next(k for k in kit.store.row if torch.equal(picture, as_image(kit, k)))
            question = prompt.split("<|assistant|>")[0]
            if "liver" in question and key in liver:
                assert torch.equal((truth * 255).round().byte(), torch.from_numpy(liver[key][0].copy()))
                seen.add("liver")
            elif "spleen" in question:
                assert not truth.any()
                seen.add("spleen")
    assert seen == {"liver", "spleen"}


OTHERS = ("recognize", "report", "ask", "classify", "describe")


def as_image(kit: Kit, key: str) -> torch.Tensor:
    return torch.from_numpy(kit.store.load(key)[0].copy()).permute(2, 0, 1).float()


def test_only_the_answer_and_its_end_are_learned(kit: Kit) -> None:
    question, answer = "Segment the liver.", "It is [SEG]. Liver"
    ids, labels = encode_turn(kit.processor, question, answer, 4)
    assert len(ids) == len(labels)
    learned = [(i, label) for i, label in zip(ids, labels, strict=True) if label != IGNORE]
    assert all(i == label for i, label in learned)
    assert kit.processor.decode([label for _, label in learned]) == answer + END
    start = len(ids) - len(learned)
    assert set(labels[:start]) == {IGNORE}
    prompt = kit.processor.decode(ids[:start])
    assert prompt.startswith("<|user|>\n<img>" + IMAGE_TOKEN * 4 + "</img>") and prompt.endswith("<|assistant|>\n")
    for kind in ("text", "joint"):
        batch = kit.stage(kind, batch=4, turns=1).batch(random.Random(1))
        for row, row_labels in zip(batch["input_ids"], batch["labels"], strict=True):
            learned_at = (row_labels != IGNORE).nonzero()
            first, last = int(learned_at[0]), int(learned_at[-1]) + 1
            assert torch.equal(row[first:last], row_labels[first:last])
            assert kit.processor.decode(row[:first].tolist()).endswith("<|assistant|>\n")
            assert int((row == kit.model.config.mllm_config.image_token_id).sum()) == (4 if kind == "joint" else 0)
        assert all(text.endswith(END) for text in answers(kit, batch))


def test_pad() -> None:
    batch = pad([([5, 6, 7], [IGNORE, 6, 7]), ([8], [8])])
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0]]
    assert batch["labels"].tolist() == [[IGNORE, 6, 7], [8, IGNORE, IGNORE]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_normalise_batch() -> None:
    images = [torch.tensor(IMAGENET_MEAN).view(3, 1, 1).expand(3, 2, 2), torch.ones(3, 2, 2)]
    out = normalise_batch(images)
    assert out.shape == (2, 3, 2, 2) and not out[0].any()
    assert out[1, :, 0, 0].tolist() == pytest.approx(
        [(1 - m) / s for m, s in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)]
    )


@pytest.mark.parametrize("task", ["classify", "describe"])
def test_boxed_turns_draw_a_green_outline(kit: Kit, task: str) -> None:
    stage = kit.stage("joint", batch=3, augment=0.0, tasks={"classify": 0.0, "describe": 0.0, task: 1.0})
    boxed = 0
    for seed in range(4):
        batch = stage.batch(random.Random(seed))
        for outline in green(batch["grounding_pixels"]):
            if not outline.any():
                continue  # nothing there to put a box around
            rows, columns = outline.any(1).nonzero()[:, 0], outline.any(0).nonzero()[:, 0]
            y0, y1, x0, x1 = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
            expected = torch.zeros_like(outline)
            expected[y0:y1, x0:x1] = True
            expected[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2] = False
            assert torch.equal(outline, expected)
            boxed += 1
    assert boxed >= 6


def test_the_box_that_is_drawn_is_taught(kit: Kit) -> None:
    stage = kit.stage("joint", batch=6, augment=0.0, box_weight=1.0, tasks={"classify": 0.5, "describe": 0.0})
    batch = stage.batch(random.Random(3))
    assert len(batch["box_truth"]) == 6
    drawn = green(batch["grounding_pixels"])
    for outline, filled in zip(drawn, batch["box_truth"] > 0, strict=True):
        assert outline.any() == filled.any()
        rows, columns = filled.any(1).nonzero(), filled.any(0).nonzero()
        if outline.any():
            lines = outline.any(1).nonzero(), outline.any(0).nonzero()
            for inner, outer in zip((rows, columns), lines, strict=True):
                assert abs(inner.min() - outer.min()) <= 2 and abs(inner.max() - outer.max()) <= 2
    assert 0 < sum(bool(filled.any()) for filled in batch["box_truth"]) < 6
    losses = stage.losses(batch, stage.counts(batch))
    plain = kit.stage("joint", batch=6, augment=0.0, tasks={"classify": 0.5, "describe": 0.0})
    assert losses.keys() - plain.losses(plain.batch(random.Random(3))).keys() == {"box"}
    losses["box"].backward()
    assert stage.model.region.mark.weight.grad.abs().sum() > 0
    stage.model.config.region_summary = False
    try:
        for weight in ("box_weight", "region_weight"):
            with pytest.raises(DataError, match=f"{weight} trains what 'region_summary' adds"):
                kit.stage("joint", **{weight: 1.0})
    finally:
        stage.model.config.region_summary = True


def test_a_box_around_something_else_is_drawn_and_has_no_target(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unibiomed.data.conversation.ELSEWHERE_SHARE", 1.0)
    stage = kit.stage("joint", batch=8, augment=0.0, box_weight=1.0, tasks={"classify": 1.0, "segment": 0.0})
    others = 0
    for seed in range(4):
        sample = stage.sample(random.Random(seed))
        row = " ".join(stage.processor.tokenizer.decode(ids) for ids, _ in sample["row"])
        if "something else" in row.lower():
            others += 1
            assert sample["box_target"] == [-1] and bool(sample["box_truth"][0].any())
            assert green(sample["inputs"].grounding_pixels)[0].any()
    assert others


def test_the_target_in_the_box_is_named_from_the_summary_alone(kit: Kit) -> None:
    stage = kit.stage("joint", batch=6, augment=0.0, region_weight=1.0, tasks={"classify": 0.5, "describe": 0.0})
    batch = stage.batch(random.Random(3))
    drawn = [bool(outline.any()) for outline in green(batch["grounding_pixels"])]
    assert (batch["box_target"] >= 0).tolist() == drawn and 0 < sum(drawn) < 6
    loss = stage.losses(batch, stage.counts(batch))["region"]
    loss.backward()
    assert stage.model.region.tell[0].weight.grad.abs().sum() > 0
    # no image has a box: nothing is named
    batch["box_target"][:] = -1
    assert "region" not in stage.losses(batch, stage.counts(batch))


def test_what_belongs_to_an_image_is_taught(kit: Kit) -> None:
    """A target that is there belongs to its image; what is unknown, and what makes masks, is left alone."""
    stage = kit.stage("encoder", batch=4, context_weight=1.0)
    batch = stage.batch(random.Random(0))
    targets = list(stage.heads.targets)
    assert batch["context"].shape == (4, len(targets))
    assert set(batch["context"].flatten().tolist()) <= {1.0, 0.0, -1.0}
    there = batch["truth"].flatten(1).any(1)
    assert there.any()
    assert bool((batch["context"][batch["truth_image"][there], batch["target"][there]] == 1.0).all())
    batch["context"][:] = torch.tensor([1.0] + [0.0] * (len(targets) - 1))
    losses = stage.losses(batch, stage.counts(batch))
    losses["context"].backward()
    grads = {name: p.grad for name, p in stage.model.named_parameters() if p.grad is not None and p.grad.any()}
    assert grads and all(name.startswith("context.") for name in grads)
    # what is unknown teaches nothing
    batch["context"][:] = -1.0
    assert float(stage.losses(batch, stage.counts(batch))["context"]) == 0.0
    stage.model.config.context_match = False
    try:
        with pytest.raises(DataError, match="context_weight trains what 'context_match' adds"):
            kit.stage("encoder", context_weight=1.0)
    finally:
        stage.model.config.context_match = True


def test_each_answer_weighs_the_same(kit: Kit) -> None:
    """The mean over answers of each answer's mean, as counted one by one."""
    stage = kit.stage("joint", batch=4, turns=3, even_answers=True)
    batch = stage.batch(random.Random(1))
    counts = stage.counts(batch)
    loss = stage.losses(batch, counts)["text"]
    with torch.no_grad():
        out = stage.model(
            batch["input_ids"],
            batch["attention_mask"],
            None,
            batch["position_ids"],
            features=stage._encode(batch, text=True),
        )
    means, every, lengths = [], [], []
    for row, logits in zip(batch["labels"], out.logits, strict=True):
        own: list[torch.Tensor] = []
        for label, before in zip(row[1:], logits[:-1], strict=True):
            if label != IGNORE:
                own.append(-before.log_softmax(0)[label])
                every.append(own[-1])
            elif own:
                means.append(torch.stack(own).mean())
                lengths.append(len(own))
                own = []
        means += [torch.stack(own).mean()] if own else []
    assert counts["answers"] == pytest.approx(len(means)) and len(means) > 4
    torch.testing.assert_close(loss.detach(), torch.stack(means).mean(), rtol=1e-5, atol=1e-6)
    plain = kit.stage("joint", batch=4, turns=3).losses(batch, counts)["text"].detach()
    torch.testing.assert_close(plain, torch.stack(every).mean(), rtol=1e-5, atol=1e-6)
    assert len(set(lengths)) > 2, "answers of one length would say nothing"


def test_answers_in_boxes_teach_the_summary(kit: Kit) -> None:
    stage = kit.stage("joint", batch=4, augment=0.0, tasks={"classify": 1.0, "describe": 0.0, "segment": 0.0})
    stage.losses(stage.batch(random.Random(0)))["text"].backward()
    assert all(p.grad is not None for p in stage.model.region.tell.parameters())


def test_other_tasks_draw_nothing(kit: Kit) -> None:
    stage = kit.stage("joint", batch=4, augment=0.0, tasks={"classify": 0.0, "describe": 0.0})
    assert not any(green(stage.batch(random.Random(seed))["grounding_pixels"]).any() for seed in range(6))


def test_encoder_targets_fit_their_truths(kit: Kit) -> None:
    stage = kit.stage("encoder", batch=3, augment=0.0)
    names = list(kit.heads.targets)
    there = {name: 0 for name in names}
    absent = {name: 0 for name in names}
    for seed in range(15):
        batch = stage.batch(random.Random(seed))
        assert len(batch["truth"]) == len(batch["target"]) == len(batch["truth_image"])
        assert all(1 <= int((batch["truth_image"] == image).sum()) <= 2 for image in range(3))
        for target, truth in zip(batch["target"].tolist(), batch["truth"], strict=True):
            (there if truth.max() > 0.5 else absent)[names[target]] += 1
        dense = zip(
            batch["dense_truth_image"].tolist(), batch["dense_target"].tolist(), batch["dense_truth"], strict=True
        )
        for image, target, truth in dense:
            rows = (batch["truth_image"] == image) & (batch["target"] == target)
            assert all(torch.equal(truth, other) for other in batch["truth"][rows])
    assert there["liver"] and there["polyp"] and not there["spleen"]
    assert absent["polyp"] and absent["spleen"]
    # an image from within the colon shows no liver, although both lie in the abdomen
    assert absent["liver"]


def test_a_data_set_with_one_target(kit: Kit) -> None:
    """No other target can be asked for in vain: the image's own is asked again."""
    colon = [record for record in kit.records if record.dataset == "colon"]
    stage = kit.stage("encoder", records=colon, batch=2)
    stage.heads = AuxiliaryHeads.for_records(colon, TINY.width, TINY.hidden_size)
    for seed in range(10):
        batch = stage.batch(random.Random(seed))
        assert set(batch["target"].tolist()) == {0}
        assert set(batch["truth_image"].tolist()) == {0, 1}


def test_records_that_name_no_target(kit: Kit) -> None:
    """As streamed shards: words alone are learned, and reports among the images are passed over."""
    words = [replace(record, regions=()) for record in kit.records]
    assert any(record.image is None for record in words)
    stage = kit.stage("joint", batch=6, named=2, prompted=2)
    stage.source = Mixture(words, DataRecipe(power=1.0))
    stage.heads = AuxiliaryHeads([], [], TINY.width, TINY.hidden_size)
    batch = stage.batch(random.Random(0))
    assert len(batch["grounding_pixels"]) == 6 and not len(batch["dense_truth"]) and not len(batch["prompt_truth"])
    assert set(stage.losses(batch)) <= {"text", "mask", "presence", "quality"}


def test_text_knows_the_target_only_where_it_is_sure(kit: Kit) -> None:
    stage = kit.stage("text", batch=8)
    liver = kit.heads.targets["liver"]
    assert stage._target("Segment the liver.", "It is [SEG].") == liver  # type: ignore[attr-defined]
    for question, answer in (
        ("Segment the liver.", "No."),
        ("Segment the liver and the spleen.", "It is [SEG]."),
        ("Segment the liver.", "<p> liver </p> [SEG]"),
        ("Segment the liver.", "[SEG] [SEG]"),
        ("Any abnormality?", "It is [SEG]. Polyp"),
    ):
        assert stage._target(question, answer) == -1  # type: ignore[attr-defined]
    batch = stage.batch(random.Random(0))
    assert len(batch["target"]) == len(batch["input_ids"]) == 8


def test_mixture_draws_by_size_and_weight(kit: Kit) -> None:
    shown = [record for record in kit.records if record.image is not None]
    some = [r for r in shown if r.dataset == "abdomen"] + [r for r in shown if r.dataset == "colon"][:2]
    mixture = Mixture(some, DataRecipe(power=0.5, weights={"colon": 2.0}))
    assert mixture.names == ["abdomen", "colon"]
    assert mixture.weights == pytest.approx([math.sqrt(6), 2 * math.sqrt(2)])
    rng = random.Random(0)
    drawn = [mixture.draw(rng).dataset for _ in range(2000)]
    expected = math.sqrt(6) / (math.sqrt(6) + 2 * math.sqrt(2))
    assert drawn.count("abdomen") / 2000 == pytest.approx(expected, abs=0.04)
    with pytest.raises(DataError, match="every data set has a weight of 0"):
        Mixture(some, DataRecipe(weights={record.dataset: 0.0 for record in some}))
    only = Mixture(some, DataRecipe(weights={"colon": 0.0}))
    assert {only.draw(rng).dataset for _ in range(50)} == {"abdomen"}


def test_labels_are_drawn_evenly(kit: Kit) -> None:
    """Of nine images eight show a liver alone, one a spleen too, and one nothing that is outlined."""
    first = next(record for record in kit.records if record.image is not None)
    made = [
        replace(first, key=f"abdomen/{number}", dataset="abdomen", label=None, regions=regions)
        for number, regions in enumerate(
            [(Region("liver", None, box=(0, 0, 4, 4)), Region("spleen", None))] * 8
            + [(Region("liver", None, box=(0, 0, 4, 4)), Region("spleen", None, box=(2, 2, 8, 8))), ()]
        )
    ]
    rng = random.Random(0)
    even = Mixture(made, DataRecipe(), even=True)
    drawn = Counter(even.draw(rng).key for _ in range(4000))
    # liver 1/9 each, spleen 1, without a region 1/10
    total = 9 / 9 + 1 + 1 / 10
    assert drawn["abdomen/8"] / 4000 == pytest.approx((1 / 9 + 1) / total, abs=0.03)
    assert drawn["abdomen/9"] / 4000 == pytest.approx(0.1 / total, abs=0.02)
    assert even.rarity(made[8]) == pytest.approx([1 / 9, 1.0])
    plain = Mixture(made, DataRecipe())
    drawn = Counter(plain.draw(rng).key for _ in range(4000))
    assert drawn["abdomen/8"] / 4000 == pytest.approx(0.1, abs=0.02)
    assert set(plain.rarity(made[8])) == {1.0}


def test_a_diagnosis_is_a_label_of_its_own(kit: Kit) -> None:
    first = next(record for record in kit.records if record.image is not None)
    lesion = (Region("breast lesion", None, box=(0, 0, 4, 4), abnormal=True),)
    made = [
        replace(first, key=f"breast/{number}", dataset="breast", label=label, regions=lesion)
        for number, label in enumerate(["Benign"] * 9 + ["Malignant"])
    ]
    rng = random.Random(0)
    even = Mixture(made, DataRecipe(), even=True)
    drawn = Counter(even.draw(rng).label for _ in range(2000))
    assert drawn["Malignant"] / 2000 == pytest.approx(0.5, abs=0.04)


def test_rare_regions_are_boxed_as_often_as_others(kit: Kit) -> None:
    tasks = {"classify": 1.0, "describe": 0.0, "segment": 0.0}
    stage = kit.stage("joint", batch=1, augment=0.0, region_weight=1.0, even_labels=True, tasks=tasks)
    stage.source.rarity = lambda record: [float(region.target == "liver") for region in record.regions]
    abdomen = [r for r in kit.records if r.dataset == "abdomen" and r.image is not None]
    liver = stage.heads.targets["liver"]
    with_liver = [r for r in abdomen if "liver" in {r.regions[j].target for j in stage.viewer.store.present(r.key)}]
    stage.source.draw = lambda rng: with_liver[0]
    # -1: the box is around something else
    drawn = [int(stage.batch(random.Random(seed))["box_target"]) for seed in range(12)]
    assert set(drawn) <= {liver, -1} and drawn.count(liver) > drawn.count(-1)


def test_stages_that_find_nothing_say_so(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = [replace(r, regions=(), label=None, attributes={}) for r in kit.records if r.image is not None]
    with pytest.raises(DataError, match="'encoder' needs images with masks"):
        kit.stage("encoder", records=bare).batch(random.Random(0))
    monkeypatch.setattr("unibiomed.train.stages.MAX_MISSES", 20)
    nothing = dict.fromkeys((*OTHERS, "segment"), 0.0)
    with pytest.raises(DataError, match="'joint': no training image answers"):
        kit.stage("joint", tasks=nothing).batch(random.Random(0))
    monkeypatch.setattr("unibiomed.train.stages.text_pairs", lambda *_: [])
    with pytest.raises(DataError, match="'text' needs texts"):
        kit.stage("text").batch(random.Random(0))


# ---------------------------------------------------------------- what is learned


def rates(*parts: str) -> dict[str, float]:
    return {part: RATES[part] for part in parts}


def test_encoder_stage_learns(kit: Kit) -> None:
    losses = learn(kit.stage("encoder", batch=4, learning_rates=rates("backbone", "grounding", "head")))
    assert set(losses) == {"mask", "presence", "quality", "dense", "label"}
    assert all(math.isfinite(value) and value > 0 for value in losses.values())
    assert moved(kit) == {"backbone", "grounding", "aux.prompts", "aux.dense", "aux.label"}


def test_text_stage_learns(kit: Kit) -> None:
    losses = learn(kit.stage("text", batch=16, learning_rates=rates("language", "head")))
    assert set(losses) == {"text", "distill"}
    assert losses["text"] == pytest.approx(math.log(300), rel=0.2)  # untrained: every token alike
    assert moved(kit) == {"language", "head"}  # the grounding head; the encoder's prompts are what it is drawn to


def test_joint_stage_learns(kit: Kit) -> None:
    losses = learn(kit.stage("joint", batch=4))
    assert set(losses) == {"text", "mask", "presence", "quality", "dense", "label"}
    assert all(math.isfinite(value) and value > 0 for value in losses.values())
    assert moved(kit) == {"backbone", "grounding", "scores", "language", "head", "aux.dense", "aux.label"}


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        *itertools.product(["joint"], [*itertools.combinations(sorted(RATES), 2), ("language",)]),
        ("text", ("language",)),
    ],
)
def test_frozen_parts_have_no_gradient(kit: Kit, kind: str, parts: tuple[str, ...]) -> None:
    stage = kit.stage(kind, batch=2, learning_rates=rates(*parts))
    learn(stage)
    assert {"head" if name.startswith("aux.") else name for name in moved(kit)} == set(parts)
    for name, parameter in kit.model.named_parameters():
        assert parameter.requires_grad == (part_of(name, ALL) in parts and not name.endswith("dtype_anchor")), name
        assert parameter.requires_grad or parameter.grad is None, name


@torch.no_grad()
def test_weights_of_losses(kit: Kit) -> None:
    """Each weight scales its own loss; at 0 the loss is not computed."""
    batch = kit.stage("joint", batch=4).batch(random.Random(3))
    single = kit.stage("joint").losses(batch)
    double = kit.stage("joint", dense_weight=2.0, presence_weight=0.6, quality_weight=0.6, label_weight=0.4).losses(
        batch
    )
    for name in ("dense", "presence", "quality", "label"):
        assert float(double[name]) == pytest.approx(2 * float(single[name]), rel=1e-4), name
    assert float(double["mask"]) == pytest.approx(float(single["mask"]), rel=1e-4)
    plain = kit.stage("joint", dense_weight=0.0, presence_weight=0.0, quality_weight=0.0, label_weight=0.0).losses(
        batch
    )
    assert set(plain) == {"text", "mask"}


@pytest.mark.parametrize("kind", ["encoder", "joint"])
def test_weights_of_cross_entropy_and_dice(kit: Kit, kind: str) -> None:
    """They weigh every loss of a mask, and no other."""
    quiet: dict[str, object] = {"presence_weight": 0.0, "quality_weight": 0.0}
    more = {"prompted": 1} if kind == "joint" else {}

    def losses(**weights: float) -> dict[str, float]:
        stage = kit.stage(kind, batch=3, **(quiet | more | weights))
        found = stage.losses(stage.batch(random.Random(2)))
        return {name: float(value.detach()) for name, value in found.items()}

    bce, dice = losses(bce_weight=1.0, dice_weight=0.0), losses(bce_weight=0.0, dice_weight=1.0)
    both = losses(bce_weight=3.0, dice_weight=7.0)
    of_masks = {"mask", "dense", "prompted"} if kind == "joint" else {"mask", "dense"}
    assert of_masks | {"label"} <= both.keys()
    for name, value in both.items():
        if name in of_masks:
            assert value == pytest.approx(3 * bce[name] + 7 * dice[name], rel=1e-5) and dice[name] > 0 < bce[name]
        else:
            assert value == pytest.approx(bce[name], rel=1e-6)


def test_batches_without_masks(kit: Kit) -> None:
    stage = kit.stage("joint", tasks={"ask": 1.0, **dict.fromkeys(["segment", "recognize", "report"], 0.0)})
    stage.recipe.tasks.update(classify=0.0, describe=0.0)
    losses = learn(stage)
    assert "mask" not in losses and math.isfinite(losses["text"])


def test_heads_are_named_by_the_records(kit: Kit) -> None:
    assert list(kit.heads.targets) == ["liver", "polyp", "spleen"]
    assert list(kit.heads.labels) == ["No findings", "Polyp"]
    assert isinstance(kit.heads.dense, nn.Conv2d) and kit.heads.dense.out_channels == 3
    labels = set()
    for seed in range(10):
        batch = kit.stage("encoder", batch=4, augment=0.0).batch(random.Random(seed))
        for image, label in enumerate(batch["label"].tolist()):
            truths = batch["dense_truth"][(batch["dense_truth_image"] == image) & (batch["dense_target"] == 1)]
            if len(truths):  # a colon: its label is "Polyp" only where one is there
                assert label == (1 if truths.max() > 0.5 else 0)
            else:
                assert label == -1
            labels.add(label)
    assert labels == {-1, 0, 1}


def test_an_empty_mask_teaches_no_findings(kit: Kit) -> None:
    """The store leaves empty masks out; the questions must still know that the target is absent, not unknown."""
    colon = [record for record in kit.records if record.dataset == "colon" and record.key in kit.store.row]
    normal = [record for record in colon if not kit.store.present(record.key)]
    assert normal
    stage = kit.stage("joint", records=normal, tasks={"recognize": 1.0, **dict.fromkeys(("segment", "report"), 0.0)})
    batch = stage.batch(random.Random(0))
    answers = [
        kit.processor.decode(row[row != IGNORE].tolist()) for row in batch["labels"] if bool((row != IGNORE).any())
    ]
    assert any("No findings<|end|>" in answer for answer in answers)


def test_a_caption_is_learned_without_masks(kit: Kit) -> None:
    shown = next(record for record in kit.records if record.dataset == "colon")
    captioned = replace(
        shown, key="colon/captioned", regions=(), label=None, label_needs_finding=False, text="A fold of the colon."
    )
    stage = kit.stage("joint", records=[captioned], tasks={"report": 1.0, "segment": 0.0, "ask": 0.0})
    batch = stage.batch(random.Random(0))
    learned = [[int(i) for i in row if i >= 0] for row in batch["labels"]]
    said = kit.processor.encode("A fold of the colon." + END)
    assert all(row and row == said * (len(row) // len(said)) for row in learned)
    assert len(batch["truth"]) == 0 and "mask" not in stage.losses(batch)


@pytest.mark.parametrize("questions", [1, 3])
def test_packed_turns_are_learned_as_if_alone(kit: Kit, questions: int) -> None:
    words = ["Please segment the liver.", "Is it large?", "Can you identify any abnormality within this image?"]
    answers = ["It is [SEG].", "yes", "It is [SEG]. Polyp"]
    tokens = kit.processor.settings.tokens_per_tile
    turns = [encode_turn(kit.processor, q, a, tokens) for q, a in zip(words, answers, strict=True)][:questions]
    model = kit.model.eval()
    size = kit.store.size
    features = model.encode_image(torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0)))
    packed, alone = pack([turns, turns[:1]]), pad([*turns, turns[0]])
    image = torch.tensor([0] * questions + [1])
    with torch.no_grad():
        names = ("input_ids", "attention_mask", "labels", "position_ids")
        one = model(*(packed[name] for name in names), features=features)
        many = model(alone["input_ids"], alone["attention_mask"], alone["labels"], features=features, image_index=image)
    torch.testing.assert_close(one.loss, many.loss)
    torch.testing.assert_close(one.seg_states, many.seg_states, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(one.masks.logits, many.masks.logits, atol=1e-4, rtol=1e-3)
    assert packed["input_ids"].shape[1] < alone["input_ids"].numel() or questions == 1
