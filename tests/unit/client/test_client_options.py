"""What a client can be told."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from kvstore.client import AsyncClient, Client
from kvstore.client.options import checked_timeout
from kvstore.errors import InvalidArgumentError


@pytest.mark.parametrize("timeout", ["5", "x", b"5", [5], Decimal(5), 1j, 0, -1.0, math.nan])
def test_a_timeout_is_a_positive_number_of_seconds(timeout: Any) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        checked_timeout(timeout, 10.0)
    said = f"timeout must be a positive number of seconds, not {timeout!r}"
    assert str(raised.value) == said


@pytest.mark.parametrize("timeout", [5, 0.5, np.float32(2), np.int64(3), math.inf])
def test_any_positive_number_will_do(timeout: Any) -> None:
    assert checked_timeout(timeout, 10.0) is timeout
    assert checked_timeout(None, timeout) is timeout


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("timeout", ["5", 0, -1.0])
def test_a_clients_own_timeout_too(kind: type[Client | AsyncClient], timeout: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="timeout must be a positive number of seconds"):
        kind("127.0.0.1:1", timeout=timeout)
