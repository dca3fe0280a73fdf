"""``unibiomed data ...``: one thin function a verb; everything is imported when its verb runs."""

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

    verb = under.add_parser("add", help="look at a folder, say what it is taken for, and write its dataset.toml")
    verb.add_argument("folder", type=Path, metavar="FOLDER", help="folder of one data set")
    verb.add_argument("--modality", metavar="M", help="such as CT or ultrasound, where nothing tells it")
    verb.add_argument("--site", metavar="S", help="such as abdomen, where nothing tells it")
    verb.add_argument("--licence", metavar="L", help="terms of the data set, in a few words")
    verb.add_argument(
        "--target", action="append", default=[], metavar="T", help="name of a target, in order; repeat it"
    )
    verb.add_argument("--force", action="store_true", help="replace a dataset.toml that is there")
    verb.add_argument("--dry-run", action="store_true", help="show the dataset.toml and write nothing")
    verb.set_defaults(run=run_add)

    verb = under.add_parser(
        "check",
        help="what is wrong with a data set: files, masks, labels, duplicates, leaks between splits; or with shards",
        epilog="exit code 3 when there are errors; warnings alone leave it at 0",
    )
    verb.add_argument("folder", type=Path, metavar="FOLDER", help="folder of a data set, of several, or of shards")
    verb.add_argument("--datasets", metavar="A,B", help="names of those wanted of several (default: all)")
    verb.add_argument("--limit", type=int, metavar="N", help="open N images of a data set, spread over all of it")
    verb.add_argument("--workers", type=int, default=2, metavar="N", help="processes; default: %(default)s")
    verb.add_argument("--json", action="store_true", help="print JSON, with every file")
    verb.add_argument("--write-duplicates", action="store_true", help="write near_duplicates.txt into the data set")
    verb.add_argument("--force", action="store_true", help="add to a near_duplicates.txt that is there")
    verb.set_defaults(run=run_check)

    verb = under.add_parser("build", help="write data sets as Parquet shards; a killed build goes on where it was")
    verb.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with the data sets")
    verb.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the shards")
    verb.add_argument("--datasets", metavar="A,B", help="names of those wanted (default: all)")
    verb.add_argument("--workers", type=int, metavar="N", help="processes (default: one a core)")
    verb.add_argument("--ray", action="store_true", help="run on Ray, on the cluster that RAY_ADDRESS names if any")
    verb.add_argument("--size", type=int, metavar="PX", help="shrink larger images to this longest side")
    share = "skip broken records up to this share; default: %(default)s"
    verb.add_argument("--max-bad", type=float, default=0.01, metavar="SHARE", help=share)
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
        raise InputError("shards are compared with their checksums alone; leave out --limit and --write-duplicates")
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
        # an empty list in a set of one's own says that somebody has looked
        first = entry.near_duplicates is None and (entry.folder / OWN_ENTRY).is_file() and options.limit is None
        if options.write_duplicates and not (report.near_duplicates or first):
            print(f"{entry.name}: no near-duplicates to write", file=sys.stderr)
        elif options.write_duplicates:
            path = write_duplicates(entry, report, force=options.force)
            print(f"Written to {path}", file=sys.stderr)
            if entry.near_duplicates is None and not (entry.folder / OWN_ENTRY).is_file():
                why = f"only a {OWN_ENTRY} of your own can name it (near_duplicates)"
                print(f"unibiomed: this package's entry of '{entry.name}' does not use it; {why}", file=sys.stderr)
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
            why = "nobody has looked for near-duplicates, which may lie in training and in test"
            told = f"{why}; run: unibiomed data check {entry.folder} --write-duplicates"
            print(f"unibiomed: {entry.name}: {told}", file=sys.stderr)
    print(
        f"Written to {options.out}: {report.shards} shards{kept}; "
        f"{report.records} records, {report.triplets} triplets, {report.bytes / 1e6:.0f} MB"
    )
    if report.problems:
        # Each is one line; all of them are in the file.
        for key, why in report.problems[:5]:
            told = why if key in why else f"{key}: {why}"
            line = "".join(c if c.isprintable() else " " for c in told)
            print(f"unibiomed: skipped: {line}", file=sys.stderr)
        print(f"unibiomed: {len(report.problems)} skipped in all, see {options.out / PROBLEMS}", file=sys.stderr)
    return 0
