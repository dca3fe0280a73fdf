"""``python -m unibiomed``."""

from __future__ import annotations

import sys

from unibiomed.cli import main

if __name__ == "__main__":
    sys.exit(main())
