"""The package as a whole: what importing it costs, and what it says of itself."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version

import pytest

import unibiomed

# What takes seconds to load, or would only be there to look at models.
HEAVY = ("torch", "transformers", "tokenizers", "safetensors", "huggingface_hub", "skimage", "matplotlib")


def loaded_by(code: str) -> set[str]:
    """Names of the modules that `code` loads in a fresh Python."""
    report = "import json, sys\nprint('\\n' + json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_the_package_is_fast() -> None:
    modules = loaded_by("import unibiomed")
    assert "unibiomed" in modules
    assert not modules & {*HEAVY, "numpy", "PIL", "scipy", "pydicom", "nibabel"}
    assert not {name for name in modules if name.startswith("unibiomed.")}


@pytest.mark.parametrize(
    "rooms", ["errors, tasks, findings, images, export", "metrics", "data.records, data.catalog, data.conversation"]
)
def test_packages_without_torch(rooms: str) -> None:
    code = "\n".join(f"import unibiomed.{room.strip()}" for room in rooms.split(","))
    assert not loaded_by(code) & {"torch", "transformers"}


def test_the_command_line_is_parsed_without_torch() -> None:
    modules = loaded_by("from unibiomed.cli import make_parser; make_parser().format_help()")
    assert not modules & {*HEAVY, "numpy"}


def test_version() -> None:
    assert unibiomed.__version__ == version("unibiomed")
    done = subprocess.run([sys.executable, "-m", "unibiomed", "--version"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout.split() == ["unibiomed", unibiomed.__version__]


def test_info_is_json_and_does_not_import_torch() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "unibiomed", "info", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    facts = json.loads(done.stdout)
    assert facts["version"] == unibiomed.__version__
    assert {"tasks", "modalities", "model", "packages"} <= facts.keys()
    assert facts["packages"]["torch"] == version("torch")
    imported = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert "unibiomed" in imported  # the report itself was read right
    assert not imported & {"torch", "transformers", "tokenizers", "safetensors", "huggingface_hub"}


def test_unknown_names_raise_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="'unibiomed' has no attribute 'nothing'"):
        unibiomed.nothing  # noqa: B018


def test_public_names_are_there() -> None:
    for name in unibiomed.__all__:
        assert getattr(unibiomed, name) is not None
