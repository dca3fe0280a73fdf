"""Removal of files of an earlier run."""

from __future__ import annotations

from pathlib import Path

from unibiomed.evaluate.stale_files import remove_stale_files


def fill(folder: Path, *names: str) -> list[Path]:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_text(name)
    return [folder / name for name in names]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def test_stale_files_are_removed_and_user_files_kept(tmp_path: Path) -> None:
    folder = tmp_path / "tables"
    remove_stale_files(folder, [])
    assert not folder.exists()
    mine = fill(folder, "mine.md", "failures.md")[:1]
    remove_stale_files(folder, fill(folder, "a.md", "volumes.md"))
    assert names(folder) == {"mine.md", "failures.md", "a.md", "volumes.md"}
    remove_stale_files(folder, fill(folder, "a.md", "b.md"))
    assert names(folder) == {"mine.md", "failures.md", "a.md", "b.md"}
    # a file that the user removed is ignored
    (folder / "b.md").unlink()
    remove_stale_files(folder, [])
    assert names(folder) == {"mine.md", "failures.md"} and mine[0].read_text() == "mine.md"


def test_manifest_cannot_delete_files_elsewhere(tmp_path: Path) -> None:
    (outside,) = fill(tmp_path, "outside.md")
    folder = tmp_path / "tables"
    fill(folder, ".written")
    (folder / ".written").write_text(f"../outside.md\n{outside}\n..\n.\n\n")
    remove_stale_files(folder, [])
    assert outside.is_file() and folder.is_dir()
