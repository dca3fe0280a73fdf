"""Presence and Dice of the weights of small models alone, without the vocabulary and its rules.

    python benchmarks/weights.py --data DATA --limit 5 --held-out chaos_ct_liver,fives_retinal_vessel MODEL [MODEL ...]

Every image of the test split is asked for the targets that it is annotated for, and for twelve others, drawn at random,
that such an image cannot show; of data sets that are held out of the training all images count. The modality is given.
Printed are the rates of absent targets that are drawn: by the weights alone, and as a user sees it who gives the
modality, for whom targets that the modality excludes are refused before the model is asked. Then follows a table of the
strict Dice (0 where a target that is there is reported absent) and of the Dice of the mask whatever its presence score.
"""

from __future__ import annotations

import argparse
import random
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from unibiomed.data import load_records
from unibiomed.data.records import Record
from unibiomed.interpret.scores import trained_scores
from unibiomed.interpret.vocabulary import ModelVocabulary
from unibiomed.model.mask_threshold import mask_threshold
from unibiomed.tasks import make_question
from unibiomed.terminology import absent_targets
from unibiomed.train.calibrate import question_prompts
from unibiomed.train.losses import soft_iou
from unibiomed.train.packing import normalise_batch
from unibiomed.train.squares import read_square
from unibiomed.train.start import load_start
from unibiomed.train.validation import choose

OTHERS = 12
Rows = dict[tuple[str, str, str], list[float]]
"""Kind ("out", "answered", "in", "strict" or "mask"), data set and target, with a value an image."""


def main() -> None:
    """Measure the models and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=5, help="images a data set")
    parser.add_argument("--held-out", default="", help="data sets that were not trained on, with commas")
    options = parser.parse_args()
    held_out = set(filter(None, options.held_out.split(",")))
    records = [r for r in load_records(options.data) if r.image is not None and r.regions]
    records = list(choose([r for r in records if r.split == "test" or r.dataset in held_out], options.limit))
    measured = {model: measure(model, records) for model in options.models}
    for model, rows in measured.items():
        names = {"out": "out of context", "answered": "out of context, as answered", "in": "in context"}
        for kind, name in names.items():
            values = [v for key, found in rows.items() if key[0] == kind for v in found]
            print(f"{model.name}: absent targets drawn, {name}: {np.mean(values):.2%} of {len(values)}")
    print("| data set | target | images |" + "".join(f" {m.name}, strict | {m.name}, mask |" for m in measured))
    print("|---|---|---|" + "---|---|" * len(measured))
    for dataset, target in sorted({key[1:] for rows in measured.values() for key in rows if key[0] == "mask"}):
        cells = [rows.get((kind, dataset, target), []) for rows in measured.values() for kind in ("strict", "mask")]
        words = " | ".join(f"{np.mean(cell):.3f}" if cell else "–" for cell in cells)
        print(
            f"| {dataset}{' (held out)' if dataset in held_out else ''} | {target} | {max(map(len, cells))} | {words} |"
        )


@torch.inference_mode()
def measure(folder: Path, records: Iterable[Record]) -> Rows:
    """Ask a model about all records."""
    model, processor = load_start(str(folder))
    model.eval()
    vocabulary = ModelVocabulary.read(folder)
    known = vocabulary.targets
    rows: Rows = defaultdict(list)
    for record in records:
        pixels, masks = read_square(record, processor.settings.grounding_size)
        own = [(j, r.target) for j, r in enumerate(record.regions) if r.target in known and not r.box]
        others = absent_targets(record.modality, record.site, [region.target for region in record.regions])
        others = tuple(target for target in others if target in known)
        asked = [target for _, target in own]
        asked += random.Random(record.key).sample(others, min(OTHERS, len(others)))
        if not asked:
            continue
        features = model.encode_image(normalise_batch([torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255]))
        questions = [make_question("segment", target=target, modality=record.modality) for target in asked]
        predicted = model.decode_masks(features.maps, question_prompts(model, processor, features, questions))
        drawn = [score >= model.config.presence_threshold for score in trained_scores(predicted, model.config)[0]]
        best = predicted.best()
        for i, target in enumerate(asked):
            region = own[i][0] if i < len(own) else None
            if region is None or region not in masks:
                rows["out" if region is None else "in", record.dataset, target].append(float(drawn[i]))
                if region is None:
                    asked_for = vocabulary.shows(target, record.modality)
                    rows["answered", record.dataset, target].append(float(drawn[i] and asked_for))
                continue
            truth = torch.from_numpy(masks[region].copy()).float()[None] / 255
            logits = best[i : i + 1]
            iou = float(soft_iou(logits - mask_threshold(logits, model.config.mask_threshold)[:, None, None], truth))
            rows["mask", record.dataset, target].append(2 * iou / (1 + iou))
            rows["strict", record.dataset, target].append(2 * iou / (1 + iou) * drawn[i])
    return rows


if __name__ == "__main__":
    main()
