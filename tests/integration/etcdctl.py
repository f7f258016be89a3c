"""The distribution's etcdctl: run from tests, and recorded against the distribution's etcd.

``python -m tests.integration.etcdctl`` starts an etcd of one member, runs every ``*.script`` of
``tests/golden/etcdctl`` against it, each on a store of its own, and writes beside it what was said.
A line of a script is the arguments of a command, as a shell would take them; ``<`` and a text in
quotes gives it standard input.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.integration.cluster import free_addresses

__all__ = ["ETCDCTL", "SCRIPTS", "Said", "empty_etcd", "etcdctl", "transcript"]

ETCDCTL = shutil.which("etcdctl")
SCRIPTS = Path(__file__).resolve().parent.parent / "golden" / "etcdctl"
TIMEOUT_S = 60

# Fields that differ between clusters, and between two runs.
_OWN = {
    "cluster_id",
    "member_id",
    "raft_term",
    "ID",
    "leader",
    "raftIndex",
    "raftTerm",
    "raftAppliedIndex",
    "dbSize",
    "dbSizeInUse",
    "name",
    "peerURLs",
    "clientURLs",
    "Endpoint",
}


class Said(NamedTuple):
    """What a command came to. ``error``: why it failed."""

    code: int
    out: str
    error: str

    @property
    def json(self) -> Any:
        """Of a command with ``-w json``."""
        assert self.code == 0, self.error
        return json.loads(self.out)


def etcdctl(endpoints: str, *arguments: str, stdin: str = "") -> Said:
    """Run one command against ``endpoints``, addresses or URLs with commas between them."""
    assert ETCDCTL is not None
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ETCDCTL_")}
    done = subprocess.run(
        [ETCDCTL, f"--endpoints={endpoints}", *arguments],
        env={**kept, "ETCDCTL_API": "3"},
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    # Its client's own log is JSON, a line each.
    said = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    return Said(done.returncode, done.stdout, "\n".join(said))


def transcript(script: Path, run: Callable[..., Said]) -> str:
    """What ``run`` says to each line of a script, without what differs between clusters."""
    parts = []
    for line in script.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        asked, _, stdin = line.partition(" < ")
        given = shlex.split(stdin)[0].replace("\\n", "\n") if stdin else ""
        said = run(*shlex.split(asked), stdin=given)
        text = "\n".join(filter(None, [_masked(said.out).rstrip("\n"), _masked(said.error)]))
        parts.append(f"$ {line}\n{text}\n")
    return "\n".join(parts)


def _masked(text: str) -> str:
    if text.startswith(("{", "[")):
        return json.dumps(_without_own(json.loads(text)), indent=1, sort_keys=True)
    text = re.sub(r'"(ClusterID|MemberID|RaftTerm)" : \d+', r'"\1" : ...', text)
    text = re.sub(r"took = \S+", "took = ...", text)
    return re.sub(r"(https?://)?127\.0\.0\.1:\d+", "ADDRESS", text)


def _without_own(value: Any) -> Any:
    if isinstance(value, dict):
        # That of nothing is 0 here, and left out.
        kept = {name: one for name, one in value.items() if name != "hash"}
        return {k: "..." if _is_own(k, v) else _without_own(v) for k, v in kept.items()}
    return [_without_own(item) for item in value] if isinstance(value, list) else value


def _is_own(name: str, value: Any) -> bool:
    """A key's version is a number, and the same everywhere; a server's is a text."""
    return name in _OWN or (name == "version" and isinstance(value, str))


@contextlib.contextmanager
def empty_etcd() -> Iterator[str]:
    """The URL of an etcd with nothing in it."""
    client, peer = (f"http://{address}" for address in free_addresses(2))
    with tempfile.TemporaryDirectory() as directory:
        server = subprocess.Popen(
            [
                "etcd",
                f"--data-dir={directory}/data",
                f"--listen-client-urls={client}",
                f"--advertise-client-urls={client}",
                f"--listen-peer-urls={peer}",
                f"--initial-advertise-peer-urls={peer}",
                f"--initial-cluster=default={peer}",
            ],
            stderr=subprocess.DEVNULL,
        )
        try:
            while etcdctl(client, "endpoint", "health").code:
                time.sleep(0.1)
            yield client
        finally:
            server.kill()
            server.wait()


def _record() -> None:
    for script in sorted(SCRIPTS.glob("*.script")):
        with empty_etcd() as address:

            def run(*arguments: str, stdin: str = "", address: str = address) -> Said:
                return etcdctl(address, *arguments, stdin=stdin)

            script.with_suffix(".said").write_text(transcript(script, run))


if __name__ == "__main__":
    _record()
