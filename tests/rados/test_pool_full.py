"""A pool that is full: what is refused, what still goes, and that it goes on with room."""

from __future__ import annotations

import time

from kvstore.errors import NoSpaceError
from kvstore.service import Delete, Get, Put
from tests.rados.conftest import address_in
from tests.rados.gateway import gateway
from tools.rados_cluster import RadosCluster

LARGE = bytes(100_000)


def test_a_full_pool_refuses_puts_in_words_and_takes_them_again(
    whole: RadosCluster,
) -> None:
    with gateway(address_in(whole, "full")) as opened:
        assert opened.call(Put(b"k", LARGE, b"first")) is False
        assert opened.call(Put(b"small", b"0", b"small")) is False
        whole.set_full_ratio(0.0003)
        try:
            until = time.monotonic() + 60
            result: object = True
            number = 0
            while not isinstance(result, NoSpaceError):
                assert time.monotonic() < until, "it is never full"
                number += 1
                result = opened.call(Put(b"k%d" % number, LARGE, b"fill-%d" % number))
            for size in (0, 1, 4000):
                small = opened.call(Put(b"small", bytes(size), b"small-%d" % size))
                assert isinstance(small, NoSpaceError)
            assert opened.call(Get(b"small")) == b"0"
            assert opened.call(Get(b"k")) == LARGE
            assert opened.call(Delete(b"small", b"small-gone")) is True
            assert opened.call(Delete(b"k", b"gone")) is True
        finally:
            whole.set_full_ratio(0.98)
        last = Put(b"k%d" % number, LARGE, b"fill-%d" % number, age_s=1.0)
        result = opened.call(last)
        while isinstance(result, NoSpaceError):
            assert time.monotonic() < until + 60, "there is room and it isn't noticed"
            opened.pause(0.5)
            result = opened.call(last)
        assert result is False
        assert opened.call(Get(b"k%d" % number)) == LARGE
