"""What a client asks at a time: the rest waits, in order, and nobody's turn is lost."""

from __future__ import annotations

import asyncio

import pytest

from kvstore.client.gate import Gate


def test_so_many_tries_go_and_the_others_follow_in_order() -> None:
    async def run() -> list[int]:
        gate, began = Gate(tries_max=2), []

        async def one(number: int) -> None:
            await gate.enter(0, 30)
            began.append(number)
            await asyncio.sleep(0)
            assert len(began) - len(ended) <= 2
            ended.append(number)
            gate.leave(0)

        ended: list[int] = []
        await asyncio.gather(*map(one, range(20)))
        assert gate.try_enter(0)
        assert gate.try_enter(0)
        assert not gate.try_enter(0)
        return began

    assert asyncio.run(run()) == list(range(20))


def test_requests_count_by_their_size_and_one_that_is_too_large_goes_alone() -> None:
    async def run() -> None:
        gate = Gate(bytes_max=100)
        assert gate.try_enter(60)
        assert not gate.try_enter(60)
        large = asyncio.create_task(gate.enter(1000, 30))
        small = asyncio.create_task(gate.enter(1, 30))
        await asyncio.sleep(0)
        assert not gate.try_enter(1), "it would overtake those that wait"
        gate.leave(60)
        await large
        assert not small.done()
        gate.leave(1000)
        await small

    asyncio.run(run())


def test_whoever_gives_up_takes_nobody_s_turn() -> None:
    async def run() -> None:
        gate = Gate(tries_max=1)
        assert gate.try_enter(0)
        with pytest.raises(TimeoutError):
            await gate.enter(0, 0.001)
        cancelled = asyncio.create_task(gate.enter(0, 30))
        late = asyncio.create_task(gate.enter(0, 30))
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.wait([cancelled])
        gate.leave(0)
        late.cancel()  # at the moment that its turn has come
        await asyncio.wait([late])
        assert gate.try_enter(0)

    asyncio.run(run())
