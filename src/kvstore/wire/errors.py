"""How calls on the native wire fail: as grpc.aio's do, so that every ``except`` fits both."""

from __future__ import annotations

from typing import TypeAlias

import grpc
import grpc.aio

__all__ = ["Metadata", "RpcError", "status_code"]

Metadata: TypeAlias = "tuple[tuple[str, str | bytes], ...]"

_CODES = {code.value[0]: code for code in grpc.StatusCode}


def status_code(number: int) -> grpc.StatusCode:
    """Of a number that came over the wire; UNKNOWN for one that isn't gRPC's."""
    return _CODES.get(number, grpc.StatusCode.UNKNOWN)


class RpcError(grpc.aio.AioRpcError):
    """A call ended with a status other than OK.

    ``unsent``: surely no server has seen anything of it.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        details: str,
        trailer: Metadata = (),
        initial: Metadata = (),
        *,
        unsent: bool = False,
    ) -> None:
        super().__init__(code, initial, trailer, details, None)  # type: ignore[arg-type]
        self.unsent = unsent

    def __reduce__(self) -> tuple[object, ...]:
        return _restored, (
            self.code().value[0],
            self.details(),
            self.trailing_metadata(),
            self.initial_metadata(),
            self.unsent,
        )

    def __repr__(self) -> str:
        return f"<RpcError {self.code().name}: {self.details()}>"

    __str__ = __repr__


def _restored(
    code: int, details: str, trailer: Metadata, initial: Metadata, unsent: bool
) -> RpcError:
    return RpcError(status_code(code), details, trailer, initial, unsent=unsent)
