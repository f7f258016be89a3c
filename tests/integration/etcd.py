"""A real etcd of one member: started, killed, started again. No fixed ports, no sleeps."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kvstore.client import AsyncClient, Client
from kvstore.errors import Error
from tests.integration.cluster import free_addresses

START_TIMEOUT_S = 30.0


def missing() -> str | None:
    """Why there is none; None: it is installed."""
    for program in ("etcd", "etcdctl"):
        if shutil.which(program) is None:
            return f"{program} isn't installed (apt-get install etcd-server etcd-client)"
    return None


class Etcd:
    """One run after the other on one directory and address."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.address, self._peer = free_addresses(2)
        self._process: subprocess.Popen[bytes] | None = None

    def start_without_waiting(self) -> None:
        """Start it."""
        client, peer = f"http://{self.address}", f"http://{self._peer}"
        self._process = subprocess.Popen(
            [
                *("etcd", f"--data-dir={self._directory}", "--log-level=error", "--logger=zap"),
                *(f"--listen-client-urls={client}", f"--advertise-client-urls={client}"),
                *(f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"),
                f"--initial-cluster=default={peer}",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def start(self) -> Self:
        """Start it, and wait until it answers."""
        self.start_without_waiting()
        end = time.monotonic() + START_TIMEOUT_S
        with Client(self.address, timeout=START_TIMEOUT_S) as client_of_it:
            while True:
                try:
                    client_of_it.leases()
                    return self
                except Error:
                    if time.monotonic() > end:
                        raise

    def asynchronous(self) -> AsyncClient:
        """A client of it for asyncio."""
        return AsyncClient(self.address, timeout=30)

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def client(self, timeout: float = 30.0) -> Client:
        return Client(self.address, timeout=timeout)

    def ctl(self, *arguments: str) -> str:
        """What etcdctl says."""
        done = subprocess.run(
            ["etcdctl", f"--endpoints={self.address}", *arguments],
            check=True,
            capture_output=True,
            env={"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin:/usr/local/bin"},
            text=True,
            timeout=60,
        )
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.ctl(*arguments, "--write-out=json"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()
