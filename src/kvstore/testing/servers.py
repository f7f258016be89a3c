"""Real kvd processes for tests: one that is a cluster in itself, or three members to be hurt.

They are children of this process, listen on loopback alone, and are gone when the object is closed.
What they log stands in a file beside their data, the end of which is in the error when one of them
doesn't start.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypedDict, Unpack

from kvstore.client import AsyncClient, Client, RetryPolicy, Telemetry
from kvstore.client.channels import Transport
from kvstore.client.requests import BytesLike
from kvstore.errors import Error, InvalidArgumentError, UnavailableError

__all__ = ["ClientOptions", "Cluster", "Server"]

TIMEOUT_S: Final = 30.0
"""Of clients: loaded machines of continuous integration are no reason to fail."""

START_S: Final = 60.0
STOP_S: Final = 15.0
LOOK_INTERVAL_S: Final = 0.02
LOG_LINES: Final = 20
PORT_MIN: Final = 10_000
PORT_END: Final = 32_768

_LISTENING = re.compile(r"kvd listening on (?P<address>\S+) ")


class ClientOptions(TypedDict, total=False):
    """What a client can be told: see :class:`kvstore.Client`."""

    timeout: float | None
    retry: RetryPolicy | None
    transport: Transport | None
    user: str | None
    password: str | None
    namespace: BytesLike | None
    telemetry: Telemetry | None


class Server:
    """One kvd. As a context manager it is started, and gone at the end, whatever happened."""

    def __init__(self, directory: Path, *options: str, listen: str = "127.0.0.1:0") -> None:
        """``directory``: for its data, ``data``, and its log, ``kvd.log``. ``options``: as of its
        command line. ``listen``: port 0 is one that the system chooses."""
        self.directory = directory
        self.log = directory / "kvd.log"
        self.address = ""
        """``host:port``, once it was started; it stays the same."""
        self._listen = listen
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._is_paused = False

    @property
    def url(self) -> str:
        """Its connection string."""
        return f"kv://{self.address}"

    @property
    def runs(self) -> bool:
        """Whether its process is there; it may stand still."""
        return self._process is not None and self._process.poll() is None

    def client(self, **options: Unpack[ClientOptions]) -> Client:
        """A client of it, with a timeout of 30 s unless another one is among its options."""
        options.setdefault("timeout", TIMEOUT_S)
        return Client(self.address, **options)

    def async_client(self, **options: Unpack[ClientOptions]) -> AsyncClient:
        """The same for asyncio."""
        options.setdefault("timeout", TIMEOUT_S)
        return AsyncClient(self.address, **options)

    def start(self) -> Self:
        """Start it, and wait until it serves. Raises UnavailableError."""
        self.begin()
        self.wait_serving()
        return self

    def begin(self) -> None:
        """Start it, and wait until it listens. Raises UnavailableError."""
        if self.runs:
            raise InvalidArgumentError("it runs already")
        self.directory.mkdir(parents=True, exist_ok=True)
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-c", "from kvstore.cli.entry import kvd; kvd()"),
                    f"--data_dir={self.directory / 'data'}",
                    f"--listen_addr={self.address or self._listen}",
                    *self._options,
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=_environment(),
            )
        try:
            self.address = self._announced()
        except BaseException:
            self.kill()
            raise

    def wait_serving(self, timeout: float = START_S) -> None:
        """Return when it can serve. Raises UnavailableError."""
        end = time.monotonic() + timeout
        with Client(self.address) as client:
            while not client.health(timeout=5.0)[0].serving:
                if not self.runs or time.monotonic() > end:
                    raise self._trouble("doesn't serve")
                time.sleep(LOOK_INTERVAL_S)

    def kill(self) -> None:
        """End it at once (SIGKILL), as a power loss would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to end (SIGTERM), and wait until it has."""
        self.resume()
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Let it stand still (SIGSTOP): who talks to it hears nothing."""
        self._signal(signal.SIGSTOP)
        self._is_paused = True

    def resume(self) -> None:
        """Let it go on, if it stands still."""
        if self._is_paused and self.runs:
            self._signal(signal.SIGCONT)
        self._is_paused = False

    def revive(self) -> None:
        """Let it go on if it stands still, start it if it doesn't run; else do nothing."""
        self.resume()
        if not self.runs:
            self.start()

    def restart(self) -> None:
        """Start it anew on what it has, wherever it is, and wait until it serves."""
        if self.runs:
            self.stop()
        self.start()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None or self._process.poll() is not None:
            raise InvalidArgumentError("it doesn't run")
        self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        self._is_paused = False
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        finally:
            assert process.stdout is not None
            process.stdout.close()

    def _announced(self) -> str:
        """The address that it says it listens on."""
        assert self._process is not None
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(START_S):
                raise self._trouble("said nothing")
        line: bytes = self._process.stdout.readline()
        match = _LISTENING.match(line.decode(errors="replace"))
        if match is None:
            raise self._trouble("didn't start")
        return match["address"]

    def _trouble(self, what: str) -> UnavailableError:
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        said = "\n".join(lines) or "it logged nothing"
        return UnavailableError(f"kvd {what}; the end of {self.log}:\n{said}")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()


class Cluster:
    """Three members, or as many as are asked for, each a kvd to be killed, paused and restarted."""

    def __init__(self, directory: Path, size: int = 3) -> None:
        """``directory``: for all that is theirs."""
        addresses = _free_addresses(2 * size)
        clients, peers = addresses[:size], addresses[size:]
        nodes = "".join(
            f'[[nodes]]\nnode_id = {member}\nclient_addr = "{client}"\npeer_addr = "{peer}"\n'
            for member, client, peer in zip(range(1, size + 1), clients, peers, strict=True)
        )
        self.members: Mapping[int, Server] = {
            member: _member(directory / f"member{member}", member, client, nodes)
            for member, client in zip(range(1, size + 1), clients, strict=True)
        }
        """By their ids, from 1 on."""
        self.addresses = ",".join(clients)

    @property
    def url(self) -> str:
        """Their connection string."""
        return f"kv://{self.addresses}"

    def client(self, **options: Unpack[ClientOptions]) -> Client:
        """A client of all, with a timeout of 30 s unless another one is among its options."""
        options.setdefault("timeout", TIMEOUT_S)
        return Client(self.addresses, **options)

    def async_client(self, **options: Unpack[ClientOptions]) -> AsyncClient:
        """The same for asyncio."""
        options.setdefault("timeout", TIMEOUT_S)
        return AsyncClient(self.addresses, **options)

    def leader(self, timeout: float = START_S) -> int:
        """The id of the member that leads; waits for one. Raises UnavailableError."""
        end = time.monotonic() + timeout
        while True:
            for member in self.members.values():
                if not member.runs:
                    continue
                with contextlib.suppress(Error), Client(member.address, timeout=1.0) as client:
                    leader = client.status().leader_id
                    if leader and self.members[leader].runs:
                        return leader
            if time.monotonic() > end:
                raise UnavailableError(f"nobody leads after {timeout:g} s")
            time.sleep(LOOK_INTERVAL_S)

    def start(self) -> Self:
        """Start those that don't run, and let those go on that stand still; wait until all serve.

        Raises UnavailableError.
        """
        for member in self.members.values():
            member.resume()
        idle = [member for member in self.members.values() if not member.runs]
        with ThreadPoolExecutor(len(self.members)) as pool:
            # Together: founders wait for each other.
            list(pool.map(Server.begin, idle))
            list(pool.map(Server.wait_serving, self.members.values()))
        return self

    def kill(self, member: int) -> None:
        """End a member at once (SIGKILL)."""
        self.members[member].kill()

    def pause(self, member: int) -> None:
        """Let a member stand still (SIGSTOP)."""
        self.members[member].pause()

    def resume(self, member: int) -> None:
        """Let it go on."""
        self.members[member].resume()

    def restart(self, member: int) -> None:
        """Start a member anew on what it has, and wait until it serves."""
        self.members[member].restart()

    def close(self) -> None:
        """End all of them at once."""
        for member in self.members.values():
            member.kill()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _member(directory: Path, member: int, client: str, nodes: str) -> Server:
    directory.mkdir(parents=True)
    config = directory / "kvd.toml"
    config.write_text(
        f'cluster_id = "testing"\nself_id = {member}\ndata_dir = "{directory / "data"}"\n{nodes}'
    )
    return Server(directory, "--mode=cluster-node", f"--config={config}", listen=client)


def _environment() -> dict[str, str]:
    """This process', less what would be an option of kvd."""
    return {name: value for name, value in os.environ.items() if not name.startswith("KVD_")}


def _free_addresses(count: int) -> list[str]:
    """Addresses of loopback that nobody has now.

    Below the ports that systems give out by themselves: a member that was killed must find its own
    free when it comes back.
    """
    found: list[str] = []
    with contextlib.ExitStack() as held:
        for port in _ports():
            one = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                one.bind(("127.0.0.1", port))
                found.append(f"127.0.0.1:{port}")
            if len(found) == count:
                break
    return found


def _ports() -> Iterator[int]:
    while True:
        yield random.randrange(PORT_MIN, PORT_END)
