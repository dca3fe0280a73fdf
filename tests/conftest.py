"""What all tests share: the real data, how Hypothesis runs, and no internet unless a test asks for it."""

from __future__ import annotations

import gzip
import os
import socket
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
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


@pytest.fixture(scope="session")
def worded() -> Callable[..., Path]:
    """``worded(path, nifti, ending, packed=, big=)`` saves a NIfTI file as NRRD or MetaImage, as ITK writes them."""

    def save(path: Path, nifti: Path, ending: str, *, packed: bool, big: bool = False) -> Path:
        image = nib.load(nifti)
        affine = np.diag([-1.0, -1, 1, 1]) @ image.affine
        voxels = np.asarray(image.dataobj).transpose(2, 1, 0).astype(">i2" if big else "<i2").tobytes()
        sizes = " ".join(str(n) for n in image.shape)
        if ending.startswith("n"):
            vectors = ["(" + ",".join(repr(float(v)) for v in affine[:3, k]) + ")" for k in range(4)]
            lines = [
                "NRRD0004",
                "# a remark",
                "type: short",
                "dimension: 3",
                "space: left-posterior-superior",
                f"sizes: {sizes}",
                f"space directions: {' '.join(vectors[:3])}",
                "kinds: domain domain domain",
                f"endian: {'big' if big else 'little'}",
                f"encoding: {'gzip' if packed else 'raw'}",
                f"space origin: {vectors[3]}",
                "remark:=encoding: none",
            ]
            data = gzip.compress(voxels) if packed else voxels
            lines += [f"data file: {path.stem}.raw"] if ending == "nhdr" else []
            text = "\n".join(lines) + "\n\n"
        else:
            spacing = np.linalg.norm(affine[:3, :3], axis=0)
            matrix = (affine[:3, :3] / spacing).T.reshape(-1)
            lines = [
                "ObjectType = Image",
                "NDims = 3",
                f"BinaryDataByteOrderMSB = {big}",
                f"CompressedData = {packed}",
                f"TransformMatrix = {' '.join(repr(float(v)) for v in matrix)}",
                f"Offset = {' '.join(repr(float(v)) for v in affine[:3, 3])}",
                f"ElementSpacing = {' '.join(repr(float(v)) for v in spacing)}",
                f"DimSize = {sizes}",
                "ElementType = MET_SHORT",
                f"ElementDataFile = {f'{path.stem}.raw' if ending == 'mhd' else 'LOCAL'}",
            ]
            data = zlib.compress(voxels) if packed else voxels
            text = "\n".join(lines) + "\n"
        detached = ending in ("nhdr", "mhd")
        path.write_bytes(text.encode() + (b"" if detached else data))
        if detached:
            path.with_name(f"{path.stem}.raw").write_bytes(data)
        return path

    return save


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
