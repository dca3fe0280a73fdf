"""Fill the tables of docs/results.md from the results of evaluations.

    unibiomed evaluate shared --data DATA --limit 24 --out runs/shared
    unibiomed evaluate trust --data DATA --out runs/trust
    python benchmarks/results.py docs/results.md runs/shared runs/trust

A table stands between ``<!-- SUITE: NAME -->`` and ``<!-- end -->``; names are those of the files in ``tables/``.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from unibiomed.evaluate.tables import make_sheets

PLACE = re.compile(r"<!-- (\w+): ([\w.-]+) -->\n.*?<!-- end -->", re.DOTALL)


def main() -> None:
    """Fill the page."""
    page, *folders = (Path(argument) for argument in sys.argv[1:])
    sheets = {}
    for folder in folders:
        results = json.loads((folder / "results.json").read_text())
        for sheet in make_sheets(results):
            sheets[results["suite"], sheet.name] = sheet.markdown().split("\n", 2)[2].strip()

    def fill(place: re.Match[str]) -> str:
        key = (place[1], place[2])
        if key not in sheets:
            sys.exit(f"no table '{place[2]}' of the suite '{place[1]}' in {', '.join(map(str, folders))}")
        return f"<!-- {place[1]}: {place[2]} -->\n{sheets[key]}\n<!-- end -->"

    page.write_text(PLACE.sub(fill, page.read_text()))


if __name__ == "__main__":
    main()
