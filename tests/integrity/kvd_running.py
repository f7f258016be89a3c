"""A real kvd over a data directory: to make one, and to see what it makes of a damaged one.

Loads gRPC: see kvd_directory.py.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from kvstore.errors import Error, IntegrityCode
from tests.integration.process import Kvd
from tests.integrity.verdicts import Outcome, Verdict

__all__ = ["VALUES", "code_in", "judge", "make", "refusal"]

REFUSALS = ("kvd exited with 1\n", "kvd exited with 5\n")
"""Of what can't be, and of damage: see kvstore.cli.exit_codes."""
VALUES = {b"key%d" % number: b"value %d " % number * 9 for number in range(60)}


def make(directory: Path) -> None:
    """The data of an embedded kvd that was started twice and stopped."""
    for half in (0, 1):
        with Kvd(directory) as kvd:
            with kvd.wait_serving().client() as client:
                for key, value in list(VALUES.items())[half::2]:
                    client.put(key, value)
            assert kvd.terminate() == 0


def judge(directory: Path) -> Verdict:
    """Start kvd on it: it ends with 1 and a line that says why, or serves what was put."""
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    # The worker's bound is for what is judged within it: not for kvd and its client.
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    try:
        kvd = Kvd(directory)
    except AssertionError as error:
        return refusal(str(error))
    with kvd:
        try:
            with kvd.wait_serving().client() as client:
                found = {key: client.get(key) for key in VALUES}
        except Error as error:
            return Verdict(Outcome.UNNAMED, "", str(error))
        said = kvd.stderr
    if found != VALUES:
        return Verdict(Outcome.WRONG, "", "it serves other values")
    if code := code_in(said):
        return Verdict(Outcome.HEALED, "", code)
    return Verdict(Outcome.NO_EFFECT)


def code_in(said: str) -> str:
    return next((str(code) for code in IntegrityCode if code in said), "")


def refusal(said: str) -> Verdict:
    if "Traceback" in said or not said.startswith(REFUSALS):
        return Verdict(Outcome.CRASHED, "", said[-500:])
    code = code_in(said)
    if code or "data directory" in said or "restore that directory" in said:
        return Verdict(Outcome.DETECTED, code, said[-500:])
    return Verdict(Outcome.UNNAMED, "", said[-500:])


if __name__ == "__main__":
    make(Path(sys.argv[1]))
