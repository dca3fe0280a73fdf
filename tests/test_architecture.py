"""The layers of docs/architecture.md hold: packages import only lower layers, and modules not in circles."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "unibiomed"


def layers() -> dict[str, int]:
    table = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").split("| layer |")[1].split("\n\n")[0]
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", table, re.MULTILINE)
    return {name: int(number) for number, names in rows for name in re.findall(r"`(\w+)`", names)}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py")}


def imported(name: str) -> Iterator[str]:
    """Modules of the package that a module imports, also inside functions."""
    path = MODULES[name]
    parents = name.split(".") if name else []
    if path.name != "__init__.py":
        parents = parents[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            yield from (".".join(parts[1:]) for parts in names if parts[0] == "unibiomed")
        elif isinstance(node, ast.ImportFrom):
            base = node.module.split(".") if node.module else []
            if node.level:
                base = parents[: len(parents) - node.level + 1] + base
            elif base[:1] == ["unibiomed"]:
                base = base[1:]
            else:
                continue
            for alias in node.names:
                full = ".".join([*base, alias.name])
                yield full if full in MODULES else ".".join(base)


IMPORTS = {name: {other for other in imported(name) if other in MODULES and other != name} for name in MODULES}


def test_packages_import_only_lower_layers() -> None:
    layer = {**layers(), "__main__": 99}
    wrong = []
    for name, others in IMPORTS.items():
        top = name.split(".")[0]
        for other in others:
            below = other.split(".")[0]
            if name and below and top != below and layer[below] >= layer[top]:
                wrong.append(f"{name} imports {other}")
    assert not wrong


def test_every_package_has_a_layer() -> None:
    assert {name.split(".")[0] for name in MODULES} - {"", "__main__"} <= set(layers())


def test_no_modules_import_each_other_in_a_circle() -> None:
    # The package itself is left out: it imports `interpret` when a name is used.
    graph = {name: others - {""} for name, others in IMPORTS.items() if name}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None
