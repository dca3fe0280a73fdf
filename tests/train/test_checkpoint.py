"""Checkpoints come back bit by bit, and no kill at any moment leaves none."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import nn

from unibiomed.errors import DataError, OutputError
from unibiomed.train import checkpoint as module
from unibiomed.train.checkpoint import find_checkpoint, load_modules, load_optimizer, read_state, save_checkpoint

from .conftest import small_disk


class Tied(nn.Module):
    """Embeddings that are also the output matrix, a frozen part, and a buffer of each kind."""

    def __init__(self, seed: int, layers: int = 1) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embed = nn.Embedding(10, 8)
        self.layers = nn.ModuleList([nn.Linear(8, 8) for _ in range(layers)])
        self.out = nn.Linear(8, 10, bias=False)
        self.out.weight = self.embed.weight
        self.frozen = nn.Parameter(torch.randn(8), requires_grad=False)
        self.register_buffer("kept", torch.randn(8))
        self.register_buffer("made", torch.randn(8), persistent=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x).relu() + self.frozen + self.kept  # type: ignore[operator]
        return self.out(x)


def make_optimizer(model: nn.Module) -> torch.optim.AdamW:
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim < 2], "lr": 0.0, "peak": 1e-2, "weight_decay": 0.0},
        {"params": [p for p in parameters if p.ndim > 1], "lr": 1e-2, "peak": 1e-2, "weight_decay": 0.1},
    ]
    return torch.optim.AdamW(groups, fused=True)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    ids = torch.randint(0, 10, (6,), generator=torch.Generator().manual_seed(seed))
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] / (1 + seed)
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(ids), ids).backward()
    optimizer.step()


def same(one: nn.Module, other: nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine)


def test_round_trip_goes_on_with_the_same_numbers(tmp_path: Path) -> None:
    model, heads = Tied(0), nn.Linear(3, 3)
    optimizer = make_optimizer(model)
    for seed in range(3):
        step(model, optimizer, seed)
    save_checkpoint(tmp_path / "c", {"model": model, "heads": heads}, optimizer, {"stage": 1, "step": 3})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c"]
    other, other_heads = Tied(1), nn.Linear(3, 3)
    other_optimizer = make_optimizer(other)
    assert not same(model, other)
    load_modules(tmp_path / "c", {"model": other, "heads": other_heads})
    load_optimizer(tmp_path / "c", other_optimizer)
    assert read_state(tmp_path / "c") == {"stage": 1, "step": 3}
    assert same(model, other) and same(heads, other_heads)
    assert other.out.weight is other.embed.weight  # still tied
    for seed in range(3, 6):
        step(model, optimizer, seed)
        step(other, other_optimizer, seed)
    assert same(model, other)


def test_files_hold_tensors_once_and_no_pickle(tmp_path: Path) -> None:
    model = Tied(0)
    save_checkpoint(tmp_path / "c", {"model": model}, make_optimizer(model), {})
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == [
        "model.safetensors",
        "optimizer.safetensors",
        "state.json",
    ]
    with safe_open(tmp_path / "c" / "model.safetensors", "pt") as file:
        names = set(file.keys())
    assert names == {"embed.weight", "layers.0.weight", "layers.0.bias", "frozen", "kept"}
    save_checkpoint(tmp_path / "c", {"model": model}, None, {})
    assert not (tmp_path / "c" / "optimizer.safetensors").exists()


def test_an_optimizer_that_has_not_stepped(tmp_path: Path) -> None:
    model = Tied(0)
    save_checkpoint(tmp_path / "c", {"model": model}, make_optimizer(model), {})
    fresh = make_optimizer(model)
    load_optimizer(tmp_path / "c", fresh)
    assert not fresh.state
    step(model, fresh, 0)


@pytest.mark.parametrize(
    ("saved", "loaded", "words"),
    [
        (Tied(0, layers=2), Tied(0, layers=1), "layers.1.bias"),
        (Tied(0, layers=1), Tied(0, layers=2), "layers.1.bias"),
        (nn.Linear(3, 4), nn.Linear(3, 5), "bias"),
        (nn.Linear(3, 4), nn.Linear(3, 4, bias=False), "bias"),
    ],
)
def test_another_recipe_is_refused_and_nothing_is_changed(
    tmp_path: Path, saved: nn.Module, loaded: nn.Module, words: str
) -> None:
    save_checkpoint(tmp_path / "c", {"model": saved}, None, {})
    before = {name: value.clone() for name, value in loaded.state_dict().items()}
    with pytest.raises(DataError, match=rf"another recipe \(model\.{words}\)") as caught:
        load_modules(tmp_path / "c", {"model": loaded})
    assert "\n" not in str(caught.value)
    assert all(torch.equal(before[name], value) for name, value in loaded.state_dict().items())


@pytest.mark.parametrize("name", ["model.safetensors", "state.json", "optimizer.safetensors"])
@pytest.mark.parametrize("content", [None, b"", b"\x00\xff" * 40])
def test_broken_files_are_told(tmp_path: Path, name: str, content: bytes | None) -> None:
    model = Tied(0)
    optimizer = make_optimizer(model)
    step(model, optimizer, 0)
    save_checkpoint(tmp_path / "c", {"model": model}, optimizer, {"stage": 0, "step": 1})
    (tmp_path / "c" / name).unlink()
    if content is not None:
        (tmp_path / "c" / name).write_bytes(content)
    with pytest.raises(DataError, match=name) as caught:
        read_state(tmp_path / "c")
        load_modules(tmp_path / "c", {"model": model})
        load_optimizer(tmp_path / "c", optimizer)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- interruptions


class Killed(BaseException):
    """As if the process ended here."""


def number(folder: Path) -> float:
    """Which checkpoint is found; it must be whole."""
    found = find_checkpoint(folder)
    assert found is not None
    model = nn.Linear(2, 2)
    load_modules(found, {"model": model})
    value = read_state(found)["number"]
    assert (model.weight == value).all() and (model.bias == value).all()
    return value


def save(folder: Path, value: float) -> None:
    model = nn.Linear(2, 2)
    nn.init.constant_(model.weight, value)
    nn.init.constant_(model.bias, value)
    save_checkpoint(folder, {"model": model}, None, {"stage": 0, "step": 0, "number": value})


@pytest.mark.parametrize("start", ["usual", "between two renames"])
@pytest.mark.parametrize("when", range(16))
def test_a_kill_before_any_action(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: str, when: int) -> None:
    folder = tmp_path / "c"
    save(folder, 1)
    if start != "usual":
        os.rename(folder, tmp_path / "c.old")
    assert number(folder) == 1
    calls = 0

    def counted(action: Any) -> Any:
        def act(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > when:
                raise Killed
            return action(*args, **kwargs)

        return act

    with monkeypatch.context() as patch:
        patch.setattr(module.shutil, "rmtree", counted(module.shutil.rmtree))
        patch.setattr(module.os, "rename", counted(os.rename))
        patch.setattr(module.files, "to_disk", counted(module.files.to_disk))
        patch.setattr(module, "save_file", counted(module.save_file))
        patch.setattr(Path, "write_text", counted(Path.write_text))
        patch.setattr(Path, "mkdir", counted(Path.mkdir))
        killed = False
        try:
            save(folder, 2)
        except Killed:
            killed = True
    assert killed == (when < calls)
    assert number(folder) in ((1, 2) if killed else (2,))
    save(folder, 3)  # what a kill left behind is in nobody's way
    assert number(folder) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c"]


def test_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is renamed is on the disk before, and the rename before the old checkpoint is taken away."""
    save(tmp_path / "c", 1)
    done: list[str] = []
    for owner, name in ((module.files, "to_disk"), (module.os, "rename"), (module.shutil, "rmtree")):
        real = getattr(owner, name)

        def noted(path: Path, *rest: Any, real: Any = real, name: str = name, **more: Any) -> Any:
            done.append(f"{name} {path.relative_to(tmp_path)}")
            return real(path, *rest, **more)

        monkeypatch.setattr(owner, name, noted)
    save(tmp_path / "c", 2)
    assert set(done[1:4]) == {"to_disk c.new", "to_disk c.new/model.safetensors", "to_disk c.new/state.json"}
    assert done[3] == "to_disk c.new"
    assert done[4:] == ["rmtree c.old", "rename c", "rename c.new", "to_disk .", "rmtree c.old"]


def test_a_full_disk(tmp_path: Path) -> None:
    save(tmp_path / "c", 1)
    with pytest.raises(OutputError, match="cannot be written") as caught, small_disk():
        save_checkpoint(tmp_path / "c", {"model": nn.Linear(300, 300)}, None, {"number": 2})
    assert "\n" not in str(caught.value)
    assert number(tmp_path / "c") == 1


@pytest.mark.parametrize("failing", ["save_file", "rename"])
def test_an_error_while_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    save(tmp_path / "c", 1)

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(module if failing == "save_file" else module.os, failing, refuse)
        with pytest.raises(OutputError, match="No space left on device"):
            save(tmp_path / "c", 2)
    assert number(tmp_path / "c") == 1


def test_find_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    assert find_checkpoint(folder) is None
    save(folder, 1)
    assert find_checkpoint(folder) == folder
    os.rename(folder, tmp_path / "c.old")
    assert find_checkpoint(folder) == tmp_path / "c.old"
    folder.mkdir()  # without its state it is not whole
    assert find_checkpoint(folder) == tmp_path / "c.old"
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        save(tmp_path / "file" / "c", 1)
