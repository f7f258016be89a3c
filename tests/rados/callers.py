"""Clients of two gateways that try again at the other one, and note what became of each try."""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Self

import grpc

from kvstore.api.metadata_keys import AGE_KEY, ATTEMPT_KEY
from kvstore.api.v1 import kv_pb2, kv_pb2_grpc
from kvstore.errors import UnavailableError

__all__ = ["DEADLINES_S", "Caller", "Tries"]

DEADLINES_S: tuple[float | None, ...] = (0.5, 2.0, 5.0)
"""Of one try."""
SERVERS_DEADLINE_S = 10.0
PAUSE_S = 0.05
"""Before another try, at most."""
AGAIN_SHARE = 0.1
"""Of writes that were acknowledged: they are sent again to the other gateway."""
LARGE_SHARE = 0.1
PADDING = b"~" * 6000
"""Makes a value one that has an object of its own; no value of a history ends like this."""

WORTH_ANOTHER_TRY = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)
OPTIONS = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.use_local_subchannel_pool", 1),
]


@dataclass
class Tries:
    """Of all callers of a run. ``deadlines_s``: which tries have, None for the server's own;
    ``late_s``: by how much the latest try outlived its deadline; ``again``: writes that were sent
    again after they had been acknowledged."""

    deadlines_s: tuple[float | None, ...] = DEADLINES_S
    ended: Counter[str] = field(default_factory=Counter)
    late_s: float = 0.0
    again: int = 0


class Caller:
    """Has the methods of :class:`kvstore.client.Client` that tests/chaos/load.py needs."""

    def __init__(
        self, addresses: list[str], rng: random.Random, tries: Tries, patience_s: float
    ) -> None:
        self._rng = rng
        self._tries = tries
        self._patience_s = patience_s
        self._channels = [grpc.insecure_channel(each, options=OPTIONS) for each in addresses]
        self._stubs: list[Any] = [kv_pb2_grpc.KVStub(each) for each in self._channels]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for channel in self._channels:
            channel.close()

    def put(self, key: bytes, value: bytes) -> bool:
        if self._rng.random() < LARGE_SHARE:
            value += PADDING
        name = self._rng.randbytes(16).hex()
        request = kv_pb2.PutRequest(key=key, value=value, request_id=name)
        return bool(self._write("Put", request).overwritten)

    def delete(self, key: bytes) -> bool:
        request = kv_pb2.DeleteRequest(key=key, request_id=self._rng.randbytes(16).hex())
        return bool(self._write("Delete", request).deleted)

    def get(self, key: bytes) -> bytes | None:
        answer, _ = self._call("Get", kv_pb2.GetRequest(key=key), time.monotonic())
        return answer.value.removesuffix(PADDING) if answer.found else None

    def _write(self, method: str, request: Any) -> Any:
        began = time.monotonic()
        answer, place = self._call(method, request, began)
        if self._rng.random() < AGAIN_SHARE:
            try:
                again = self._try(method, request, 1 - place, 2, began)
            except grpc.RpcError as error:
                _insist(error, method)
            else:
                self._tries.again += 1
                assert again == answer, f"{request.request_id} gave {answer}, then {again}"
        return answer

    def _call(self, method: str, request: Any, began: float) -> tuple[Any, int]:
        """The answer, and which gateway gave it."""
        place = self._rng.randrange(2)
        attempt = 1
        while True:
            try:
                return self._try(method, request, place, attempt, began), place
            except grpc.RpcError as error:
                _insist(error, method)
                if time.monotonic() - began > self._patience_s:
                    raise UnavailableError(str(error)) from error
            time.sleep(self._rng.random() * PAUSE_S)
            place = 1 - place
            attempt += 1

    def _try(self, method: str, request: Any, place: int, attempt: int, began: float) -> Any:
        timeout = self._rng.choice(self._tries.deadlines_s)
        now = time.monotonic()
        metadata = [(ATTEMPT_KEY, str(attempt)), (AGE_KEY, str(int(1000 * (now - began))))]
        call = getattr(self._stubs[place], method)
        code = "OK"
        try:
            return call(request, timeout=timeout, metadata=metadata)
        except grpc.RpcError as error:
            code = error.code().name
            raise
        finally:
            allowed = SERVERS_DEADLINE_S if timeout is None else timeout
            self._tries.ended[code] += 1
            self._tries.late_s = max(self._tries.late_s, time.monotonic() - now - allowed)


def _insist(error: grpc.RpcError, method: str) -> None:
    """Raise what another try doesn't mend."""
    if error.code() not in WORTH_ANOTHER_TRY:
        raise AssertionError(f"{method}: {error.code().name}: {error.details()}") from error
