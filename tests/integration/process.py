"""A real kvd: started, waited for, killed and read from tests. No fixed ports, no sleeps."""

from __future__ import annotations

import contextlib
import io
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from unittest import mock

import grpc
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc

from kvstore.cli.kvctl import run as kvctl_run
from kvstore.client import TLS, Client
from kvstore.wire import available

SOURCES = Path(__file__).resolve().parents[2] / "src"
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 15.0

FRONTS = ("native", "grpcio") if available() else ("grpcio",)
"""Those that this build has."""

FRONT = os.environ.get("KVSTORE_TEST_FRONT", "auto")
"""That of each kvd whose test doesn't choose one."""

LISTENING = re.compile(
    r"kvd listening on (?P<address>\S+) \(requested=(?P<requested>\S+), "
    r"tls_profile=(?P<profile>\S+), data_dir=(?P<data_dir>.+)\)\n"
)


def command(program: str) -> list[str]:
    """Return what starts ``kvd`` or ``kvctl`` on the interpreter that runs the tests."""
    return [sys.executable, "-m", f"kvstore.cli.{program}"]


def environment(**extra: str) -> dict[str, str]:
    """Return an environment in which the sources under test are importable, and nothing of ours."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("KVD_", "KVCTL_", "GRPC_", "OTEL_"))
    }
    path = os.pathsep.join(filter(None, [str(SOURCES), inherited.get("PYTHONPATH")]))
    return {**inherited, "PYTHONPATH": path, **extra}


def run(
    program: str,
    *arguments: str,
    stdin: bytes | None = None,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    wrapper: Sequence[str] = (),
) -> subprocess.CompletedProcess[bytes]:
    """Run ``kvd`` or ``kvctl`` to its end, inside ``wrapper`` if given; return what it said.

    A kvctl that needs nothing of its own runs in this process: another takes a second to begin.
    """
    if program == "kvctl" and env is None and cwd is None and not wrapper:
        return kvctl_here(*arguments, stdin=stdin or b"")
    return subprocess.run(
        [*wrapper, *command(program), *arguments],
        check=False,
        capture_output=True,
        input=b"" if stdin is None else stdin,
        env=environment() if env is None else env,
        cwd=cwd,
        timeout=60,
    )


def kvctl_here(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """What kvctl says and exits with, in this process. By one thread at a time."""
    argv = ["kvctl", *arguments]
    said, complained = io.BytesIO(), io.BytesIO()
    output, errors = io.TextIOWrapper(said), io.TextIOWrapper(complained)
    others = {name: it for name, it in os.environ.items() if not name.startswith("KVCTL_")}
    with (
        mock.patch.dict(os.environ, others, clear=True),
        mock.patch.multiple(sys, stdin=io.TextIOWrapper(io.BytesIO(stdin))),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        status = kvctl_run(arguments)
    output.flush()
    errors.flush()
    return subprocess.CompletedProcess(argv, status, said.getvalue(), complained.getvalue())


@dataclass(frozen=True)
class Certificates:
    """PEM files of an authority and of a server at localhost and 127.0.0.1."""

    ca: Path
    cert: Path
    key: Path

    @classmethod
    def make(cls, directory: Path) -> Certificates:
        authority = trustme.CA()
        server = authority.issue_cert("localhost", "127.0.0.1")
        made = cls(directory / "ca.pem", directory / "server.pem", directory / "server.key")
        authority.cert_pem.write_to_path(made.ca)
        server.private_key_pem.write_to_path(made.key)
        made.key.chmod(0o600)
        for number, blob in enumerate(server.cert_chain_pems):
            blob.write_to_path(made.cert, append=number > 0)
        return made


class Kvd:
    """One run of kvd. Use as a context manager: it is gone at the end, whatever happened."""

    def __init__(
        self,
        data_dir: Path,
        *arguments: str,
        certificates: Certificates | None = None,
        listen: str = "127.0.0.1:0",
        env: dict[str, str] | None = None,
        wrapper: Sequence[str] = (),
        admin: str = "operators",
        front: str = FRONT,
        rados: Path | None = None,
    ) -> None:
        """``rados``: file of a gateway, which has no directory; ``data_dir`` then names it only."""
        self.data_dir = data_dir
        self.certificates = certificates
        self._stderr_path = data_dir.parent / f"{data_dir.name}.{time.monotonic_ns()}.stderr"
        place = [f"--data_dir={data_dir}"]
        if rados is not None:
            place = ["--mode=rados", f"--config={rados}"]
        secure = []
        if certificates is not None:
            secure = [
                "--tls_profile=secure",
                f"--tls_cert={certificates.cert}",
                f"--tls_key={certificates.key}",
            ]
        with open(self._stderr_path, "wb") as stderr:
            self._process = subprocess.Popen(
                [
                    *wrapper,
                    *command("kvd"),
                    *place,
                    f"--listen_addr={listen}",
                    f"--admin={admin}",
                    f"--front={front}",
                    *secure,
                    *arguments,
                ],
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=environment(**(env or {})),
            )
        try:
            self.first_line = self._read_first_line()
            match = LISTENING.fullmatch(self.first_line)
            if match is None:
                raise AssertionError(f"unexpected first line {self.first_line!r}\n{self.stderr}")
            self.address = match["address"]
        except BaseException:
            self.kill()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def stderr(self) -> str:
        return self._stderr_path.read_text("utf-8", "replace")

    @property
    def tls(self) -> TLS | None:
        return None if self.certificates is None else TLS(ca=self.certificates.ca)

    def client(self, timeout: float = 10.0) -> Client:
        return Client(self.address, tls=self.tls, timeout=timeout)

    def channel(self) -> grpc.Channel:
        if self.tls is None:
            return grpc.insecure_channel(self.address)
        return grpc.secure_channel(self.address, self.tls.credentials())

    def wait_serving(self) -> Self:
        """Return once the health service says SERVING."""
        return self.wait_health(health_pb2.HealthCheckResponse.SERVING)

    def wait_health(self, status: int) -> Self:
        """Return once the health service says ``status``."""
        with self.channel() as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(
                health_pb2.HealthCheckRequest(service="kvstore.v1.KV"),
                timeout=START_TIMEOUT_S,
                wait_for_ready=True,
            )
            for answer in watch:
                if answer.status == status:
                    watch.cancel()
                    return self
        raise AssertionError(f"the health stream ended before it said {status}")

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self, timeout: float = STOP_TIMEOUT_S) -> int:
        """Return the exit status."""
        try:
            status = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"kvd did not end within {timeout} s\n{self.stderr}") from None
        assert self._process.stdout is not None
        self._process.stdout.close()
        return status

    def terminate(self) -> int:
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> int:
        self._process.kill()
        return self.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self.wait()

    def _read_first_line(self) -> str:
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(START_TIMEOUT_S):
                raise AssertionError(f"kvd said nothing in {START_TIMEOUT_S} s\n{self.stderr}")
        line: bytes = self._process.stdout.readline()
        if not line:
            status = self._process.wait(STOP_TIMEOUT_S)
            raise AssertionError(f"kvd exited with {status}\n{self.stderr}")
        return line.decode()
