"""A directory as plain bytes: what a case changes, and what is put on a disk to be opened."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from kvstore._engine.files.native import MemoryFileSystem

__all__ = ["Tree", "disk_of", "tree_of", "write_out"]

Tree = Mapping[str, bytes]
"""Path from the root of a disk -> the file's bytes. Directories follow from the names."""


def tree_of(disk: MemoryFileSystem, directory: str) -> Tree:
    """All files below ``directory``, as a reader sees them."""
    return {path: disk.read_file(path) for path in disk.files(directory)}


def disk_of(tree: Tree, directory: str) -> MemoryFileSystem:
    """A disk in memory with these files; ``directory`` is there also where it holds none."""
    disk = MemoryFileSystem()
    disk.make_directories(directory)
    for path, content in tree.items():
        disk.write_file(path, content)
    return disk


def write_out(tree: Tree, below: Path) -> None:
    """Make these files below a directory of the real disk."""
    for path, content in tree.items():
        file = below / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "wb") as opened:
            opened.write(content)
