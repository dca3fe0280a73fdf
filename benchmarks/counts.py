"""The counts that docs/results_version_7.md tells in words: what is emptied, drawn or named wrongly, and how often.

python benchmarks/counts.py runs/shared [--model nano]
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def read_sample_scores(folder: Path, model: str) -> list[Row]:
    """Rows of an evaluation, without changed images and questions in other words."""
    with (folder / "scores" / f"{model}.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [row for row in rows if not row.get("perturbation") and not row.get("paraphrase")]


def tell(what: str, rows: Iterable[Row], of: list[Row], *by: str) -> str:
    """One line: how many rows of how many, and the commonest values of some columns."""
    rows = list(rows)
    counts = Counter(" as ".join(_shown(row.get(column)) for column in by) for row in rows)
    common = ", ".join(f"{name} {count}" for name, count in counts.most_common(12)) if by else ""
    share = f" ({100 * len(rows) / len(of):.1f} %)" if of else ""
    return f"{what}: {len(rows)} of {len(of)}{share}{': ' + common if common else ''}"


def _shown(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)


def count(rows: list[Row]) -> list[str]:
    """All lines."""
    segment = [row for row in rows if row["task"] == "segment"]
    own = [row for row in segment if row["kind"] == "in_context"]
    foreign = [row for row in segment if row["kind"] == "out_of_context"]
    shown, absent = [r for r in own if r["target_present"]], [r for r in own if not r["target_present"]]
    boxes = [row for row in rows if row["task"] == "classify"]
    images = [row for row in rows if row["task"] == "recognize"]
    ill, normal = [r for r in images if r["target_present"]], [r for r in images if not r["target_present"]]
    return [
        tell("targets emptied", [r for r in shown if not r["predicted_present"]], shown, "target"),
        tell(
            "masks without the target, own body part", [r for r in absent if r["predicted_present"]], absent, "target"
        ),
        tell("masks of other body parts", [r for r in foreign if r["predicted_present"]], foreign, "target"),
        tell("all masks without the target", [r for r in absent + foreign if r["predicted_present"]], absent + foreign),
        tell(
            "boxes named wrongly", [r for r in boxes if not r["exact_match"]], boxes, "true_labels", "predicted_labels"
        ),
        tell("images named rightly", [r for r in images if r["exact_match"]], images),
        tell("something found where something is", [r for r in ill if r["predicted_present"]], ill, "dataset"),
        tell("findings in normal images", [r for r in normal if r["predicted_present"]], normal, "dataset"),
    ]


def main() -> None:
    """Print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="what `unibiomed evaluate` wrote")
    parser.add_argument("--model", default="nano")
    options = parser.parse_args()
    print("\n".join(count(read_sample_scores(options.folder, options.model))))


if __name__ == "__main__":
    main()
