"""Fill the tables of docs/results_version_7.md from the results of evaluations.

    unibiomed evaluate shared --data DATA --limit 24 --out runs/shared
    unibiomed evaluate trust --data DATA --out runs/trust
    python benchmarks/results.py docs/results_version_7.md runs/shared runs/trust

A table stands between ``<!-- SUITE: NAME -->`` and ``<!-- end -->``; names are those of the files in ``tables/``. Those
of a suite that is not given stay as they are.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from unibiomed.evaluate.tables import Table, make_tables

PLACE = re.compile(r"<!-- (\w+): ([\w.-]+) -->\n.*?<!-- end -->", re.DOTALL)


def main() -> None:
    """Fill the page."""
    page, *folders = (Path(argument) for argument in sys.argv[1:])
    tables: dict[str, dict[str, Table]] = {}
    for folder in folders:
        results = json.loads((folder / "results.json").read_text())
        tables[results["suite"]] = {sheet.name: sheet for sheet in make_tables(results)}
    fill(page, tables)


def fill(page: Path, tables: Mapping[str, Mapping[str, Table]]) -> None:
    """Put the tables of some suites where the page has room for them."""

    def table(place: re.Match[str]) -> str:
        suite, name = place.groups()
        if suite not in tables:
            return place[0]
        if name not in tables[suite]:
            sys.exit(f"no table '{name}' of the suite '{suite}'")
        # without its title: the page has its own
        return f"<!-- {suite}: {name} -->\n{tables[suite][name].markdown().split(chr(10), 2)[2].strip()}\n<!-- end -->"

    page.write_text(PLACE.sub(table, page.read_text()))


if __name__ == "__main__":
    main()
