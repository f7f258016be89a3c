"""Disks of real processes that hang, are slow or fail, when a test says so."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

__all__ = ["COMPILER", "DiskTrouble"]

COMPILER = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")


class DiskTrouble:
    """What each member's disk does at a sync, for processes started with :meth:`environment`."""

    def __init__(self, directory: Path) -> None:
        """Build the library that does it, in ``directory``."""
        assert COMPILER is not None, "no C compiler"
        self._directory = directory
        self._library = directory / "disk_trouble.so"
        source = Path(__file__).with_name("disk_trouble.c")
        subprocess.run(
            [COMPILER, "-shared", "-fPIC", "-o", self._library, source, "-ldl"], check=True
        )

    def environment(self, member: int) -> dict[str, str]:
        """What a member's process is started with."""
        return {"LD_PRELOAD": str(self._library), "DISK_TROUBLE": str(self._words(member))}

    def say(self, member: int, words: str) -> None:
        """``hang``, ``slow MS``, ``fail``, ``fail PART`` (syncs of files whose path has ``PART`` in
        it) or ``well``, from the next sync on.
        """
        path = self._words(member)
        new = path.with_suffix(".new")
        new.write_text(words)
        new.replace(path)

    def _words(self, member: int) -> Path:
        return self._directory / f"disk_of_{member}"
