"""One image of each of the ten modalities from the held-out split, interpreted, on one sheet.

Usage: python benchmarks/sheet.py --data FOLDER [--model M] --out docs/images
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

import unibiomed
from unibiomed.data import load_records
from unibiomed.interpret import Result

# data set, modality, task, targets; the first held-out image with a finding is taken
ROWS = [
    ("ct_abdomen_curvas_mini", "CT", "segment", ("liver", "kidney")),
    ("brain_tumor_cheng_t1c", "MRI", "recognize", ()),
    ("covid_cxr_multistructure", "X-ray", "segment", ("left lung", "right lung", "cardiomediastinum")),
    ("busi_breast_ultrasound", "ultrasound", "recognize", ()),
    ("kvasir_seg_polyp", "endoscopy", "report", ()),
    ("ph2_dermoscopy", "dermoscopy", "report", ()),
    ("drishti_gs_mini_od_oc", "fundus", "segment", ("optic disc", "optic cup")),
    ("duke_dme_oct", "OCT", "segment", ("macular fluid",)),
    ("dsb2018_nuclei_microscopy", "pathology", "segment", ("cell nucleus",)),
    ("sts_pet_ct_mr", "PET", "segment", ("soft-tissue sarcoma",)),
]

WIDTH = 400
"""Of the images, in pixels."""


def interpret_rows(model: unibiomed.Interpreter, data: Path, number: int) -> list[Result]:
    """The `number`-th held-out image with a finding of each row."""
    results = []
    for dataset, modality, task, targets in ROWS:
        records = sorted(
            (r for r in load_records(data, [dataset]) if r.split == "test" and r.modality == modality and r.image),
            key=lambda r: r.key,
        )
        shown = [r for r in records if any(region.mask and region.load().any() for region in r.regions)]
        record = shown[number % len(shown)]
        pixels = Image.fromarray(record.load_image())
        # of one width, so that the letters of all legends are of one size
        pixels = pixels.resize((WIDTH, round(pixels.height * WIDTH / pixels.width)), Image.Resampling.BICUBIC)
        results.append(model.interpret(pixels, task, targets=targets, modality=modality))
    return results


def sheet(pictures: list[Image.Image], columns: int = 5) -> Image.Image:
    """Pictures side by side, in columns of one width."""
    rows = [pictures[i : i + columns] for i in range(0, len(pictures), columns)]
    width = max(picture.width for picture in pictures)
    page = Image.new("RGB", (columns * width, sum(max(p.height for p in row) for row in rows)), "white")
    y = 0
    for row in rows:
        for x, picture in enumerate(row):
            page.paste(picture, (x * width, y))
        y += max(p.height for p in row)
    return page


def main() -> None:
    """Write the ten overlays and the sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model")
    parser.add_argument("--number", type=int, default=0, help="which held-out image of each set")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    results = interpret_rows(unibiomed.load(options.model), options.data, options.number)
    pictures = [result.overlay(row[1]) for result, row in zip(results, ROWS, strict=True)]
    for row, result, picture in zip(ROWS, results, pictures, strict=True):
        picture.save(options.out / f"{row[1]}.png")
        print(f"{row[1]}: {result.text} ({result.seconds:.2f} s)")
    sheet(pictures).save(options.out / "ten_modalities.jpg", quality=88)


if __name__ == "__main__":
    main()
