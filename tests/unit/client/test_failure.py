"""What clients say of an RPC that failed."""

from __future__ import annotations

import grpc
import pytest

from kvstore.client.failure import understand
from kvstore.errors import UnavailableError


class Failed(grpc.RpcError):
    def __init__(self, details: str, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> None:
        self._details = details
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code

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


def test_a_call_that_the_server_cancelled_may_have_been_done_and_is_tried_again() -> None:
    failure = understand(Failed("CANCELLED", grpc.StatusCode.CANCELLED))
    assert isinstance(failure.error, UnavailableError)
    assert str(failure.error) == "the server cut the call short: CANCELLED"
    assert failure.retry
    assert not failure.not_applied
    assert not failure.silent
    assert not failure.overloaded


def test_what_a_server_says_of_connecting_is_no_proof_that_nothing_was_done() -> None:
    """A member that passes writes on may say so of its leader."""
    failure = understand(Failed("cannot connect to 10.0.0.1:50052: Connection refused"))
    assert not failure.not_applied


@pytest.mark.parametrize(
    ("why", "said"),
    [
        ("Temporary failure in name resolution", "no name server answers"),
        ("CERTIFICATE_VERIFY_FAILED: certificate is not yet valid: OK", "are the clocks of both"),
        ("the server doesn't offer HTTP/2 over TLS (ALPN)", "is it the right port?"),
        ("No route to host", "cannot connect to 10.0.0.1:1: No route to host"),
    ],
)
def test_other_reasons_for_having_no_connection(why: str, said: str) -> None:
    failure = understand(Failed(f"cannot connect to 10.0.0.1:1: {why}"))
    assert str(failure.error).endswith(said) or said in str(failure.error)
