"""What each kind of stage reads and what loss it takes.

``encoder``: masks from one learned prompt a target, without words: the image side learns quickly.
``text``: the language model alone; the prompt of ``[SEG]`` is drawn towards the encoder stage's prompt of that target.
``joint``: the paper's training, questions and answers with masks (section 4.1).
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from unibiomed.data.conversation import make_turns, text_corpus
from unibiomed.data.phrasing import foreign_targets, pick_name, task_question
from unibiomed.data.records import Record
from unibiomed.errors import DataError
from unibiomed.images.geometry import draw_box, mask_box
from unibiomed.model.modeling import ImageFeatures, MaskPrediction, UniBiomedModel
from unibiomed.model.processing import END, IMAGENET_MEAN, IMAGENET_STD, UniBiomedProcessor
from unibiomed.tasks import SEG

from .augment import augment
from .losses import score_losses, segmentation_loss, soft_iou
from .recipe import DataRecipe, StageRecipe
from .store import ImageStore

BOX_TASKS = ("classify", "describe")
IGNORE = -100
MAX_MISSES = 10_000
"""Draws in a row without a usable record after which there is none: a stage must not search for ever."""


class AuxiliaryHeads(nn.Module):
    """Heads that help the training and are not shipped: a prompt a target, a dense map a target, the image's label.

    Parameters
    ----------
    targets, labels : sequence of str
        What the data sets name.
    width : int
        Channels of the neck.
    """

    def __init__(self, targets: Sequence[str], labels: Sequence[str], width: int) -> None:
        super().__init__()
        self.targets = {target: i for i, target in enumerate(targets)}
        self.labels = {label: i for i, label in enumerate(labels)}
        self.prompts = nn.Embedding(len(targets), width)
        self.dense = nn.Conv2d(width // 8, len(targets), 1)
        self.label = nn.Linear(width, len(labels))

    @classmethod
    def for_records(cls, records: Sequence[Record], width: int) -> AuxiliaryHeads:
        """Heads for everything that `records` name."""
        targets = sorted({region.target for record in records for region in record.regions})
        labels = sorted({record.label for record in records if record.label} | {"No findings"})
        return cls(targets, labels, width)


class Mixture:
    """Draws records: the data set first, then one of its images.

    Parameters
    ----------
    records : sequence of Record
        What may be drawn.
    recipe : DataRecipe
        How often each data set is.
    """

    def __init__(self, records: Sequence[Record], recipe: DataRecipe) -> None:
        groups: dict[str, list[Record]] = defaultdict(list)
        for record in records:
            groups[record.dataset].append(record)
        self.names = sorted(groups)
        self.groups = groups
        self.weights = [len(groups[n]) ** recipe.power * recipe.weights.get(n, 1.0) for n in self.names]

    def draw(self, rng: random.Random) -> Record:
        """One record."""
        return rng.choice(self.groups[rng.choices(self.names, self.weights)[0]])


def normalise_batch(images: list[torch.Tensor]) -> torch.Tensor:
    """(N, 3, size, size) for the encoder, of (3, size, size) images in [0, 1]."""
    mean, std = torch.tensor(IMAGENET_MEAN).view(3, 1, 1), torch.tensor(IMAGENET_STD).view(3, 1, 1)
    return (torch.stack(images) - mean) / std


class Stage:
    """One kind of stage: makes the batch of a step from the step's own random numbers, and the losses of a batch."""

    def __init__(
        self,
        recipe: StageRecipe,
        model: UniBiomedModel,
        heads: AuxiliaryHeads,
        processor: UniBiomedProcessor,
        store: ImageStore,
        mixture: Mixture,
    ) -> None:
        self.recipe, self.model, self.heads = recipe, model, heads
        self.processor, self.store, self.mixture = processor, store, mixture
        self.size = processor.settings.grounding_size

    def batch(self, rng: random.Random) -> dict[str, Any]:
        """The inputs of one step, made from `rng` alone."""
        raise NotImplementedError

    def losses(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Weighted losses by name; their sum is what is minimised."""
        raise NotImplementedError

    def _view(self, record: Record, rng: random.Random) -> tuple[torch.Tensor, dict[int, torch.Tensor]]:
        pixels, masks = self.store.load(record.key)
        return augment(record, pixels, masks, rng, size=self.size, strength=self.recipe.augment)

    def _mask_losses(self, masks: MaskPrediction, truth: torch.Tensor) -> dict[str, torch.Tensor]:
        assert masks.quality is not None and masks.presence_logits is not None
        logits, quality = masks.best(), masks.quality.amax(1)
        out = {"mask": segmentation_loss(logits, truth, points=self.recipe.points).mean()}
        if self.recipe.presence_weight or self.recipe.quality_weight:
            present = truth.flatten(1).amax(1) > 0.5
            presence_loss, quality_loss = score_losses(masks.presence_logits, quality, present, soft_iou(logits, truth))
            out["presence"] = self.recipe.presence_weight * presence_loss
            out["quality"] = self.recipe.quality_weight * quality_loss
        return out

    def _distill(self, states: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        """Distance of the prompts at ``[SEG]`` from the learned prompts of their targets, -1 where none is known."""
        known = targets >= 0
        if not self.recipe.distill_weight or not bool(known.any()):
            return {}
        wanted = self.heads.prompts(targets[known]).detach()
        error = (states[known] - wanted).square().mean() / wanted.square().mean()
        return {"distill": self.recipe.distill_weight * error}

    def _auxiliary(self, features: ImageFeatures, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        out = {}
        if self.recipe.dense_weight and len(batch["dense_truth"]):
            maps = self.heads.dense(F.gelu(features.maps[0]))
            logits = maps[batch["dense_image"], batch["dense_target"]]
            out["dense"] = self.recipe.dense_weight * segmentation_loss(logits, batch["dense_truth"], points=0).mean()
        if self.recipe.label_weight and bool((batch["label"] >= 0).any()):
            logits = self.heads.label(features.maps[2].mean((2, 3)))
            out["label"] = self.recipe.label_weight * F.cross_entropy(logits, batch["label"], ignore_index=-1)
        return out

    def _dense_targets(self, record: Record, masks: dict[int, torch.Tensor], image: int, batch: dict[str, Any]) -> None:
        for j, region in enumerate(record.regions):
            batch["dense_image"].append(image)
            batch["dense_target"].append(self.heads.targets[region.target])
            batch["dense_truth"].append(masks.get(j, torch.zeros(self.size, self.size)))
        found = any(record.regions[j].abnormal and masks[j].max() > 0.5 for j in masks)
        label = record.diagnosis(found)
        batch["label"].append(self.heads.labels.get(label, -1) if label else -1)


class EncoderStage(Stage):
    """The image side with one learned prompt a target."""

    def batch(self, rng: random.Random) -> dict[str, Any]:
        """Images, and for each some targets with their truth, absent ones among them."""
        if not any(record.regions for group in self.mixture.groups.values() for record in group):
            raise DataError(f"stage '{self.recipe.name}' needs images with masks: there are none in the training split")
        batch: dict[str, Any] = defaultdict(list)
        for i in range(self.recipe.batch):
            record = self.mixture.draw(rng)
            while not record.regions:
                record = self.mixture.draw(rng)
            image, masks = self._view(record, rng)
            batch["images"].append(image)
            self._dense_targets(record, masks, i, batch)
            present = [j for j in masks if masks[j].max() > 0.5]
            absent = [j for j in range(len(record.regions)) if j not in present]
            rng.shuffle(present)
            chosen: list[int | None] = list(present[: self.recipe.turns])
            if len(chosen) < self.recipe.turns or rng.random() < self.recipe.absent:
                own_absent = rng.choice(absent) if absent and rng.random() < 0.7 else None
                chosen = [*chosen[: self.recipe.turns - 1], own_absent]
            # not merely "not annotated": a fundus photograph of the vessels shows an optic disc all the same
            foreign = [t for t in foreign_targets(record.modality, record.site) if t in self.heads.targets]
            for j in chosen:
                if j is None and not foreign:
                    j = rng.choice(absent or present)
                target = rng.choice(foreign) if j is None else record.regions[j].target
                batch["image_index"].append(i)
                batch["target"].append(self.heads.targets[target])
                empty = torch.zeros(self.size, self.size)
                batch["truth"].append(empty if j is None else masks.get(j, empty))
        return _stack(batch)

    def losses(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Masks, their scores, and the auxiliary heads."""
        features = self.model.encode_image(batch["images"], text=False)
        masks = self.model.decode_masks(features.maps, self.heads.prompts(batch["target"]), batch["image_index"])
        return self._mask_losses(masks, batch["truth"]) | self._auxiliary(features, batch)


class TextStage(Stage):
    """The language model alone, on the same questions and answers and on report texts."""

    def batch(self, rng: random.Random) -> dict[str, Any]:
        """Questions with answers, and the target that each names for sure, -1 where none is."""
        sequences, prompts = [], []
        records = [record for group in self.mixture.groups.values() for record in group]
        for turn in text_corpus(records, rng, self.recipe.batch):
            question, answer = turn[0], turn[1]
            sequences.append(encode_turn(self.processor, question, answer, 0))
            prompts.append(self._target(question, answer))
        if not sequences:
            raise DataError(f"stage '{self.recipe.name}' needs texts: the training split answers no question")
        return pad(sequences) | {"target": torch.tensor(prompts)}

    def _target(self, question: str, answer: str) -> int:
        # only where the question names one known target: what [SEG] should then prompt is certain
        if answer.count("[SEG]") != 1 or "<p>" in answer or len(answer) > 40:
            return -1
        named = [t for t in self.heads.targets if t.lower() in question.lower()]
        longest = max(named, key=len, default="")
        return self.heads.targets[longest] if all(t in longest for t in named) and longest else -1

    def losses(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Next tokens, and the distance of ``[SEG]`` prompts from the encoder stage's."""
        out = self.model(batch["input_ids"], batch["attention_mask"], batch["labels"], seg_prompts=False)
        losses = {"text": out.loss}
        if len(out.seg_rows):
            losses |= self._distill(out.seg_states, batch["target"][out.seg_rows])
        return losses


class JointStage(Stage):
    """Questions and answers about images, with masks: the paper's training."""

    def batch(self, rng: random.Random) -> dict[str, Any]:
        """Images, questions with answers about them, and the truth of each ``[SEG]`` in its order."""
        batch: dict[str, Any] = defaultdict(list)
        rows = []
        misses = 0
        empty = torch.zeros(self.size, self.size)
        tokens = self.processor.settings.tokens_per_tile
        while len(batch["images"]) < self.recipe.batch:
            record = self.mixture.draw(rng)
            image, masks = self._view(record, rng)
            # the store leaves empty masks out, but "No findings" is said only of what is known to be empty
            nothing = np.zeros((self.size, self.size), dtype=bool)
            solid = {j: (masks[j] > 0.5).numpy() if j in masks else nothing for j in range(len(record.regions))}
            boxable = [j for j, mask in solid.items() if mask.any()]
            boxed = bool(boxable) and rng.random() < sum(self.recipe.tasks.get(t, 0.15) for t in BOX_TASKS)
            weights = {t: w for t, w in self._task_weights().items() if (t in BOX_TASKS) == boxed}
            turns = make_turns(record, solid, rng, tasks=weights, count=self.recipe.turns)
            if not turns:
                misses += 1
                if misses > MAX_MISSES:
                    raise DataError(f"stage '{self.recipe.name}': no training image answers a question of its tasks")
                continue
            # one image can show one box only
            turns = [t for t in turns if (t.box_region, t.box) == (turns[0].box_region, turns[0].box)]
            if boxed and turns[0].box_region is not None:
                box = turns[0].box or mask_box(solid[turns[0].box_region])
                assert box is not None
                drawn = draw_box((image.permute(1, 2, 0) * 255).round().byte().numpy(), box)
                image = torch.from_numpy(drawn).permute(2, 0, 1).float() / 255
            number = len(batch["images"])
            batch["images"].append(image)
            self._dense_targets(record, masks, number, batch)
            if not boxed:
                asked = rng.sample(range(len(record.regions)), min(self.recipe.prompted, len(record.regions)))
                for k in asked:
                    batch["prompt_image"].append(number)
                    batch["prompt_target"].append(self.heads.targets[record.regions[k].target])
                    batch["prompt_truth"].append(masks.get(k, empty))
            row = [encode_turn(self.processor, turn.question, turn.answer, tokens) for turn in turns]
            for j in (j for turn in turns for j in turn.masks):
                batch["truth"].append(empty if j is None else masks.get(j, empty))
                batch["seg_target"].append(-1 if j is None else self.heads.targets[record.regions[j].target])
                batch["seg_judged"].append(True)
            for target in rng.choices(list(self.heads.targets), k=self.recipe.named):
                # words that few images hold are learned late: what [SEG] should prompt is known from the name alone
                name = pick_name(target, rng)
                asked_for = task_question("segment", rng, modality=record.modality, site=record.site, target=name)
                row.append(encode_turn(self.processor, asked_for, f"It is {SEG}.", tokens))
                batch["seg_target"].append(self.heads.targets[target])
                batch["seg_judged"].append(False)
            rows.append(row)
        return _stack(batch) | pack(rows)

    def _task_weights(self) -> dict[str, float]:
        default = {"segment": 0.4, "recognize": 0.2, "report": 0.1, "ask": 0.15, "classify": 0.15, "describe": 0.1}
        return default | self.recipe.tasks

    def losses(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Next tokens, masks, their scores, and the auxiliary heads."""
        features = self.model.encode_image(batch["images"])
        out = self.model(
            batch["input_ids"],
            batch["attention_mask"],
            batch["labels"],
            batch["position_ids"],
            features=features,
            seg_prompts=False,
        )
        losses = {"text": out.loss}
        if len(out.seg_rows):
            judged = batch["seg_judged"]
            assert len(out.seg_rows) == len(judged) and int(judged.sum()) == len(batch["truth"]), (
                "a mask for each [SEG]"
            )
            losses |= self._distill(out.seg_states, batch["seg_target"])
            if bool(judged.any()):
                masks = self.model.decode_masks(features.maps, out.seg_states[judged], out.seg_rows[judged])
                losses |= self._mask_losses(masks, batch["truth"])
        if len(batch["prompt_truth"]):
            prompts = self.heads.prompts(batch["prompt_target"])
            masks = self.model.decode_masks(features.maps, prompts, batch["prompt_image"])
            parts = self._mask_losses(masks, batch["prompt_truth"])
            losses["prompted"] = torch.stack(list(parts.values())).sum()
        return losses | self._auxiliary(features, batch)


STAGES: dict[str, type[Stage]] = {"encoder": EncoderStage, "text": TextStage, "joint": JointStage}


def encode_turn(
    processor: UniBiomedProcessor, question: str, answer: str, image_tokens: int
) -> tuple[list[int], list[int]]:
    """Token ids of one question with its answer, and the labels: the answer and its end alone are learned."""
    prompt = processor.prompt_ids(question, image_tokens)
    reply = processor.encode(answer + END)
    return prompt + reply, [IGNORE] * len(prompt) + reply


def pad(sequences: list[tuple[list[int], list[int]]]) -> dict[str, torch.Tensor]:
    """Right-padded ``input_ids``, ``labels`` and ``attention_mask``, each (batch, longest)."""
    longest = max(len(ids) for ids, _ in sequences)
    ids = torch.tensor([row + [0] * (longest - len(row)) for row, _ in sequences])
    labels = torch.tensor([row + [IGNORE] * (longest - len(row)) for _, row in sequences])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row, _ in sequences])
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


def pack(rows: list[list[tuple[list[int], list[int]]]]) -> dict[str, torch.Tensor]:
    """Several turns about one image in one row, each as if it stood alone.

    The turns share the beginning of their prompts, the image included, which stands once. A turn sees that beginning
    and itself, not its neighbours, and its positions go on from the beginning: the loss is that of separate rows.

    Parameters
    ----------
    rows : list of list of (ids, labels)
        The turns of each image, from :func:`encode_turn`.

    Returns
    -------
    dict of torch.Tensor
        ``input_ids``, ``labels``, ``position_ids``, each (rows, longest), and a boolean ``attention_mask`` of shape
        (rows, 1, longest, longest), True where a query (third) may look at a key (last).
    """
    packed: list[tuple[list[int], ...]] = []
    for turns in rows:
        first = turns[0][0]
        shared = 0
        while all(shared < len(ids) - 1 and ids[shared] == first[shared] for ids, _ in turns) and len(turns) > 1:
            shared += 1
        ids, labels = list(first[:shared]), [IGNORE] * shared
        positions, owner = list(range(shared)), [0] * shared
        for number, (turn_ids, turn_labels) in enumerate(turns, 1):
            ids += turn_ids[shared:]
            labels += turn_labels[shared:]
            positions += range(shared, len(turn_ids))
            owner += [number] * (len(turn_ids) - shared)
        packed.append((ids, labels, positions, owner))
    longest = max(len(ids) for ids, *_ in packed)
    input_ids, all_labels, position_ids, owners = (
        torch.tensor([row[k] + [fill] * (longest - len(row[k])) for row in packed])
        for k, fill in enumerate((0, IGNORE, 0, -1))
    )
    same = owners[:, :, None] == owners[:, None, :]
    causal = torch.ones(longest, longest, dtype=torch.bool).tril()
    return {
        "input_ids": input_ids,
        "labels": all_labels,
        "position_ids": position_ids,
        "attention_mask": ((same | (owners == 0)[:, None, :]) & causal)[:, None],
    }


def _stack(batch: dict[str, Any]) -> dict[str, Any]:
    out = dict(batch)
    out["images"] = normalise_batch(batch["images"])
    for name in ("truth", "dense_truth", "prompt_truth"):
        out[name] = torch.stack(batch[name]) if batch.get(name) else torch.zeros(0, 1, 1)
    for name in (
        "image_index",
        "target",
        "seg_target",
        "seg_judged",
        "dense_image",
        "dense_target",
        "prompt_image",
        "prompt_target",
        "label",
    ):
        if name in batch:
            out[name] = torch.tensor(batch[name])
    return out
