"""A running kvd finds by itself that stored bytes have changed, and has them made anew."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

from tests.integration.process import Kvd, run

FOUND_S = 120.0
"""A round of so little takes some twenty seconds; the machines of tests are slow."""


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + FOUND_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def status(kvd: Kvd, member: int) -> dict[str, object]:
    told = run("kvctl", "--addr", kvd.address, "status", "--output=json")
    assert told.returncode == 0, told.stderr
    (said,) = [one for one in json.loads(told.stdout)["members"] if one["member_id"] == member]
    return said  # type: ignore[no-any-return]


def test_a_changed_byte_that_nobody_reads_is_found_told_and_repaired(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with Kvd(data) as kvd:
        kvd.wait_serving()
        with kvd.client() as client:
            for number in range(300):
                client.put(b"k%d" % number, b"value %d" % number)
            leader = client.status().leader_id
        # Which no read looks at, and no comparison of rows either.
        (manifest,) = (data / f"node{leader}").glob("state-*/MANIFEST-*")
        with manifest.open("r+b") as file:
            file.seek(30)
            (byte,) = file.read(1)
            file.seek(30)
            file.write(bytes((byte ^ 16,)))
        marker = data / "KVSTORE"
        said = marker.read_bytes()
        marker.write_bytes(b"k" + said)
        line = rf"scrub found damage.*member\S*={leader}\b"
        until(lambda: re.search(line, kvd.stderr), f"the log says that it found it: {kvd.stderr}")
        assert manifest.name in kvd.stderr
        assert int(str(status(kvd, leader)["scrub_damages"])) >= 1
        with kvd.client() as client:
            assert client.get(b"k299") == b"value 299"
        until(lambda: int(str(status(kvd, leader)["scrub_rounds"])) >= 1, "a round ends")
        assert 0 <= float(str(status(kvd, leader)["scrub_ended_seconds"])) < FOUND_S
        assert re.search(rf"scrub has checked all.*member\S*={leader}\b", kvd.stderr)
        until(lambda: marker.read_bytes() == said, "what says whose directory it is, is mended")
        assert kvd.terminate() == 0
    told = run("kvctl", "verify", str(data))
    assert told.returncode == 0, told.stdout.decode() + told.stderr.decode()
