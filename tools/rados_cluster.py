"""A RADOS cluster for tests and demonstrations: one monitor and some OSDs, on loopback alone.

    python -m tools.rados_cluster [--osds 3] [--cephx]     start one, keep it until Ctrl-C

Everything lies in one directory, which is gone at the end; no daemon needs root. BlueStore on
sparse files, no manager. Debian's packages: ceph-mon, ceph-osd, ceph-common.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

PROGRAMS = ("ceph-mon", "ceph-osd", "ceph", "monmaptool", "ceph-authtool")
START_S = 60.0
"""For all daemons to be up and the pool to be clean, on a machine that others use as well."""
STOP_S = 10.0
OSD_BYTES = 2 << 30
OSD_MEMORY_BYTES = 939_524_096
"""The least that an OSD takes for its target; one with little data stays far below."""
POOL = "kv"
USER = "client.kvstore"

CONFIGURATION = """\
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{v2},v1:127.0.0.1:{v1}]
auth cluster required = {auth}
auth service required = {auth}
auth client required = {auth}
run dir = {directory}
admin socket = {directory}/$name.asok
log file = {directory}/$name.log
pid file = {directory}/$name.pid
keyring = {directory}/$name.keyring
ms bind ipv6 = false
ms bind port min = {osd_port}
ms bind port max = {osd_port_max}
public addr = 127.0.0.1
cluster addr = 127.0.0.1
osd pool default size = {size}
osd pool default min size = {min_size}
osd crush chooseleaf type = 0
osd objectstore = bluestore
bluestore block size = {osd_bytes}
osd memory target = {osd_memory}
osd heartbeat grace = 3
osd heartbeat interval = 1
mon osd min down reporters = 1
mon osd adjust heartbeat grace = false
osd max markdown count = 1000
osd scrub load threshold = 1000
osd scrub backoff ratio = 0
mon osd down out interval = 600
mon data avail crit = 1
mon data avail warn = 2
mon pg warn min per osd = 0
mon allow pool delete = true
mon allow pool size one = true
mon warn on pool no redundancy = false
mon osd nearfull ratio = 0.95
mon osd full ratio = 0.98
mon osd backfillfull ratio = 0.97
"""


class ClusterError(Exception):
    """The cluster did not do what was asked; the words say which program said what."""


def missing_programs() -> list[str]:
    """What has to be installed first; empty where everything is there."""
    path = os.environ.get("PATH", "") + os.pathsep + "/usr/sbin"
    return [name for name in PROGRAMS if shutil.which(name, path=path) is None]


class RadosCluster:
    """One monitor and OSDs 0, 1, ... Use as a context manager: it is gone at the end.

    ``configuration``: the file for clients, and ``keyring`` that of :data:`USER`, None without
    cephx.
    """

    def __init__(self, directory: Path, *, osds: int = 3, cephx: bool = False) -> None:
        self.directory = directory
        self.osds = osds
        self.cephx = cephx
        self.configuration = directory / "ceph.conf"
        self.keyring = directory / f"{USER}.keyring" if cephx else None
        self._fsid = str(uuid.uuid4())
        self._uuids = [str(uuid.uuid4()) for _ in range(osds)]
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def start(self) -> None:
        """Make everything, start it, and return when all OSDs are up."""
        missing = missing_programs()
        if missing:
            raise ClusterError(f"not installed: {', '.join(missing)}")
        v2, v1 = _free_ports(2)
        self.configuration.write_text(
            CONFIGURATION.format(
                fsid=self._fsid,
                v2=v2,
                v1=v1,
                auth="cephx" if self.cephx else "none",
                directory=self.directory,
                osd_port=_RANGE[0],
                osd_port_max=_RANGE[1],
                size=self.osds,
                min_size=max(1, self.osds - 1),
                osd_bytes=OSD_BYTES,
                osd_memory=OSD_MEMORY_BYTES,
            )
        )
        self._make_keys()
        monitor_map = self.directory / "monmap"
        self._run(
            *("monmaptool", "--create", "--fsid", self._fsid, "--addv", "a"),
            *(f"[v2:127.0.0.1:{v2},v1:127.0.0.1:{v1}]", str(monitor_map)),
        )
        keys = ["--keyring", str(self.directory / "mon.a.keyring")] if self.cephx else []
        self._run(
            *("ceph-mon", "--mkfs", "-i", "a", "--mon-data", str(self._home("mon.a"))),
            *("--monmap", str(monitor_map), *keys),
        )
        self.start_monitor()
        for number in range(self.osds):
            self._make_osd(number)
        for number in range(self.osds):
            self.start_osd(number)
        self.wait_clean()

    def _make_keys(self) -> None:
        if not self.cephx:
            return
        for name, capabilities in (
            ("client.admin", {"mon": "allow *", "osd": "allow *", "mgr": "allow *"}),
            ("mon.", {"mon": "allow *"}),
        ):
            words = [word for pair in capabilities.items() for word in ("--cap", *pair)]
            path = self.directory / f"{name.rstrip('.')}.keyring"
            self._run(
                *("ceph-authtool", "--create-keyring", str(path), "--gen-key", "-n", name, *words)
            )
        together = self.directory / "mon.a.keyring"
        together.write_text(
            "".join(
                (self.directory / name).read_text()
                for name in ("mon.keyring", "client.admin.keyring")
            )
        )

    def _make_osd(self, number: int) -> None:
        home = self._home(f"osd.{number}")
        secret: list[str] = []
        stdin = None
        if self.cephx:
            keyring = self.directory / f"osd.{number}.keyring"
            self._run(
                *("ceph-authtool", "--create-keyring", str(keyring), "--gen-key"),
                *("-n", f"osd.{number}"),
            )
            key = self._run("ceph-authtool", "-n", f"osd.{number}", "-p", str(keyring)).strip()
            secret, stdin = ["-i", "-"], json.dumps({"cephx_secret": key.decode()}).encode()
            shutil.copy(keyring, home / "keyring")
        self._run("ceph", "osd", "new", self._uuids[number], str(number), *secret, stdin=stdin)
        self._run(
            *("ceph-osd", "-i", str(number), "--osd-data", str(home), "--mkfs"),
            *("--osd-uuid", self._uuids[number]),
        )

    def _home(self, name: str) -> Path:
        home = self.directory / name
        home.mkdir(exist_ok=True)
        return home

    def start_monitor(self) -> None:
        self._start("mon.a", "ceph-mon", "-i", "a", "--mon-data", str(self._home("mon.a")))

    def start_osd(self, number: int) -> None:
        home = str(self._home(f"osd.{number}"))
        self._start(f"osd.{number}", "ceph-osd", "-i", str(number), "--osd-data", home)

    def _start(self, name: str, *command: str) -> None:
        assert name not in self._daemons or self._daemons[name].poll() is not None
        with open(self.directory / f"{name}.out", "ab") as said:
            self._daemons[name] = subprocess.Popen(
                [*command, "-f", "-c", str(self.configuration)],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env=_environment(),
                start_new_session=True,
            )

    def pid(self, name: str) -> int:
        """Of ``mon.a`` or ``osd.<n>``."""
        return self._daemons[name].pid

    def is_running(self, name: str) -> bool:
        return self._daemons[name].poll() is None

    def kill(self, name: str) -> None:
        """SIGKILL, and gone."""
        self._daemons[name].kill()
        self._daemons[name].wait()

    def signal(self, name: str, number: signal.Signals) -> None:
        self._daemons[name].send_signal(number)

    def ceph(self, *words: str) -> bytes:
        """What the ``ceph`` command says; raises ClusterError."""
        return self._run("ceph", *words)

    def ask(self, *words: str) -> Any:
        """The same of a command that answers in JSON."""
        return json.loads(self.ceph(*words, "--format", "json"))

    def make_pool(self, name: str = POOL, *, groups: int = 16, size: int | None = None) -> None:
        """A pool for kvstore, and with cephx the key of its user, who may use that pool alone."""
        self.ceph("osd", "pool", "create", name, str(groups))
        if size is not None:
            sure = ["--yes-i-really-mean-it"] if size == 1 else []
            self.ceph("osd", "pool", "set", name, "size", str(size), *sure)
        self.ceph("osd", "pool", "application", "enable", name, "kvstore")
        if self.keyring is not None:
            said = self.ceph(
                *("auth", "get-or-create", USER, "mon", "allow r"),
                *("osd", f"allow rw pool={name}"),
            )
            self.keyring.write_bytes(said)
            self.keyring.chmod(0o600)

    def store(self, number: int) -> Path:
        """Directory of an OSD's disk."""
        return self._home(f"osd.{number}")

    def log(self, name: str) -> str:
        """All that a daemon has written down."""
        return (self.directory / f"{name}.log").read_text("utf-8", "replace")

    def deep_scrub(self, group: str) -> list[Any]:
        """Compare all copies of a placement group; what isn't the same, object by object.

        Without a manager there is no ``ceph pg deep-scrub``. The group itself takes it that its
        scrubs are overdue, and the first one, which is a deep one, begins within seconds.
        """
        self.ceph("tell", group, "deep_scrub")
        self.ceph("tell", group, "scrub")
        self._until(lambda: self._inconsistent(group) is not None, f"a scrub of {group}")
        return self._inconsistent(group) or []

    def _inconsistent(self, group: str) -> list[Any] | None:
        try:
            said = self._run("rados", "list-inconsistent-obj", group)
        except ClusterError:
            return None  # no scrub yet
        return list(json.loads(said)["inconsistents"])

    def set_full_ratio(self, ratio: float) -> None:
        """Disks of which more is taken are full."""
        # None may be above the next one.
        pairs = [("nearfull", ratio * 0.9), ("backfillfull", ratio * 0.95), ("full", ratio)]
        if ratio > 0.5:
            pairs.reverse()
        for name, value in pairs:
            self.ceph("osd", f"set-{name}-ratio", f"{value:.6f}")

    def mend(self) -> None:
        """Have all daemons run, and the pools be whole."""
        for name, daemon in self._daemons.items():
            if daemon.poll() is None:
                daemon.send_signal(signal.SIGCONT)
            elif name == "mon.a":
                self.start_monitor()
            else:
                self.start_osd(int(name.removeprefix("osd.")))
        self.wait_clean()

    def wait_clean(self) -> None:
        """Return when all OSDs that run have taken their places again."""
        self._until(self._are_active, "all OSDs active")

    def _are_active(self) -> bool:
        """By their own word: a ``ceph`` command takes a second, and its socket a millisecond."""
        for name in self._daemons:
            if name.startswith("osd."):
                try:
                    if _ask_socket(self.directory / f"{name}.asok", "status")["state"] != "active":
                        return False
                except (OSError, ValueError):
                    return False
        return True

    def wait_up(self, count: int) -> None:
        """Return when so many OSDs are up."""
        self._until(lambda: self.ask("osd", "stat")["num_up_osds"] == count, f"{count} OSDs up")

    def _until(self, holds: Any, what: str) -> None:
        until = time.monotonic() + START_S
        while not holds():
            for name, daemon in self._daemons.items():
                if daemon.poll() not in (None, -signal.SIGKILL):
                    raise ClusterError(f"{name} ended with {daemon.returncode}: {self._said(name)}")
            if time.monotonic() > until:
                raise ClusterError(f"not in {START_S:.0f} s: {what}")
            time.sleep(0.2)

    def _said(self, name: str) -> str:
        return (self.directory / f"{name}.out").read_text("utf-8", "replace")[-2000:]

    def _run(self, *command: str, stdin: bytes | None = None) -> bytes:
        if command[0] not in ("monmaptool", "ceph-authtool"):
            command = (command[0], "-c", str(self.configuration), *command[1:])
        if command[0] == "ceph":
            command = (command[0], "--connect-timeout", "20", *command[1:])
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            input=stdin if stdin is not None else b"",
            env=_environment(),
            timeout=START_S,
        )
        if done.returncode:
            said = (done.stderr or done.stdout).decode("utf-8", "replace")[-2000:]
            raise ClusterError(f"{' '.join(command[:8])}: {said}")
        return done.stdout

    def close(self) -> None:
        """End all daemons that this started."""
        for daemon in self._daemons.values():
            with contextlib.suppress(ProcessLookupError):
                daemon.kill()
        for daemon in self._daemons.values():
            daemon.wait(STOP_S)


def _ask_socket(path: Path, what: str) -> Any:
    """What a daemon answers at its socket for operators. Raises OSError, ValueError."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(5)
        asking.connect(str(path))
        asking.sendall(json.dumps({"prefix": what, "format": "json"}).encode() + b"\0")
        answer = asking.makefile("rb").read()
    return json.loads(answer[4:])


def _environment() -> dict[str, str]:
    """What daemons and commands get: nothing of another cluster's."""
    kept = {name: it for name, it in os.environ.items() if not name.startswith("CEPH_")}
    # Debian's command is Python of its own, whatever environment this runs in.
    for name in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"):
        kept.pop(name, None)
    kept["PATH"] = "/usr/bin:/bin:/usr/sbin:/sbin"
    return kept


def _free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, by the kernel's choice."""
    with contextlib.ExitStack() as held:
        found = []
        for _ in range(count):
            taken = held.enter_context(socket.socket())
            taken.bind(("127.0.0.1", 0))
            found.append(taken.getsockname()[1])
        return found


# Where OSDs look for ports of their own; each takes the first that is free.
_RANGE = (6800, 7568)


@contextlib.contextmanager
def rados_cluster(*, osds: int = 3, cephx: bool = False) -> Iterator[RadosCluster]:
    """One with a pool, in a temporary directory."""
    with (
        tempfile.TemporaryDirectory(prefix="kvrados-") as scratch,
        RadosCluster(Path(scratch), osds=osds, cephx=cephx) as cluster,
    ):
        cluster.make_pool()
        yield cluster


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--osds", type=int, default=3)
    parser.add_argument("--cephx", action="store_true")
    asked = parser.parse_args(arguments)
    began = time.monotonic()
    with rados_cluster(osds=asked.osds, cephx=asked.cephx) as cluster:
        print(f"up after {time.monotonic() - began:.1f} s; pool {POOL}")
        print(f"ceph_conf = {json.dumps(str(cluster.configuration))}")
        if cluster.keyring is not None:
            print(f"keyring = {json.dumps(str(cluster.keyring))}")
        print("Ctrl-C ends it.", flush=True)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
