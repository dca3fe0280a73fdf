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

MAX_LISTED = 5
"""Number of names that are printed; the others are counted."""


def add_evaluate_command(verbs: argparse._SubParsersAction[Any]) -> None:
    """Add the verb to the command line.

    Parameters
    ----------
    verbs : argparse subparsers
        Result of ``add_subparsers`` of the command's parser.
    """
    verb = verbs.add_parser(
        "evaluate",
        help="evaluate models on a suite of data sets: tables, figures and an HTML page",
        description="Evaluate models on a suite of data sets. An interrupted evaluation continues where it stopped; "
        "valid predictions are reused.",
    )
    verb.add_argument("suite", metavar="SUITE", help="shared, published, trust, boxes, absence, or a TOML file")
    verb.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="M",
        help="model folder or hub name, files:FOLDER, sam:NAME, medsam:lite, text:NAME, specialists:FOLDER, "
        "baseline:NAME; TITLE=M sets the name in the tables; can be repeated (default: nano)",
    )
    verb.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with the data sets")
    verb.add_argument(
        "--out", type=Path, default=Path("runs/evaluate"), metavar="DIR", help="output folder (default: %(default)s)"
    )
    verb.add_argument("--datasets", metavar="A,B", help="evaluate these data sets only")
    verb.add_argument("--tasks", metavar="A,B", help="evaluate these tasks only")
    verb.add_argument(
        "--limit", type=int, metavar="N", help="number of images per data set, 0 for all (default: as in the suite)"
    )
    verb.add_argument(
        "--split",
        choices=("train", "val", "test", "all"),
        help="split to evaluate (default: as in the suite, else test); use all for data sets that the model was not "
        "trained on",
    )
    verb.add_argument("--no-baselines", action="store_true", help="do not evaluate the trivial baselines")
    # the name of this option before version 0.2
    verb.add_argument("--no-floors", action="store_true", help=argparse.SUPPRESS)
    verb.add_argument(
        "--samples-only",
        action="store_true",
        help="write the questions to samples.jsonl for other programs, without evaluating a model",
    )
    verb.add_argument(
        "--pictures",
        type=int,
        default=20,
        metavar="N",
        help="number of samples per data set shown with images on the page, 0 for no page (default: %(default)s)",
    )
    verb.add_argument(
        "--processes", type=int, default=1, metavar="N", help="number of processes (default: %(default)s)"
    )
    verb.add_argument(
        "--ray", type=int, metavar="N", help="use the Ray cluster of RAY_ADDRESS, or N local Ray processes"
    )
    verb.add_argument("--device", help="cpu, cuda or mps (default: the best available)")
    verb.set_defaults(run=run_evaluate)


def run_evaluate(options: argparse.Namespace) -> int:
    """Run ``unibiomed evaluate``."""
    from ..evaluate.deprecated import warn_deprecated
    from ..evaluate.harness import evaluate
    from ..evaluate.suite import read_suite

    if options.no_floors:
        warn_deprecated("--no-floors", "--no-baselines")
    overrides: dict[str, Any] = {}
    for name in ("datasets", "tasks"):
        if (value := getattr(options, name)) is not None:
            overrides[name] = [item.strip() for item in value.split(",") if item.strip()]
            if not overrides[name]:
                raise InputError(f"--{name} '{value}' is empty: give names separated by commas, or omit the option")
    for name in ("limit", "split"):
        if (value := getattr(options, name)) is not None:
            overrides[name] = value
    suite = read_suite(options.suite, overrides)
    if suite.all_pairs and (options.samples_only or options.processes != 1 or options.ray is not None):
        raise InputError(f"suite '{suite.name}' runs in one process: omit --samples-only, --processes and --ray")
    if options.samples_only:
        return _write_samples(suite, options)
    check_installed("evaluation", "evaluate", "matplotlib", "monai", "snowballstemmer")
    if suite.all_pairs:
        return _run_absence(suite, options)
    evaluation = evaluate(
        suite,
        options.model or ["nano"],
        options.data,
        options.out,
        baselines=not (options.no_baselines or options.no_floors),
        device=options.device,
        processes=options.processes,
        pictures=options.pictures,
        ray=options.ray,
        progress=sys.stderr.isatty(),
        command=options.command_line,
    )
    if not evaluation.results:
        # the first process of this launch writes the results
        return 0
    for note in evaluation.results["notes"]:
        print(note)
    _print_results(evaluation.results, evaluation.folder)
    return 0


def _write_samples(suite: Suite, options: argparse.Namespace) -> int:
    from ..evaluate.record_selection import suite_records
    from ..evaluate.sample_export import write_samples
    from ..evaluate.samples import make_cases

    path = options.out / "samples.jsonl"
    unreadable: dict[str, str] = {}
    cases = make_cases(suite, suite_records(suite, options.data), unreadable=unreadable)
    count = write_samples(cases, options.data, path, unreadable=unreadable)
    if unreadable:
        print(_summary("images cannot be read", sorted(unreadable)))
    print(f"{count} samples written to {path}")
    return 0


def _run_absence(suite: Suite, options: argparse.Namespace) -> int:
    from ..evaluate.absence.harness import evaluate_absence

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
        print(_summary("data sets were not evaluated", [f"{name} ({reason})" for name, reason in missing]))
    if unreadable := results["unreadable"]:
        print(_summary("images cannot be read, their samples count as failures", [key for key, _ in unreadable]))
    print((folder / "tables" / "overview.md").read_text(encoding="utf-8"))
    print(f"All tables: {folder / 'tables' / 'tables.md'}; all numbers: {folder / 'results.json'}")


def _summary(what: str, names: list[str]) -> str:
    """Return the number of names and the first few on one line."""
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return f"{len(names)} {what}: {', '.join(names[:MAX_LISTED])}{more}"
