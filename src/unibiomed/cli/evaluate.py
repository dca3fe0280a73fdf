"""``unibiomed evaluate``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .extras import check_installed

if TYPE_CHECKING:
    from ..evaluate.suite import Suite

FEW = 5
"""Names told on the command line; the rest is counted."""


def add_evaluate_command(verbs: argparse._SubParsersAction[Any]) -> None:
    """Add the verb to the command line.

    Parameters
    ----------
    verbs : argparse subparsers
        What ``add_subparsers`` of the command's parser gave.
    """
    verb = verbs.add_parser(
        "evaluate",
        help="judge models on a suite of data sets: tables, figures, a page",
        description="Judge models on a suite. A killed run goes on where it was; what was asked is not asked again.",
    )
    verb.add_argument("suite", metavar="SUITE", help="shared, published, trust, boxes, absence, or a TOML file")
    verb.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="M",
        help="model folder or hub name, files:FOLDER, sam:NAME, medsam:lite, text:NAME, specialists:FOLDER, "
        "floor:NAME; TITLE=M names it; may be repeated (default: nano)",
    )
    verb.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with data sets")
    verb.add_argument("--out", type=Path, default=Path("runs/evaluate"), metavar="DIR", help="default: %(default)s")
    verb.add_argument("--datasets", metavar="A,B", help="only these data sets")
    verb.add_argument("--tasks", metavar="A,B", help="only these tasks")
    verb.add_argument("--limit", type=int, metavar="N", help="images a data set (default: the suite's)")
    verb.add_argument(
        "--split",
        choices=("train", "val", "test", "all"),
        help="default: the suite's, else test; all is meant for data sets that the model was not trained on",
    )
    verb.add_argument("--no-floors", action="store_true", help="leave the trivial predictors out")
    verb.add_argument("--samples-only", action="store_true", help="write samples.jsonl, for other programs, and stop")
    verb.add_argument(
        "--pictures",
        type=int,
        default=20,
        metavar="N",
        help="a data set on the page, 0 for none; default: %(default)s",
    )
    verb.add_argument("--processes", type=int, default=1, metavar="N", help="that ask and score; default: %(default)s")
    verb.add_argument("--ray", type=int, metavar="N", help="ask on a Ray cluster (see RAY_ADDRESS), or N processes")
    verb.add_argument("--device", help="cpu, cuda, mps (default: the best there is)")
    verb.set_defaults(run=run_evaluate)


def run_evaluate(options: argparse.Namespace) -> int:
    """``unibiomed evaluate``."""
    from ..evaluate.harness import evaluate
    from ..evaluate.suite import read_suite

    changes: dict[str, Any] = {}
    for name in ("datasets", "tasks"):
        if (value := getattr(options, name)) is not None:
            changes[name] = [item.strip() for item in value.split(",") if item.strip()]
            if not changes[name]:
                raise InputError(f"--{name} '{value}' names none: give names with commas between them, or leave it out")
    for name in ("limit", "split"):
        if (value := getattr(options, name)) is not None:
            changes[name] = value
    suite = read_suite(options.suite, changes)
    if suite.all_pairs and (options.samples_only or options.processes != 1 or options.ray is not None):
        raise InputError(
            f"'{suite.name}' asks for every target in one process: leave out --samples-only, --processes and --ray"
        )
    if options.samples_only:
        from ..evaluate.samples import make_cases, suite_records, write_samples

        path = options.out / "samples.jsonl"
        unreadable: dict[str, str] = {}
        cases = make_cases(suite, suite_records(suite, options.data), unreadable=unreadable)
        count = write_samples(cases, options.data, path, unreadable=unreadable)
        if unreadable:
            print(_told("images cannot be read", sorted(unreadable)))
        print(f"{count} samples written to {path}")
        return 0
    check_installed("evaluation", "evaluate", "matplotlib", "monai", "snowballstemmer")
    if suite.all_pairs:
        return _run_absence(suite, options)
    found = evaluate(
        suite,
        options.model or ["nano"],
        options.data,
        options.out,
        floors=not options.no_floors,
        device=options.device,
        processes=options.processes,
        pictures=options.pictures,
        ray=options.ray,
        progress=sys.stderr.isatty(),
        command=options.command_line,
    )
    if not found.results:
        # another process of this launch scores
        return 0
    for note in found.results["notes"]:
        print(note)
    _print_results(found.results, found.folder)
    return 0


def _run_absence(suite: Suite, options: argparse.Namespace) -> int:
    from ..evaluate.absence.run import evaluate_absence

    results = evaluate_absence(
        suite,
        options.model or ["nano"],
        options.data,
        options.out,
        device=options.device,
        progress=sys.stderr.isatty(),
        command=options.command_line,
    )
    _print_results(results, options.out)
    return 0


def _print_results(results: Mapping[str, Any], folder: Path) -> None:
    if missing := results["missing_datasets"]:
        print(_told("data sets are not evaluated", [f"{name} ({reason})" for name, reason in missing]))
    if unreadable := results["unreadable"]:
        print(_told("images cannot be read; their samples are failures", [key for key, _ in unreadable]))
    print((folder / "tables" / "overview.md").read_text(encoding="utf-8"))
    print(f"All tables: {folder / 'tables' / 'tables.md'}; every number: {folder / 'results.json'}")


def _told(what: str, names: list[str]) -> str:
    """How many, and the first few, on one line."""
    more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
    return f"{len(names)} {what}: {', '.join(names[:FEW])}{more}"
