"""Building and running the native generator (``generator.c`` says what it does)."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

__all__ = ["Generating", "Load", "Measured", "Target", "measure", "start"]

SOURCES = Path(__file__).parent
BINARY = SOURCES.parents[1] / "build" / "load-generator"
LIBRARIES = ("-lnghttp2", "-lssl", "-lcrypto")
NEEDS = "the load generator needs a C compiler, libnghttp2-dev and libssl-dev (Debian's names)"

# Behind a load's own time: calls under way at its end are waited for, and a fill may be slower.
PATIENCE_S = 60.0

Measured = dict[str, Any]
"""What the generator printed: for each operation (``put``, ``get``, ...) calls, calls_per_s,
p50_ms, p99_ms, p999_ms, max_ms; ``errors`` by status, ``missing`` (gets and ranges that found no
whole value), ``unanswered``, ``reopened`` connections, ``longest_gap_ms`` between two successes,
``cpu_s`` by process and ``generator_cpu_s``."""


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """Where calls go. With ``ca`` over TLS; ``cert`` and ``key`` prove the client.

    ``server`` says whose API is spoken; kvd has both. ``processes`` are those whose processor time
    is measured, name to process id.
    """

    server: Literal["kvd", "etcd"]
    address: str
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    processes: Mapping[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Load:
    """What is called how: ``rate`` calls a second are due, or with 0 the loop is closed.

    A range or count goes over ``span`` keys. With ``cancel_after_ms`` the generator cancels what
    isn't answered by then.
    """

    operation: Literal["put", "get", "mixed", "fill", "keepalive", "txn", "range", "count"]
    in_flight: int = 1
    connections: int = 1
    seconds: float = 5.0
    warm_up: float = 0.0
    keys: int = 10_000
    span: int = 1
    value_bytes: int = 100
    rate: float = 0.0
    cancel_after_ms: float = 0.0
    seed: int = 1


class Generating:
    """A generator under way."""

    def __init__(self, target: Target, load: Load) -> None:
        self._load = load
        settings = dataclasses.asdict(load)
        operation = settings.pop("operation")
        files = {"ca": target.ca, "cert": target.cert, "key": target.key}
        settings |= {name: path for name, path in files.items() if path is not None}
        settings |= {f"cpu.{name}": pid for name, pid in target.processes.items()}
        self._process = subprocess.Popen(
            [
                *(str(_built()), target.address, target.server, operation),
                *(f"{name}={value}" for name, value in settings.items()),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def finish(self) -> Measured:
        """Wait for its end; raises RuntimeError with what it said if it failed."""
        patience = self._load.warm_up + self._load.seconds + PATIENCE_S
        try:
            printed, said = self._process.communicate(timeout=patience)
        finally:
            self._process.kill()
        if self._process.returncode:
            raise RuntimeError(said.decode(errors="replace").strip())
        measured: Measured = json.loads(printed)
        return measured

    def stop(self) -> Measured:
        """End it now, whatever its seconds; what it measured until then."""
        self._process.terminate()
        return self.finish()


def start(target: Target, load: Load) -> Generating:
    """Start a load beside whatever else happens."""
    return Generating(target, load)


def measure(target: Target, load: Load) -> Measured:
    """Run a load to its end."""
    return start(target, load).finish()


def _built() -> Path:
    """The generator, compiled anew when a source is newer than it."""
    sources = [*SOURCES.glob("*.c"), *SOURCES.glob("*.h")]
    if BINARY.exists() and all(s.stat().st_mtime <= BINARY.stat().st_mtime for s in sources):
        return BINARY
    compiler = os.environ.get("CC") or shutil.which("cc")
    if compiler is None:
        raise RuntimeError(NEEDS)
    BINARY.parent.mkdir(exist_ok=True)
    made = BINARY.with_suffix(f".{os.getpid()}")
    compiled = subprocess.run(
        [*compiler.split(), "-O2", "-o", made, *sorted(SOURCES.glob("*.c")), *LIBRARIES],
        check=False,
        capture_output=True,
        text=True,
    )
    if compiled.returncode:
        raise RuntimeError(f"{NEEDS}\n{compiled.stderr}")
    made.replace(BINARY)
    return BINARY
