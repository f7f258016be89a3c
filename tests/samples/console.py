"""Console sessions of the docs: what is typed after ``$`` runs in one shell, and prints that."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from tests.integration.process import environment

DEADLINE_S = 60.0
_END = "__end of the command__"
# What bash says of a job that was killed, whenever it sees it.
_KILLED = re.compile(r"bash: line \d+: +\d+ Killed .*\n?")


def commands(block: str) -> list[tuple[str, str]]:
    """The commands of a session, each with what it is to print.

    A command goes on in the next line after a backslash, and up to the end of its here-document.
    """
    found = []
    for said in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        lines = said.splitlines()
        taken = 1
        while lines[taken - 1].endswith("\\"):
            taken += 1
        here = re.search(r"<<'?(\w+)'?", lines[0])
        if here:
            taken = lines.index(here[1]) + 1
        found.append(("\n".join(lines[:taken]), "\n".join(lines[taken:])))
    return found


def matches(expected: str, printed: str) -> bool:
    """Whether that was printed, where ``…`` stands for anything, alone in a line for any lines."""
    wanted = "".join(
        r"(?:.*\n)*" if line.strip() == "…" else re.escape(line).replace("…", ".*?") + r"\n"
        for line in expected.strip().splitlines()
    )
    return re.fullmatch(wanted, printed.strip() + "\n" if printed.strip() else "") is not None


def _cleaned(printed: str) -> str:
    """Without what isn't the command's."""
    return _KILLED.sub("", printed.replace(f"\n{_END}\n", "").replace(_END, ""))


class Shell:
    """A shell in ``directory`` for the sessions of one page, with kvd and kvctl on its path."""

    def __init__(self, directory: Path, **variables: str) -> None:
        self._directory = directory
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=directory,
            env=environment(PATH=path, HOME=str(directory), **variables),
            start_new_session=True,
        )

    def run(self, command: str, until: str = "") -> str:
        """What the command prints; of one in the background, up to a line that is as ``until``."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\necho; echo '{_END}'\n".encode())
        self._process.stdin.flush()
        printed = self._read(lambda text: f"{_END}\n" in text)
        if command.rstrip().endswith("&") and until:
            printed += self._read(lambda text: matches(until, _cleaned(text)), printed)
        return _cleaned(printed)

    def _read(self, done: Callable[[str], bool], before: str = "") -> str:
        assert self._process.stdout is not None
        output, found = self._process.stdout, b""
        deadline = time.monotonic() + DEADLINE_S
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            while not done(before + found.decode(errors="replace")):
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError(f"only {before + found.decode(errors='replace')!r} yet")
                piece = os.read(output.fileno(), 1 << 16)
                assert piece, "the shell has ended"
                found += piece
        return found.decode(errors="replace")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()
        # A cluster that a session which failed left running is in no group of the shell's.
        for process in psutil.process_iter(["cmdline"]):
            if any(str(self._directory) in word for word in process.info["cmdline"] or ()):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
