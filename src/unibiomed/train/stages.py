"""What each kind of stage reads and what loss it takes.

``encoder``: masks from one learned prompt a target, without words: the image side learns quickly.
``text``: the language model alone; the prompt of ``[SEG]`` is drawn towards the encoder stage's prompt of that target.
``joint``: the paper's training, questions and answers with masks (section 4.1).
``boxes``: the box decoder, see `box_stage`.

`stage_base` holds what they share.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from unibiomed.data.conversation import make_turns, text_pairs
from unibiomed.data.phrasing import pick_name, task_question
from unibiomed.data.records import Record
from unibiomed.errors import DataError
from unibiomed.images.geometry import draw_box
from unibiomed.model.modeling import ImageFeatures, UniBiomedOutput
from unibiomed.tasks import SEG
from unibiomed.terminology import absent_targets

from .box_stage import BoxStage
from .packing import IGNORE, answer_lengths, encode_turn, pack, pad
from .stage_base import Counts, Sample, Stage, mean_over

BOX_TASKS = ("classify", "describe")
MAX_MISSES = 10_000
"""Draws in a row without a usable record after which there is none: a stage must not search for ever."""


class EncoderStage(Stage):
    """The image side with one learned prompt a target."""

    def sample(self, rng: random.Random) -> Sample:
        """An image, and some targets with their truth, absent ones among them."""
        record = self.source.draw(rng)
        misses = 0
        while not any(not region.box and region.target in self.heads.targets for region in record.regions):
            misses += 1
            if misses > MAX_MISSES:
                raise DataError(
                    f"stage '{self.recipe.name}' needs images with masks: there are none in the training split"
                )
            record = self.source.draw(rng)
        view = self.viewer.view(record, rng, self.recipe.augment)
        record = view.record
        usable = [j for j, r in enumerate(record.regions) if r.target in self.heads.targets and not r.box]
        present = [j for j in usable if view.has(j)]
        absent = [j for j in usable if j not in present]
        rng.shuffle(present)
        chosen: list[int | None] = list(present[: self.recipe.turns])
        if len(chosen) < self.recipe.turns or rng.random() < self.recipe.absent:
            own_absent = rng.choice(absent) if absent and rng.random() < 0.7 else None
            chosen = [*chosen[: self.recipe.turns - 1], own_absent]
        # not merely "not annotated": a fundus photograph of the vessels shows an optic disc all the same
        own = {region.target for region in record.regions}
        foreign = [t for t in absent_targets(record.modality, record.site, own) if t in self.heads.targets]
        sample: Sample = defaultdict(list, self._dense_targets(record, view))
        sample["context"] = self._belongs({r.target for r in record.regions}, set(foreign))
        for j in chosen:
            if j is None and not foreign:
                j = rng.choice(absent or present)
            target = rng.choice(foreign) if j is None else record.regions[j].target
            sample["target"].append(self.heads.targets[target])
            sample["truth"].append(view.mask(j))
        sample["judged"] = self._judged(record, present, absent, foreign, rng)
        sample |= self._outline_sample(record, view, rng)
        return sample | {"inputs": self.processor.image(view.image), "seed": rng.getrandbits(48)}

    def _judged(
        self, record: Record, present: list[int], absent: list[int], foreign: list[str], rng: random.Random
    ) -> list[tuple[int, bool]]:
        """Targets of which presence alone is learned: half of this image's kind where there are enough, then others."""
        wanted = self.recipe.presence_targets
        own = [(self.heads.targets[record.regions[j].target], j in present) for j in (*present, *absent)]
        chosen = rng.sample(own, min(len(own), wanted // 2))
        others = rng.sample(foreign, min(len(foreign), wanted - len(chosen)))
        return chosen + [(self.heads.targets[target], False) for target in others]

    def collate(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """Samples as one batch of tensors.

        ``context``, (images, targets), tells which targets belong to an image; ``judged``, (N, 3), holds the image, the
        target and whether it is there, for targets without a mask.
        """
        judged = [(i, *pair) for i, s in enumerate(samples) for pair in s["judged"]]
        return super().collate(samples) | {
            "context": torch.tensor([s["context"] for s in samples]),
            "judged": torch.tensor(judged, dtype=torch.long).view(-1, 3),
        }

    def counts(self, batch: dict[str, Any]) -> Counts:
        """Masks, maps, labels, and images."""
        return super().counts(batch) | {"context": float(len(batch["context"])), "judged": float(len(batch["judged"]))}

    def losses(self, batch: dict[str, Any], counts: Counts | None = None) -> dict[str, torch.Tensor]:
        """Masks, their scores, and the auxiliary heads."""
        counts = counts or self.counts(batch)
        features = self._encode(batch, text=False)
        channels: list[torch.Tensor] = []
        last = self.model.grounding.mask_decoder.output_hypernetworks_mlps[-1]
        hook = last.register_forward_hook(lambda module, inputs, output: channels.append(output))
        masks = self.model.decode_masks(features.maps, self.heads.prompts(batch["target"]), batch["truth_image"])
        hook.remove()
        losses = self._mask_losses(masks, batch, counts) | self._auxiliary(features, batch, counts)
        if self.recipe.align_weight:
            # a mask is a weighted sum of fine channels, in the dense head and in SAM2; the dense head finds its weights
            # soon, and without them the decoder may call thin targets empty for good
            wanted = self.heads.dense.weight[batch["target"], :, 0, 0].detach()
            error = (channels[0].flatten(0, 1) - wanted).square().mean(1) / wanted.square().mean(1).clamp(min=1e-6)
            losses["align"] = self.recipe.align_weight * mean_over(error, counts["truth"])
        losses |= self._outline_losses(features, batch, counts)
        if len(batch["judged"]):
            image, target, there = batch["judged"].unbind(1)
            logits = self.model.presence_logits(features.maps, self.heads.prompts(target), image)
            error = F.binary_cross_entropy_with_logits(logits, there.float(), reduction="none")
            losses["judged"] = self.recipe.presence_weight * mean_over(error, counts["judged"])
        if self.recipe.context_weight and batch["context"].numel():
            losses["context"] = self.recipe.context_weight * self._context(features, batch["context"], counts)
        return losses

    def _belongs(self, own: set[str], foreign: set[str]) -> list[float]:
        """For each target 1 where the image is of its kind, 0 where it is surely not, -1 where that is unknown."""
        return [1.0 if target in own else 0.0 if target in foreign else -1.0 for target in self.heads.targets]

    def _context(self, features: ImageFeatures, belongs: torch.Tensor, counts: Counts) -> torch.Tensor:
        """Cross-entropy of every target in every image; an image's own targets weigh as much as all the others."""
        seen = self.model.context.embed_image(features.maps[2])
        logits = self.model.context(seen[:, None], self.heads.prompts.weight[None])
        errors = F.binary_cross_entropy_with_logits(logits, belongs.clamp(min=0), reduction="none")
        own, foreign = (
            (errors * chosen).sum(1) / chosen.sum(1).clamp(min=1) for chosen in (belongs == 1, belongs == 0)
        )
        return mean_over((own + foreign) / 2, counts["context"])


class TextStage(Stage):
    """The language model alone, on the same questions and answers and on report texts."""

    def sample(self, rng: random.Random) -> Sample:
        """A question with its answer, and the target that it names for sure, -1 where there is none."""
        for _ in range(MAX_MISSES):
            for question, answer in text_pairs(self.source.draw(rng), rng)[:1]:
                turn = encode_turn(self.processor, question, answer, 0)
                return {"turn": turn, "target": self._target(question, answer)}
        raise DataError(f"stage '{self.recipe.name}' needs texts: the training split answers no question")

    def collate(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """Right-padded rows."""
        return pad([s["turn"] for s in samples]) | {"target": torch.tensor([s["target"] for s in samples])}

    def counts(self, batch: dict[str, Any]) -> Counts:
        """Tokens that are learned, and prompts that are known."""
        return {"text": _learned(batch), "distill": float((batch["target"] >= 0).sum())}

    def _target(self, question: str, answer: str) -> int:
        # only where the question names one known target: what [SEG] should then prompt is certain
        if answer.count("[SEG]") != 1 or "<p>" in answer or len(answer) > 40:
            return -1
        named = [t for t in self.heads.targets if t.lower() in question.lower()]
        longest = max(named, key=len, default="")
        return self.heads.targets[longest] if all(t in longest for t in named) and longest else -1

    def losses(self, batch: dict[str, Any], counts: Counts | None = None) -> dict[str, torch.Tensor]:
        """Next tokens, and the distance of ``[SEG]`` prompts from the encoder stage's."""
        counts = counts or self.counts(batch)
        out = self.model(batch["input_ids"], batch["attention_mask"], batch["labels"], seg_prompts=False)
        losses = {"text": out.loss * (_learned(batch) / max(counts["text"], 1.0))}
        if len(out.seg_rows):
            losses |= self._distill(out.seg_states, batch["target"][out.seg_rows], counts["distill"])
        return losses


class JointStage(Stage):
    """Questions and answers about images, with masks: the paper's training."""

    def sample(self, rng: random.Random) -> Sample:
        """An image, questions with answers about it, and the truth of each ``[SEG]`` in its order."""
        for _ in range(MAX_MISSES):
            record = self.source.draw(rng)
            if record.image is None:
                # a stream of shards has reports too
                continue
            view = self.viewer.view(record, rng, self.recipe.augment)
            record = view.record
            # a view leaves empty masks out, but "No findings" is said only of what is known to be empty
            solid = {j: view.solid(j) for j, region in enumerate(record.regions) if not region.box}
            boxable = [j for j, mask in solid.items() if mask.any()]
            boxable += [j for j, region in enumerate(record.regions) if region.box]
            boxed = bool(boxable) and rng.random() < sum(self.recipe.tasks.get(t, 0.15) for t in BOX_TASKS)
            weights = {t: w for t, w in self._task_weights().items() if (t in BOX_TASKS) == boxed}
            around = None
            if boxed and self.recipe.even_labels:
                rarity = self.source.rarity(record)
                around = rng.choices(boxable, [rarity[j] for j in boxable])[0]
            turns = make_turns(record, solid, rng, tasks=weights, count=self.recipe.turns, boxed=around)
            if turns:
                break
        else:
            raise DataError(f"stage '{self.recipe.name}': no training image answers a question of its tasks")
        # one image can show one box only
        turns = [t for t in turns if (t.box_region, t.box) == (turns[0].box_region, turns[0].box)]
        image, box, held = view.image, None, -1
        if boxed and turns[0].box is not None:
            box = turns[0].box
            image = draw_box(image, box)
            if turns[0].box_region is not None:
                held = self.heads.targets.get(record.regions[turns[0].box_region].target, -1)
        inputs = self.processor.image(image)
        sample: Sample = defaultdict(list, self._dense_targets(record, view))
        if self.recipe.box_weight:
            sample["box_truth"].append(_filled(box, (image.shape[0], image.shape[1]), view.side))
        sample["box_target"].append(held)
        usable = [j for j, r in enumerate(record.regions) if r.target in self.heads.targets and not r.box]
        if not boxed:
            for k in rng.sample(usable, min(self.recipe.prompted, len(usable))):
                sample["prompt_target"].append(self.heads.targets[record.regions[k].target])
                sample["prompt_truth"].append(view.mask(k))
            sample |= self._outline_sample(record, view, rng)
        row = [encode_turn(self.processor, turn.question, turn.answer, inputs.tokens) for turn in turns]
        for j in (j for turn in turns for j in turn.masks):
            sample["truth"].append(view.mask(j))
            known = None if j is None else self.heads.targets.get(record.regions[j].target)
            sample["seg_target"].append(-1 if known is None else known)
            sample["seg_judged"].append(True)
        for target in rng.choices(list(self.heads.targets), k=self.recipe.named if self.heads.targets else 0):
            # words that few images hold are learned late: what [SEG] should prompt is known from the name alone
            name = pick_name(target, rng)
            asked_for = task_question("segment", rng, modality=record.modality, site=record.site, target=name)
            row.append(encode_turn(self.processor, asked_for, f"It is {SEG}.", inputs.tokens))
            sample["seg_target"].append(self.heads.targets[target])
            sample["seg_judged"].append(False)
        return sample | {"inputs": inputs, "row": row, "seed": rng.getrandbits(48)}

    def collate(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """The turns of each image packed in one row."""
        return super().collate(samples) | pack([s["row"] for s in samples])

    def counts(self, batch: dict[str, Any]) -> Counts:
        """As for masks, and tokens and answers that are learned, and prompts that are known."""
        known = float((batch["seg_target"] >= 0).sum())
        lengths = answer_lengths(batch["labels"][:, 1:])
        answers = float((1 / lengths[lengths > 0]).sum())
        return super().counts(batch) | {"text": _learned(batch), "answers": answers, "distill": known}

    def _task_weights(self) -> dict[str, float]:
        default = {"segment": 0.4, "recognize": 0.2, "report": 0.1, "ask": 0.15, "classify": 0.15, "describe": 0.1}
        return default | self.recipe.tasks

    def losses(self, batch: dict[str, Any], counts: Counts | None = None) -> dict[str, torch.Tensor]:
        """Next tokens, masks, their scores, and the auxiliary heads."""
        counts = counts or self.counts(batch)
        features = self._encode(batch, text=True)
        out = self.model(
            batch["input_ids"],
            batch["attention_mask"],
            batch["labels"],
            batch["position_ids"],
            features=features,
            seg_prompts=False,
        )
        losses = {"text": self._text_loss(out, batch["labels"][:, 1:], counts)}
        if len(out.seg_rows):
            judged = batch["seg_judged"]
            assert len(out.seg_rows) == len(judged) and int(judged.sum()) == len(batch["truth"]), (
                "a mask for each [SEG]"
            )
            losses |= self._distill(out.seg_states, batch["seg_target"], counts["distill"])
            if bool(judged.any()):
                masks = self.model.decode_masks(features.maps, out.seg_states[judged], out.seg_rows[judged])
                losses |= self._mask_losses(masks, batch, counts)
        if len(batch["prompt_truth"]):
            prompts = self.heads.prompts(batch["prompt_target"])
            masks = self.model.decode_masks(features.maps, prompts, batch["prompt_truth_image"])
            parts = self._mask_losses(masks, batch, counts, "prompt_truth")
            losses["prompted"] = torch.stack(list(parts.values())).sum()
        if len(batch["box_truth"]):
            logits = self.model.region.mark(features.maps[2])[:, 0]
            truth = F.interpolate(batch["box_truth"][:, None], logits.shape[-2:], mode="area")[:, 0]
            error = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean((1, 2))
            losses["box"] = self.recipe.box_weight * mean_over(error, counts["box_truth"])
        if self.recipe.region_weight and bool((batch["box_target"] >= 0).any()):
            logits = self.heads.region(self.model.region(features.maps))
            loss = F.cross_entropy(logits, batch["box_target"], ignore_index=-1, reduction="none")
            losses["region"] = self.recipe.region_weight * mean_over(loss, counts["box_target"])
        return losses | self._outline_losses(features, batch, counts) | self._auxiliary(features, batch, counts)

    def _text_loss(self, out: UniBiomedOutput, labels: torch.Tensor, counts: Counts) -> torch.Tensor:
        """Cross-entropy of the answers' tokens; the name of a finding has few, and a report many."""
        assert out.loss is not None and out.logits is not None
        told = labels != IGNORE
        if not self.recipe.even_answers:
            return out.loss * (float(told.sum()) / max(counts["text"], 1.0))
        errors = F.cross_entropy(out.logits.float(), labels[told], reduction="none")
        return mean_over(errors / answer_lengths(labels)[told], counts["answers"])


STAGES: dict[str, type[Stage]] = {"encoder": EncoderStage, "text": TextStage, "joint": JointStage, "boxes": BoxStage}


def _filled(box: tuple[int, int, int, int] | None, size: tuple[int, int], side: int) -> torch.Tensor:
    """(side, side) with 1 in a box of an image of (height, width); empty without one."""
    filled = torch.zeros(side, side)
    if box is not None:
        x0, y0, x1, y1 = box
        down, right = side / size[0], side / size[1]
        filled[int(y0 * down) : math.ceil(y1 * down), int(x0 * right) : math.ceil(x1 * right)] = 1.0
    return filled


def _learned(batch: dict[str, Any]) -> float:
    return float((batch["labels"][:, 1:] != IGNORE).sum())


__all__ = ["STAGES", "Counts", "EncoderStage", "JointStage", "Sample", "Stage", "TextStage"]
