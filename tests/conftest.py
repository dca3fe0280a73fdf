"""What all tests share: the real data, how Hypothesis runs, and no internet unless a test asks for it."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# Models are looked up on a hub only when a test says so; set before anything imports huggingface_hub.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# Time limits of single examples would fail on a busy machine; fixed examples make a failure repeatable.
settings.register_profile("unibiomed", deadline=None, derandomize=True)
settings.load_profile("unibiomed")

CHECKOUT = Path(__file__).resolve().parent.parent
LOOPBACK = ("127.", "::1", "localhost")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real images, masks and text; the test is skipped where it is missing."""
    shared = Path(os.environ.get("UNIBIOMED_SHARED") or CHECKOUT.parent / "shared").expanduser().resolve()
    data = shared / "data"
    if not data.is_dir():
        pytest.skip(f"no real data: {data} is not a folder (set UNIBIOMED_SHARED to the folder that holds data/)")
    return data


@pytest.fixture(autouse=True)
def no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail a test that reaches for the internet without the ``network`` marker."""
    if request.node.get_closest_marker("network") is None:
        connect = socket.socket.connect

        def local_only(self: socket.socket, address: Any) -> None:
            if isinstance(address, tuple) and not str(address[0]).startswith(LOOPBACK):
                pytest.fail(f"connects to {address[0]} without the 'network' marker")
            connect(self, address)

        monkeypatch.setattr(socket.socket, "connect", local_only)
