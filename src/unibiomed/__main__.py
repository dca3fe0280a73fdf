"""``python -m unibiomed``."""

from __future__ import annotations

import runpy

runpy.run_module("unibiomed.cli", run_name="__main__")
