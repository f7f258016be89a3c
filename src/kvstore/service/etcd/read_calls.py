"""One read that somebody waits for: what to read, how, and whether anybody still wants it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kvstore.errors import Error, InternalError
from kvstore.service.etcd.calls import Call
from kvstore.service.etcd.member import Model
from kvstore.state import Cold
from kvstore.state.mvcc.answers import GatheredAnswer, RangeAnswer, TxnAnswer
from kvstore.state.mvcc.auth import Auth
from kvstore.state.mvcc.ranges import MakeGathered
from kvstore.state.mvcc.requests import Range, Txn

__all__ = [
    "Gone",
    "Permit",
    "Read",
    "ReadCached",
    "ReadCall",
    "Render",
    "Step",
    "UnwantedError",
    "reading",
]

Step = Callable[[], None]
"""To be called now and then by what reads, however little it finds. It may raise, to end that."""

Read = Callable[[Model, Step], Any]
"""Any thread; may ask the disk. Raises EtcdError, StorageError, ClosedError."""

ReadCached = Callable[[Model], Any]
"""The same from memory alone: COLD where that isn't enough."""

Render = Callable[[Any], Any]
"""What the caller makes of a RangeAnswer, GatheredAnswer or TxnAnswer; on the thread that has
read it."""

Permit = Callable[[Auth], None]
"""Raises EtcdError where whoever reads may not, among these users. Any thread."""

Gone = Callable[[], bool]
"""Whether the caller is gone: then nothing needs to be read any more. Any thread."""


class ReadCall(Call[Any]):
    """``read``: what to read of the state; None where the caller only waits for a read point.

    ``read_cached``: the same of a single key, from memory alone. What has none is read beside the
    loop. ``permit`` is asked right before it is read; ``permitted``: by which users it was. Should
    others have taken their place by the time that the answer is there it is read again, since what
    was read may be newer than the permission. ``is_counted`` is for whoever bounds their number.
    """

    __slots__ = (
        "gone",
        "is_counted",
        "is_serializable",
        "permit",
        "permitted",
        "read",
        "read_cached",
    )

    def __init__(
        self,
        read: Read | None,
        is_serializable: bool,
        deadline: float,
        is_own: bool,
        done: Callable[[Any], None],
        read_cached: ReadCached | None = None,
        permit: Permit | None = None,
        gone: Gone | None = None,
    ) -> None:
        super().__init__(deadline, is_own, done)
        self.gone = gone
        self.is_counted = False
        self.permit = permit
        self.permitted: Auth | None = None
        self.read = read
        self.read_cached = read_cached
        self.is_serializable = is_serializable

    @property
    def is_unwanted(self) -> bool:
        """It has its outcome, or nobody is there any more to get one. Any thread."""
        return self.is_decided or (self.gone is not None and self.gone())

    def outcome(self, read: ReadCached, machine: Model) -> Any:
        """What ``read`` says of ``machine``, or the Error. Any thread."""
        try:
            if self.permit is not None:
                auth = self.permitted = machine.auth
                self.permit(auth)
            return read(machine)
        except Error as error:
            return error
        except UnwantedError:
            raise
        except Exception as error:  # noqa: BLE001 - told to the one who asked
            return InternalError(f"reading: {type(error).__name__}: {error}")


class UnwantedError(Exception):
    """Raised by a step: what is being read isn't to be read any more, or not now."""


def reading(
    operation: Range | Txn, render: Render | None, make: MakeGathered | None
) -> tuple[Read, ReadCached | None]:
    """``read`` and ``read_cached`` of a :class:`ReadCall` for ``operation``, which only reads.

    With ``make`` a Range's ``render`` may be given a GatheredAnswer.
    """

    def rendered(answer: RangeAnswer | GatheredAnswer | TxnAnswer | Cold) -> Any:
        return answer if render is None or isinstance(answer, Cold) else render(answer)

    def read(machine: Model, step: Step) -> Any:
        if isinstance(operation, Txn):
            return rendered(machine.read_txn(operation, step))
        if make is not None:
            return rendered(machine.gather_range(operation, make, step))
        return rendered(machine.read_range(operation, step))

    def read_cached(machine: Model) -> Any:
        assert isinstance(operation, Range)
        return rendered(machine.read_range_cached(operation))

    is_of_a_key = isinstance(operation, Range) and not operation.range_end
    return read, read_cached if is_of_a_key else None
