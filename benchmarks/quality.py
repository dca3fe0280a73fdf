"""How good a model is on the held-out split: the tables of docs/model_card.md.

Strict: every image that is drawn counts, absent targets too. Prints Markdown and writes the raw numbers as JSON.

Usage: python benchmarks/quality.py --data FOLDER [--model M] [--limit 100] [--out quality.json]
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
from tqdm import tqdm

import unibiomed
from unibiomed.data import load_records
from unibiomed.data.conversation import canonical_turns
from unibiomed.data.phrasing import foreign_targets
from unibiomed.data.records import NO_FINDINGS, Record
from unibiomed.images import read_image
from unibiomed.interpret import Interpreter
from unibiomed.metrics import auroc, calibration_error, dice, iou
from unibiomed.tasks import is_no_findings, read_class


def draw(records: list[Record], limit: int, seed: int) -> list[Record]:
    """At most `limit` records of each data set, the same for every model."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[record.dataset].append(record)
    rng = random.Random(seed)
    chosen = []
    for name in sorted(groups):
        group = sorted(groups[name], key=lambda r: r.key)
        chosen += sorted(rng.sample(group, min(limit, len(group))), key=lambda r: r.key) if limit else group
    return chosen


def judge(model: Interpreter, record: Record, rng: random.Random) -> dict:
    """Everything asked about one image, with the truth beside it."""
    image = read_image(record.image)
    size = (image.height, image.width)
    truth = {j: region.load(size) for j, region in enumerate(record.regions) if region.mask is not None}
    seen = model.encode(image)
    row: dict = {"key": record.key, "dataset": record.dataset, "modality": record.modality}
    row |= {"segment": [], "classify": []}
    known = [(region.target, truth.get(j, np.zeros(size, bool))) for j, region in enumerate(record.regions)]
    if foreign := foreign_targets(record.modality, record.site):
        known.append((rng.choice(foreign), None))
    if record.regions:
        result = model.interpret(seen, "segment", targets=[name for name, _ in known], modality=record.modality)
        row["seconds"] = result.seconds
        for (name, mask), finding in zip(known, result.findings, strict=True):
            wanted = np.zeros(size, bool) if mask is None else mask
            row["segment"].append(
                {
                    "target": name,
                    "foreign": mask is None,
                    "there": bool(wanted.any()),
                    "dice": dice(finding.mask, wanted),
                    "iou": iou(finding.mask, wanted),
                    "found": finding.present,
                    "score": finding.score,
                    "mask_score": finding.mask_score,
                }
            )
    for turn in canonical_turns(record, truth):
        if turn.task == "recognize":
            result = model.interpret(seen, "recognize", modality=record.modality)
            wanted = [p.strip(" .") for p in turn.answer.replace("It is", "").split("[SEG]") if p.strip(" .")]
            union = np.zeros(size, bool)
            for j in turn.masks:
                union |= truth[j] if j is not None else False
            guess = np.any([f.mask for f in result.findings if f.mask is not None] or [np.zeros(size, bool)], axis=0)
            row["recognize"] = {
                "wanted": wanted,
                "said": [NO_FINDINGS] if is_no_findings(result.raw_text) else [f.label for f in result.findings],
                "dice": dice(guess, union),
            }
        elif turn.task == "classify":
            result = model.interpret(image, "classify", box=turn.box, modality=record.modality)
            row["classify"].append({"wanted": read_class(turn.answer), "said": read_class(result.raw_text)})
    if record.questions:
        answers = model.answer(seen, [item.question for item in record.questions], max_new_tokens=48)
        row["ask"] = [
            {"kind": item.kind, "wanted": item.answer, "said": answer.text.replace("<|end|>", "").strip()}
            for item, answer in zip(record.questions, answers, strict=True)
        ]
    return row


def same(a: str, b: str) -> bool:
    """Exact match without regard to case and a final full stop."""
    return a.strip(" .").lower() == b.strip(" .").lower()


def shown(value: float) -> str:
    """Three decimals, a dash for nothing."""
    return f"{value:.3f}" if value == value else "–"


def mean(values: list) -> float:
    """Mean, NaN of nothing."""
    return float(np.mean(values)) if values else float("nan")


def report(rows: list[dict]) -> str:
    """The Markdown tables."""
    lines = []
    by_target: dict[str, list[dict]] = defaultdict(list)
    foreign = []
    for row in rows:
        for item in row["segment"]:
            foreign.append(item) if item["foreign"] else by_target[item["target"]].append(item)
    lines.append("| target | images with it | Dice | Dice, absent counted | without it | false masks |")
    lines.append("|---|---|---|---|---|---|")
    means = []
    for target, items in sorted(by_target.items()):
        there = [i["dice"] for i in items if i["there"]]
        absent = [i["found"] for i in items if not i["there"]]
        means.append(mean(there))
        false = f"{mean(absent):.0%}" if absent else "–"
        everything = mean([i["dice"] for i in items])
        lines.append(
            f"| {target} | {len(there)} | {shown(mean(there))} | {shown(everything)} | {len(absent)} | {false} |"
        )
    known = [m for m in means if m == m]
    lines += ["", f"Mean over {len(known)} targets: **{mean(known):.3f}**. "]
    false_rate = mean([i["found"] for i in foreign])
    lines[-1] += f"A mask for a target of another body part: {false_rate:.1%} of {len(foreign)}."
    every = [i for items in by_target.values() for i in items] + foreign
    presence, there = [i["score"] for i in every], [i["there"] for i in every]
    present = [i for i in every if i["there"]]
    lines.append(
        f"Presence score: AUROC {auroc(presence, there):.3f}, "
        f"calibration error {calibration_error(presence, there):.3f}; "
        f"mask score against IoU: calibration error "
        f"{calibration_error([i['mask_score'] for i in present], [i['iou'] for i in present]):.3f}."
    )
    recognised = [row["recognize"] for row in rows if "recognize" in row]
    labels: dict[str, list[bool]] = defaultdict(list)
    for item in recognised:
        labels[" + ".join(item["wanted"])].append(
            sorted(s.lower() for s in item["said"]) == sorted(w.lower() for w in item["wanted"])
        )
    commonest, number = Counter(" + ".join(i["wanted"]) for i in recognised).most_common(1)[0]
    lines += ["", "| diagnosis | images | named exactly |", "|---|---|---|"]
    lines += [f"| {label} | {len(hits)} | {mean(hits):.0%} |" for label, hits in sorted(labels.items())]
    hits = [h for group in labels.values() for h in group]
    balanced = mean([mean(group) for group in labels.values()])
    normal = [item for item in recognised if item["wanted"] == [NO_FINDINGS]]
    lines += [
        "",
        f"Accuracy **{mean(hits):.1%}** of {len(hits)}, mean over labels {balanced:.1%}; "
        f"always answering the commonest ('{commonest}') gives {number / len(hits):.1%}. "
        f"False findings on {len(normal)} normal images: {mean([i['said'] != [NO_FINDINGS] for i in normal]):.1%}. "
        f"Dice of the masks, normal images counted: {mean([i['dice'] for i in recognised]):.3f}.",
    ]
    boxes = [item for row in rows for item in row["classify"]]
    right = mean([same(i["wanted"], i["said"]) for i in boxes])
    lines.append(f"Region classification: **{right:.1%}** of {len(boxes)} boxes.")
    asked = [item for row in rows for item in row.get("ask", [])]
    for kind in ("closed", "open"):
        items = [i for i in asked if i["kind"] == kind]
        common = Counter(i["wanted"].lower() for i in items).most_common(1)
        lines.append(
            f"VQA-RAD, {kind}: {mean([same(i['wanted'], i['said']) for i in items]):.1%} exact of {len(items)}"
            + (f" (commonest answer: {common[0][1] / len(items):.1%})." if common else ".")
        )
    seconds = [row["seconds"] for row in rows if "seconds" in row]
    lines.append(f"Median time of all targets of an image, encoding left out: {statistics.median(seconds):.2f} s.")
    return "\n".join(lines)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model")
    parser.add_argument("--split", default="test", choices=["val", "test"])
    parser.add_argument("--limit", type=int, default=100, help="images a data set; 0 for all")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--out", type=Path, default=Path("quality.json"))
    options = parser.parse_args()
    model = unibiomed.load(options.model)
    records = [r for r in load_records(options.data) if r.split == options.split and r.image is not None]
    chosen = draw(records, options.limit, options.seed)
    rows = [judge(model, r, random.Random(f"{options.seed}/{r.key}")) for r in tqdm(chosen, unit="image")]
    options.out.write_text(json.dumps(rows) + "\n")
    print(report(rows))


if __name__ == "__main__":
    main()
