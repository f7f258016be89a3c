"""What takes long and is asked for seldom: giving room back, hashes and lists of all there is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kvstore.errors import ClosedError, Error, InternalError, StorageError
from kvstore.etcd_errors import EtcdError, Reason
from kvstore.replica.work import Work
from kvstore.service.etcd.member import LocalMember, Model
from kvstore.state.mvcc.answers import HashAnswer

__all__ = ["Upkeep"]

WAITING_MAX = 64
"""Of those who want one thing; one more is refused."""

Done = Callable[[Any], None]


class Upkeep:
    """Jobs on the state of one member, one of each kind at a time. One thread."""

    def __init__(self, work: Work) -> None:
        self._work = work
        # Who waits for a run that has yet to begin, by the kind of job; those of the one that is
        # under way aren't among them.
        self._waiting: dict[str, list[tuple[LocalMember, Callable[[Model], Any], Done]]] = {}

    def reclaim(self, member: LocalMember, done: Callable[[Error | None], None]) -> None:
        """Give back the room of what is compacted; ``done(None)`` when that is so."""
        self._run("reclaim", member, lambda machine: machine.reclaim(), done)

    def hash(
        self, member: LocalMember, revision: int, done: Callable[[HashAnswer | Error], None]
    ) -> None:
        """The hash up to ``revision``, 0 for the current one; none of a damaged state."""
        if member.state_is_damaged:
            done(EtcdError(Reason.CORRUPT))
        else:
            self._run("hash", member, lambda machine: machine.hash_kv(revision), done)

    def listing(self, member: LocalMember, job: Callable[[], Any], done: Done) -> None:
        """What ``job`` makes, of something that it holds already."""
        self._run("listing", member, lambda _: job(), done)

    def _run(self, kind: str, member: LocalMember, job: Callable[[Model], Any], done: Done) -> None:
        waiting = self._waiting.get(kind)
        if waiting is None:
            self._waiting[kind] = []
            self._begin(kind, member, job, done)
        elif len(waiting) < WAITING_MAX:
            waiting.append((member, job, done))
        else:
            done(EtcdError(Reason.TOO_MANY_REQUESTS))

    def _begin(
        self, kind: str, member: LocalMember, job: Callable[[Model], Any], done: Done
    ) -> None:
        machine = member.machine
        outcomes: list[Any] = []

        def run() -> None:
            try:
                outcomes.append(job(machine))
            except Error as error:
                outcomes.append(error)
            except Exception as error:  # noqa: BLE001 - told to the one who asked
                outcomes.append(InternalError(f"{kind}: {type(error).__name__}: {error}"))

        def ended() -> None:
            waiting = self._waiting[kind]
            if waiting:
                self._begin(kind, *waiting.pop(0))
            else:
                del self._waiting[kind]
            done(_told(outcomes[0], member, machine))

        self._work.run(kind, run, ended)


def _told(outcome: Any, member: LocalMember, machine: Model) -> Any:
    if isinstance(outcome, ClosedError):
        # Its state was replaced, or is being closed: another try finds another one, or none.
        return EtcdError(Reason.TIMED_OUT)
    if isinstance(outcome, StorageError) and member.machine is machine:
        return member.read_failed(outcome)
    if isinstance(outcome, HashAnswer) and member.state_is_damaged and member.machine is machine:
        return EtcdError(Reason.CORRUPT)  # it became known meanwhile
    return outcome
