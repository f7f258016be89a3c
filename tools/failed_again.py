"""Runs the few tests that failed in the last run once more, by themselves.

python tools/failed_again.py

A test of real processes, sockets and signals may miss its moment where the machine was busy with
others; one that has found a defect of ours fails again. So up to ``FAILED_MAX`` tests get ``TIMES``
runs with nothing beside them, and all of these must pass. They are named either way: a test that
comes up here again and again is to be mended. Tests whose outcome doesn't depend on time (simulated
seeds, properties) try the same again, so nothing that they find passes here.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

FAILED = (  # by the two runs of tools/all_tests.sh
    Path(".pytest_cache/v/cache/lastfailed"),
    Path(".pytest_cache/computing/v/cache/lastfailed"),
)
FAILED_MAX = 3
TIMES = 3


def main() -> int:
    tests = [test for file in FAILED if file.exists() for test in json.loads(file.read_text())]
    if not 0 < len(tests) <= FAILED_MAX:
        print(f"{len(tests)} tests failed: that is no matter of a busy machine")
        return 1
    print("failed, and run by themselves now:", *tests, sep="\n  ", flush=True)
    for _ in range(TIMES):
        again = subprocess.run([sys.executable, "-m", "pytest", *tests], check=False)
        if again.returncode:
            return again.returncode
    print(
        f"passed {TIMES} times by themselves, so time was short; to be mended:", *tests, sep="\n  "
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
