"""A task that should never end and does is the member's end, with its reason."""

from __future__ import annotations

import asyncio

import pytest

from kvstore.errors import Error, InternalError, StorageError
from kvstore.server.long_lived import long_lived


def ended(raised: BaseException | None) -> list[Error]:
    """What is told of a task that ends with ``raised``, or as it should."""

    async def scenario() -> list[Error]:
        told: list[Error] = []

        async def work() -> None:
            if raised is not None:
                raise raised

        task = long_lived(work(), "watch", told.append)
        await asyncio.wait([task])
        await asyncio.sleep(0)
        return told

    return asyncio.run(scenario())


def test_a_defect_is_told_by_the_name_of_the_task() -> None:
    (error,) = ended(KeyError("k"))
    assert isinstance(error, InternalError)
    assert str(error) == "watch: KeyError: 'k'"
    assert isinstance(error.__cause__, KeyError)


def test_an_error_of_ours_is_told_as_it_is() -> None:
    trouble = StorageError("no disk", path="/x")
    assert ended(trouble) == [trouble]


@pytest.mark.parametrize("raised", [None, asyncio.CancelledError()])
def test_an_end_that_was_asked_for_is_none(raised: BaseException | None) -> None:
    assert ended(raised) == []
