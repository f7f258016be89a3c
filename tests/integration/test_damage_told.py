"""What a damaged member tells clients and ``kvctl``: over gRPC, to the exit status."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from kvstore.api.v1 import admin_pb2, admin_pb2_grpc
from kvstore.client import Client
from kvstore.errors import CorruptionError, IntegrityCode, UnavailableError
from tests.integration.process import run
from tests.integration.scripted_server import Answer, ScriptedServer, fails

DATA_LOSS = fails(
    grpc.StatusCode.DATA_LOSS,
    "CHECKSUM_MISMATCH: block in 000007.sst",
    kvstore_integrity_code="CHECKSUM_MISMATCH",
)
DAMAGED = fails(
    grpc.StatusCode.UNAVAILABLE,
    "this member's storage is damaged: CHECKSUM_MISMATCH: block in 000007.sst",
    kvstore_integrity_code="CHECKSUM_MISMATCH",
)
TOO_LATE = fails(grpc.StatusCode.DEADLINE_EXCEEDED, "not committed in time")


class _Admin(admin_pb2_grpc.AdminServicer):
    def __init__(self, pieces: int, answer: Answer) -> None:
        self._pieces = pieces
        self._answer = answer

    def SaveSnapshot(self, request: Any, context: Any) -> Iterator[admin_pb2.SaveSnapshotResponse]:  # type: ignore[override]
        for _ in range(self._pieces):
            yield admin_pb2.SaveSnapshotResponse(data=b"")
        self._answer(context)


@contextmanager
def saving(pieces: int, answer: Answer) -> Iterator[str]:
    """The address of a member whose backup ends with ``answer`` after so many pieces."""
    server = grpc.server(ThreadPoolExecutor(2))
    admin_pb2_grpc.add_AdminServicer_to_server(_Admin(pieces, answer), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(grace=None).wait()


@pytest.mark.parametrize("pieces", [0, 2], ids=["before", "in the middle"])
def test_a_backup_that_meets_damage_says_which(pieces: int) -> None:
    with (
        saving(pieces, DATA_LOSS) as address,
        Client(address, timeout=30) as client,
        pytest.raises(CorruptionError, match=r"^CHECKSUM_MISMATCH: block in 000007.sst$") as told,
    ):
        list(client.save_snapshot())
    assert told.value.code is IntegrityCode.CHECKSUM_MISMATCH


def test_a_backup_that_has_begun_is_taken_from_no_other_member() -> None:
    with saving(2, DAMAGED) as one, saving(2, DATA_LOSS) as other:
        taken = []
        with (
            Client([one, other], timeout=30) as client,
            pytest.raises(UnavailableError, match="storage is damaged") as told,
        ):
            taken.extend(client.save_snapshot())
    assert told.value.code is IntegrityCode.CHECKSUM_MISMATCH


@pytest.mark.parametrize(
    ("answer", "status"), [(DATA_LOSS, 5), (DAMAGED, 4)], ids=["nobody has it", "others have it"]
)
def test_kvctl_makes_no_file_of_a_backup_that_meets_damage(
    tmp_path: Path, answer: Answer, status: int
) -> None:
    file = tmp_path / "file.kvs"
    with saving(0, answer) as address:
        ended = run("kvctl", f"--addr={address}", "--timeout=1", "snapshot", "save", str(file))
    assert ended.returncode == status
    assert b"CHECKSUM_MISMATCH: block in 000007.sst" in ended.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        (DATA_LOSS, 5, b"kvctl: CHECKSUM_MISMATCH: block in 000007.sst (may have been applied)\n"),
        (TOO_LATE, 4, b"kvctl: no answer within 1 s (may have been applied)\n"),
    ],
    ids=["DATA_LOSS", "DEADLINE_EXCEEDED"],
)
def test_kvctls_exit_status_tells_damage_from_no_answer(
    answer: Answer, status: int, words: bytes
) -> None:
    with ScriptedServer([answer] * 500) as server:
        ended = run("kvctl", f"--addr={server.address}", "--timeout=1", "put", "k", "v")
    assert ended.returncode == status
    assert ended.stderr == words
