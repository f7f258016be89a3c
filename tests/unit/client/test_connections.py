"""When a client's connection is replaced, and when the former one is closed."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvstore.client.connections import Connections
from kvstore.client.failure import Failure
from kvstore.client.options import TLS
from kvstore.errors import ClosedError, ConfigurationError, DeadlineExceededError, UnavailableError

REFUSED = Failure(UnavailableError("cannot connect"), retry=True)
SILENT = Failure(DeadlineExceededError("Deadline Exceeded"), retry=True, silent=True)


def numbered(tls: TLS | None = None) -> Connections[int]:
    made = iter(range(1, 100))
    return Connections(lambda address: next(made), tls)


def test_calls_to_an_address_share_a_connection() -> None:
    connections = numbered()
    assert connections.take("a:1") is connections.take("a:1")
    assert connections.take("b:1").server == 2


def test_one_without_any_answer_is_replaced_and_closed_by_its_last_call() -> None:
    connections = numbered()
    first, second = connections.take("a:1"), connections.take("a:1")
    connections.failed(first, SILENT, 1.0)
    connections.failed(second, SILENT, 1.0)
    assert connections.take("a:1").server == 2, "replaced once, however many calls say so"
    assert connections.give_back(first) is None
    assert connections.give_back(second) == 1


def test_one_that_answered_others_meanwhile_is_kept() -> None:
    connections = numbered()
    connection = connections.take("a:1")
    connection.answered()
    connections.failed(connection, SILENT, 1.0)
    assert connections.take("a:1") is connection
    connections.failed(connection, SILENT, 0.0)
    assert connections.take("a:1") is not connection


def test_one_that_was_refused_is_replaced_only_where_the_files_changed(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_text("-----BEGIN 1")
    connections = numbered(TLS(ca=ca))
    connection = connections.take("a:1")
    connections.failed(connection, REFUSED)
    assert connections.take("a:1") is connection
    ca.write_text("-----BEGIN another")
    connections.failed(connection, REFUSED)
    assert connections.take("a:1").server == 2


def test_files_in_the_middle_of_an_exchange_change_nothing(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_text("1")
    served = [1]

    def dial(address: str) -> int:
        if not served:
            raise ConfigurationError("not a PEM file")
        return served.pop()

    connections = Connections(dial, TLS(ca=ca))
    connection = connections.take("a:1")
    ca.unlink()
    connections.failed(connection, REFUSED)
    assert connections.take("a:1") is connection
    ca.write_text("-----BEGIN another")
    served.append(2)
    connections.failed(connection, REFUSED)
    assert connections.take("a:1").server == 2


def test_closing_gives_back_all_and_takes_no_more_calls() -> None:
    connections = numbered()
    former = connections.take("a:1")
    connections.failed(former, SILENT, 1.0)
    connections.take("a:1")
    assert sorted(connections.close()) == [1, 2]
    assert connections.give_back(former) is None
    with pytest.raises(ClosedError):
        connections.take("a:1")
