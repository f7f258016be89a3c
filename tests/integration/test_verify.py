"""``kvctl verify``, as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

from tests.integration.process import Kvd, run


def test_a_stopped_kvds_files_are_checked_and_damage_is_named(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with Kvd(data) as kvd:
        kvd.wait_serving()
        with kvd.client() as client:
            for number in range(100):
                client.put(b"k%d" % number, b"value")
        refused = run("kvctl", "verify", str(data))
        assert refused.returncode == 1
        assert "in use by another kvd" in refused.stderr.decode()
        assert kvd.terminate() == 0
    told = run("kvctl", "verify", str(data))
    assert told.returncode == 0, told.stdout + told.stderr
    assert told.stdout.startswith(b"whole: ")
    assert told.stderr == b"", "no progress bar where nobody looks"
    every = run("kvctl", "verify", "--all", str(data / "node2"))
    assert every.returncode == 0
    assert b"IDENTITY" in every.stdout
    (manifest,) = (data / "node3").glob("state-*/MANIFEST-*")
    content = bytearray(manifest.read_bytes())
    content[20] ^= 4
    manifest.write_bytes(content)
    damaged = run("kvctl", "verify", str(data), "--output=json")
    assert damaged.returncode == 5, damaged.stderr
    said = json.loads(damaged.stdout)
    assert said["whole"] is False
    bad = [file for file in said["files"] if file["outcome"] == "damaged"]
    assert [file["path"] for file in bad] == [str(manifest.relative_to(data))]
    assert bad[0]["reason"].startswith("CHECKSUM_MISMATCH")


def test_what_is_none_of_ours_is_wrong_usage_or_refused(tmp_path: Path) -> None:
    assert run("kvctl", "verify", str(tmp_path / "nothing")).returncode == 2
    refused = run("kvctl", "verify", str(tmp_path))
    assert refused.returncode == 1
    assert "no data directory of kvd" in refused.stderr.decode()
