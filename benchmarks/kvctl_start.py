"""What a kvctl that is called from scripts takes of the processor: a table on standard output.

    python -m benchmarks.kvctl_start
    python -m benchmarks.kvctl_start --runs 50

User and system time of the whole process, against a kvd that runs; the least of all runs, since
whatever else the machine does only adds to it. Modules are compiled before, as they are once kvctl
is installed, whatever PYTHONDONTWRITEBYTECODE says here.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.servers import EmbeddedKvd

CALLS = (("python", ()), ("--help", ("--help",)), ("get", ("get", "k")), ("put", ("put", "k", "v")))
WHAT = {"python": [sys.executable, "-c", "pass"]}
KVCTL = [sys.executable, "-c", "from kvstore.cli.entry import kvctl; kvctl()"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="kvstore-bench-") as name,
        EmbeddedKvd(Path(name), secure=False, arguments=[]) as kvd,
    ):
        kvd.wait_serving()
        where = f"--addr={kvd.address}"
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(Path(name) / "compiled")}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        run([*KVCTL, where, "put", "k", "v"], environment)
        for what, arguments in CALLS:
            command = WHAT.get(what) or [*KVCTL, where, *arguments]
            print(f"{what:8} {1000 * least_cpu_s(command, environment, asked.runs):6.1f} ms of CPU")


def least_cpu_s(command: list[str], environment: dict[str, str], runs: int) -> float:
    """Of all runs, but for a first one, which compiles."""
    run(command, environment)
    least = float("inf")
    for _ in range(runs):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run(command, environment)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        least = min(least, took)
    return least


def run(command: list[str], environment: dict[str, str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)


if __name__ == "__main__":
    main()
