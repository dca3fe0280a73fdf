r"""A sheet of overlays of images from data sets that the model was not trained on, drawn at random.

    python benchmarks/other_sources.py --data DATA --datasets chaos_ct_liver,fives_retinal_vessel --out sheet.jpg

Each picture is one image, asked for one target that it shows. The mask of the model is filled, the outline of the
true mask is white, and the caption gives the data set, the target, and the Dice (0 where the model reports that the
target is absent). The modality is given. The images are drawn with a seed and are not chosen.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage
from sheet import sheet

import unibiomed
from unibiomed.data import load_records
from unibiomed.data.records import Record
from unibiomed.metrics.segmentation import dice

SIDE = 260
"""Width and height in pixels of each picture."""
CAPTION = 28
"""Height in pixels of the caption."""


def draw_samples(records: list[Record], number: int, seed: int) -> list[tuple[Record, int]]:
    """Images and the index of the region to ask for, with data sets taken in turn."""
    rng = random.Random(seed)
    groups: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda r: r.key):
        groups.setdefault(record.dataset, []).append(record)
    for group in groups.values():
        rng.shuffle(group)
    drawn: list[tuple[Record, int]] = []
    while len(drawn) < number and any(groups.values()):
        for _, group in sorted(groups.items()):
            while group:
                record = group.pop()
                shown = [j for j, region in enumerate(record.regions) if region.mask and region.load().any()]
                if shown:
                    drawn.append((record, rng.choice(shown)))
                    break
    return drawn[:number]


def picture(model: unibiomed.Interpreter, record: Record, region: int) -> tuple[Image.Image, float]:
    """The overlay of one image with the true outline and a caption, and the Dice."""
    pixels, target = record.load_image(), record.regions[region].target
    result = model.interpret(pixels, "segment", targets=[target], modality=record.modality)
    truth = np.asarray(record.regions[region].load(), dtype=bool)
    if truth.shape != pixels.shape[:2]:
        size = (pixels.shape[1], pixels.shape[0])
        truth = np.asarray(Image.fromarray(truth).resize(size, Image.Resampling.NEAREST))
    found = np.zeros_like(truth)
    for finding in result.findings:
        if finding.present:
            found |= finding.mask
    score = dice(found, truth)
    shown = pixels.astype(float)
    shown[found] = 0.55 * shown[found] + 0.45 * np.array([255, 64, 32])
    width = max(1, round(max(truth.shape) / SIDE))
    shown[truth & ~ndimage.binary_erosion(truth, iterations=width)] = 255
    image = Image.fromarray(shown.astype(np.uint8))
    image.thumbnail((SIDE, SIDE))
    page = Image.new("RGB", (SIDE, SIDE + CAPTION), "white")
    page.paste(image, ((SIDE - image.width) // 2, CAPTION))
    draw = ImageDraw.Draw(page)
    draw.text((4, 1), record.dataset, fill="black")
    draw.text((4, 14), f"{target}: Dice {score:.2f}", fill="black")
    return page, score


def main() -> None:
    """Draw the samples and write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--datasets", required=True, help="data sets that were not trained on, with commas")
    parser.add_argument("--model")
    parser.add_argument("--number", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    records = [r for r in load_records(options.data, options.datasets.split(",")) if r.image is not None]
    model = unibiomed.load(options.model)
    made = [picture(model, *sample) for sample in draw_samples(records, options.number, options.seed)]
    scores = [score for _, score in made]
    sheet([image for image, _ in made], columns=8).save(options.out, quality=85)
    print(f"{len(made)} images: mean Dice {np.mean(scores):.3f}, median {np.median(scores):.3f}")


if __name__ == "__main__":
    main()
