"""What clients say of an RPC that failed."""

from __future__ import annotations

import grpc
import pytest

from kvstore.client.failure import understand


class Failed(grpc.RpcError):
    def __init__(self, details: str) -> None:
        self._details = details

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        return self._details

    def trailing_metadata(self) -> tuple[tuple[str, str], ...]:
        return ()


@pytest.mark.parametrize(
    ("where", "why", "said"),
    [
        (
            "ipv6:%5B::1%5D:21051",
            "Failed to connect to remote host: Connection refused",
            "cannot connect to [::1]:21051: Connection refused",
        ),
        (
            "ipv4:127.0.0.1:21051",
            "Socket closed",
            "cannot connect to 127.0.0.1:21051: Socket closed; does the server talk TLS "
            "(--tls-ca), or refuse the certificate?",
        ),
    ],
)
def test_who_cannot_connect_is_told_where_and_what_may_be_wrong(
    where: str, why: str, said: str
) -> None:
    details = f"failed to connect to all addresses; last error: UNAVAILABLE: {where}: {why}"
    failure = understand(Failed(details))
    assert str(failure.error) == said
    assert failure.retry
    assert failure.not_applied
