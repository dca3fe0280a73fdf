"""``unibiomed data ...``: one short function per command; modules are imported when a command runs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..data.check import CheckReport


def add_data_commands(verbs: argparse._SubParsersAction[Any]) -> None:
    """Add the command ``data`` with its subcommands.

    Parameters
    ----------
    verbs : argparse subparsers
        Subparsers of the main parser.
    """
    data = verbs.add_parser("data", help="list, describe, check and convert data sets")
    under = data.add_subparsers(metavar="COMMAND", required=True)

    verb = under.add_parser("list", help="list the data sets of the paper, of this package and of a folder")
    _data_folder(verb)
    verb.add_argument("--json", action="store_true", help="print JSON")
    verb.set_defaults(run=run_list)

    verb = under.add_parser("show", help="show the description of one data set")
    verb.add_argument("name", metavar="NAME", help="name as in 'unibiomed data list', or name in the paper")
    _data_folder(verb)
    verb.add_argument("--json", action="store_true", help="print JSON")
    verb.set_defaults(run=run_show)

    verb = under.add_parser("add", help="detect the layout of a folder and write its description, dataset.toml")
    verb.add_argument("folder", type=Path, metavar="FOLDER", help="folder of one data set")
    verb.add_argument("--modality", metavar="M", help="modality, for example CT or ultrasound (default: detected)")
    verb.add_argument("--site", metavar="S", help="body site, for example abdomen (default: detected)")
    verb.add_argument("--licence", metavar="L", help="licence of the data set, in a few words")
    verb.add_argument(
        "--target", action="append", default=[], metavar="T", help="name of a target; repeat it for several, in order"
    )
    verb.add_argument("--force", action="store_true", help="replace an existing dataset.toml")
    verb.add_argument("--dry-run", action="store_true", help="print the dataset.toml without writing it")
    verb.set_defaults(run=run_add)

    verb = under.add_parser(
        "check",
        help="check data sets (files, masks, labels, duplicates, leaks between splits) or shards (checksums)",
        epilog="The exit code is 3 if there are errors, and 0 if there are only warnings.",
    )
    verb.add_argument("folder", type=Path, metavar="FOLDER", help="folder of a data set, of several, or of shards")
    verb.add_argument("--datasets", metavar="A,B", help="check only these data sets (default: all)")
    verb.add_argument("--limit", type=int, metavar="N", help="open only N images per data set, evenly spaced")
    verb.add_argument("--workers", type=int, default=2, metavar="N", help="number of processes (default: %(default)s)")
    verb.add_argument("--json", action="store_true", help="print JSON that lists every file")
    verb.add_argument("--write-duplicates", action="store_true", help="write near_duplicates.txt to the data set")
    verb.add_argument("--force", action="store_true", help="extend an existing near_duplicates.txt")
    verb.set_defaults(run=run_check)

    verb = under.add_parser("build", help="convert data sets to Parquet shards; an interrupted build can be resumed")
    verb.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with the data sets")
    verb.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the shards")
    verb.add_argument("--datasets", metavar="A,B", help="build only these data sets (default: all)")
    verb.add_argument("--workers", type=int, metavar="N", help="number of processes (default: one per core)")
    verb.add_argument("--ray", action="store_true", help="run with Ray, on the cluster at RAY_ADDRESS if it is set")
    verb.add_argument("--size", type=int, metavar="PX", help="downsample larger images to this longest side")
    fraction = "skip broken records up to this fraction of all records (default: %(default)s)"
    verb.add_argument("--max-bad", type=float, default=0.01, metavar="FRACTION", help=fraction)
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


def run_add(options: argparse.Namespace) -> int:
    """``unibiomed data add``."""
    from ..data.add import add_dataset

    added = add_dataset(
        options.folder,
        modality=options.modality,
        site=options.site,
        licence=options.licence,
        targets=options.target,
        force=options.force,
        dry_run=options.dry_run,
    )
    print(added.words())
    print(
        f"\n{added.text}"
        if options.dry_run
        else f"\nWritten to {added.path}; now run: unibiomed data check {options.folder}"
    )
    return 0


def run_check(options: argparse.Namespace) -> int:
    """``unibiomed data check``."""
    from ..data.catalog import OWN_ENTRY
    from ..data.index import INDEX

    shards = (options.folder / INDEX).is_file() and not (options.folder / OWN_ENTRY).is_file()
    reports = []
    for report in (_check_shards if shards else _check_datasets)(options):
        reports.append(report)
        if not options.json:
            print(report.table(), flush=True)
    if options.json:
        print(json.dumps([report.to_dict() for report in reports], indent=2))
    return 3 if any(report.errors for report in reports) else 0


def _check_shards(options: argparse.Namespace) -> Iterator[CheckReport]:
    from ..data.check_shards import check_shards
    from ..errors import InputError

    if options.limit is not None or options.write_duplicates:
        raise InputError("only the checksums of shards are checked: leave out --limit and --write-duplicates")
    progress = sys.stderr.isatty()
    yield check_shards(options.folder, _names(options.datasets), workers=options.workers, progress=progress)


def _check_datasets(options: argparse.Namespace) -> Iterator[CheckReport]:
    from ..data.catalog import OWN_ENTRY
    from ..data.check import check_dataset, find_entries, write_duplicates
    from ..data.check_across import check_across

    entries = find_entries(options.folder, _names(options.datasets))
    for entry in entries:
        report = check_dataset(entry, limit=options.limit, workers=options.workers, progress=sys.stderr.isatty())
        yield report
        # An empty list records that the data set was searched for near-duplicates.
        first = entry.near_duplicates is None and (entry.folder / OWN_ENTRY).is_file() and options.limit is None
        if options.write_duplicates and not (report.near_duplicates or first):
            print(f"{entry.name}: no near-duplicates to write", file=sys.stderr)
        elif options.write_duplicates:
            path = write_duplicates(entry, report, force=options.force)
            print(f"Written to {path}", file=sys.stderr)
            if entry.near_duplicates is None and not (entry.folder / OWN_ENTRY).is_file():
                fix = f"name it in a {OWN_ENTRY} of your own (near_duplicates)"
                print(f"unibiomed: this package's entry of '{entry.name}' does not use it: {fix}", file=sys.stderr)
    across = check_across(entries)
    if across.problems:
        yield across


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",")]


def run_build(options: argparse.Namespace) -> int:
    """``unibiomed data build``."""
    from ..data.build import PROBLEMS, build_shards
    from ..data.catalog import OWN_ENTRY, load_catalog

    names = _names(options.datasets)
    report = build_shards(
        options.data,
        options.out,
        datasets=names,
        workers=options.workers,
        image_size=options.size,
        max_bad=options.max_bad,
        ray=options.ray,
        progress=sys.stderr.isatty(),
    )
    kept = f", {report.kept} of them from an earlier build" if report.kept else ""
    for entry in load_catalog(options.data):
        wanted = (names is None or entry.name in names) and (entry.folder / OWN_ENTRY).is_file()
        if wanted and entry.near_duplicates is None and not entry.twins:
            what = "not searched for near-duplicates, which may be in both training and test split"
            fix = f"run: unibiomed data check {entry.folder} --write-duplicates"
            print(f"unibiomed: {entry.name}: {what}; {fix}", file=sys.stderr)
    print(
        f"Written to {options.out}: {report.shards} shards{kept}; "
        f"{report.records} records, {report.triplets} triplets, {report.bytes / 1e6:.0f} MB"
    )
    if report.problems:
        for key, problem in report.problems[:5]:
            text = problem if key in problem else f"{key}: {problem}"
            line = "".join(c if c.isprintable() else " " for c in text)
            print(f"unibiomed: skipped: {line}", file=sys.stderr)
        print(f"unibiomed: {len(report.problems)} records skipped, see {options.out / PROBLEMS}", file=sys.stderr)
    return 0
