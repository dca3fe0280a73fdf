"""``unibiomed data ...``: one thin function a verb; everything is imported when its verb runs."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any


def add_data_commands(verbs: argparse._SubParsersAction[Any]) -> None:
    """Add the verb ``data`` and the verbs below it to the command line.

    Parameters
    ----------
    verbs : argparse subparsers
        What ``add_subparsers`` of the command's parser gave.
    """
    data = verbs.add_parser("data", help="data sets: which there are, and what is known of them")
    under = data.add_subparsers(metavar="VERB", required=True)

    verb = under.add_parser("list", help="every data set of the paper, of this package and of your folder")
    _data_folder(verb)
    verb.add_argument("--json", action="store_true", help="print JSON")
    verb.set_defaults(run=run_list)

    verb = under.add_parser("show", help="everything known of one data set")
    verb.add_argument("name", metavar="NAME", help="as in 'unibiomed data list', or the paper's name")
    _data_folder(verb)
    verb.add_argument("--json", action="store_true", help="print JSON")
    verb.set_defaults(run=run_show)

    verb = under.add_parser("build", help="write data sets as Parquet shards; a killed build goes on where it was")
    verb.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with the data sets")
    verb.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the shards")
    verb.add_argument("--datasets", metavar="A,B", help="names of those wanted (default: all)")
    verb.add_argument("--workers", type=int, metavar="N", help="processes (default: one a core)")
    verb.add_argument("--ray", action="store_true", help="run on Ray, on the cluster that RAY_ADDRESS names if any")
    verb.add_argument("--size", type=int, metavar="PX", help="shrink larger images to this longest side")
    verb.set_defaults(run=run_build)


def _data_folder(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--data", type=Path, metavar="DIR", help="folder with the data sets")


def run_list(options: argparse.Namespace) -> int:
    """``unibiomed data list``."""
    from ..data.listing import list_datasets, list_facts

    print(json.dumps(list_facts(options.data), indent=2) if options.json else list_datasets(options.data))
    return 0


def run_show(options: argparse.Namespace) -> int:
    """``unibiomed data show``."""
    from ..data.listing import dataset_facts, show_dataset

    name, root = options.name, options.data
    print(json.dumps(dataset_facts(name, root), indent=2) if options.json else show_dataset(name, root))
    return 0


def run_build(options: argparse.Namespace) -> int:
    """``unibiomed data build``."""
    from ..data.build import PROBLEMS, build_shards

    report = build_shards(
        options.data,
        options.out,
        datasets=None if options.datasets is None else [name.strip() for name in options.datasets.split(",")],
        workers=options.workers,
        image_size=options.size,
        ray=options.ray,
        progress=sys.stderr.isatty(),
    )
    kept = f", {report.kept} of them from an earlier build" if report.kept else ""
    print(
        f"Written to {options.out}: {report.shards} shards{kept}; "
        f"{report.records} records, {report.triplets} triplets, {report.bytes / 1e6:.0f} MB"
    )
    if report.problems:
        # Each is one line; all of them are in the file.
        for _, why in report.problems[:5]:
            line = "".join(c if c.isprintable() else " " for c in why)
            print(f"unibiomed: skipped: {line}", file=sys.stderr)
        print(f"unibiomed: {len(report.problems)} skipped in all, see {options.out / PROBLEMS}", file=sys.stderr)
    return 0
