"""How this member is, for who asks over HTTP: etcd's ``/health``, ``/livez`` and ``/readyz``."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from http import HTTPStatus
from typing import Final

from kvstore.api.handlers.etcd.refusals import refusal_of
from kvstore.errors import Error
from kvstore.service.etcd import EtcdService
from kvstore.state.mvcc.requests import AlarmKind, Range

__all__ = ["Check", "ProbePages", "Probes"]

Check = Callable[[], Awaitable[str]]
"""Why it fails; empty when it doesn't."""

NO_LEADER: Final = "RAFT NO LEADER"
STARTING: Final = "STARTING"
"""What its log holds isn't applied yet."""

# Any key will do: that it is read matters, not whether it is there.
_READ: Final = Range(b"health", keys_only=True)


class Probes:
    """Asks a member, which is to be told by nobody else's token. On a running event loop.

    However many ask, one read of a kind is under way; it waits for as long as the service does.
    """

    def __init__(
        self,
        service: EtcdService | None,
        leader: Callable[[], int],
        storage_trouble: Callable[[], str],
    ) -> None:
        """``service``: None where etcd's API is left out. ``leader`` is the member that serves, 0
        for none; ``storage_trouble`` says why it takes no writes, empty when it does."""
        self._service = service
        self._leader = leader
        self._storage_trouble = storage_trouble
        self.stopping = False
        """Set once the process was asked to end: from then on it isn't ready."""
        self._reads: dict[bool, asyncio.Task[str]] = {}
        self.live: dict[str, Check] = {"serializable_read": self._read_here}
        self.ready: dict[str, Check] = {
            "data_corruption": self._corruption,
            "serializable_read": self._read_here,
            "linearizable_read": self._read,
            "non_learner": self._learner,
            "storage": self._storage,
            "serving": self._serving,
        }
        """By etcd's names, but for the last two, which are ours."""

    async def health(self, excluded: Collection[str], serializable: bool) -> str:
        """Why it isn't well; empty when it is. ``excluded``: names of alarms that don't count;
        ``serializable``: the others don't, either."""
        for kind in sorted(self._alarms()):
            name = kind.name
            if name not in excluded:
                return f"ALARM {name}"
        if serializable:
            return await self._read_here()
        if not self._leader():
            return NO_LEADER
        return await self._storage() or await self._read()

    def _alarms(self) -> set[AlarmKind]:
        machine = None if self._service is None else self._service.machine
        kinds = () if machine is None else [AlarmKind(kind) for _, kind in machine.alarms]
        # A member that differs is no trouble of the others; it takes itself out.
        return {kind for kind in kinds if kind is not AlarmKind.DIFFERS}

    async def _corruption(self) -> str:
        return "ALARM CORRUPT" if AlarmKind.CORRUPT in self._alarms() else ""

    async def _learner(self) -> str:
        is_learner = self._service is not None and self._service.is_learner
        return "this member is a learner" if is_learner else ""

    async def _storage(self) -> str:
        # What is wrong with it, paths and all, is the log's to say.
        return "STORAGE TAKES NO WRITES" if self._storage_trouble() else ""

    async def _serving(self) -> str:
        return "STOPPING" if self.stopping else ""

    async def _read_here(self) -> str:
        return await self._shared(True)

    async def _read(self) -> str:
        return await self._shared(False)

    async def _shared(self, serializable: bool) -> str:
        service = self._service
        if service is None or not service.model_enabled:
            # Keys can't be read so (yet).
            return "" if serializable else self._before_keys_have_revisions(service)
        reading = self._reads.get(serializable)
        if reading is None or reading.done():
            reading = asyncio.create_task(_read(service, serializable))
            self._reads[serializable] = reading
        return await asyncio.shield(reading)

    def _before_keys_have_revisions(self, service: EtcdService | None) -> str:
        if not self._leader():
            return NO_LEADER
        return STARTING if service is not None and service.member is None else ""


async def _read(service: EtcdService, serializable: bool) -> str:
    future: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    def done(outcome: object) -> None:
        if not future.done():
            future.set_result(outcome)

    service.read(_READ, serializable, None, done)
    outcome = await future
    return f"RANGE ERROR:{refusal_of(outcome).details}" if isinstance(outcome, Error) else ""


class ProbePages:
    """``/livez`` and ``/readyz``, and one page for each of their checks: ``/readyz/storage``."""

    def __init__(self, probes: Probes) -> None:
        self._checks: dict[str, tuple[dict[str, Check], tuple[str, ...]]] = {}
        for path, checks in (("/livez", probes.live), ("/readyz", probes.ready)):
            self._checks[path] = checks, tuple(checks)
            for name in checks:
                self._checks[f"{path}/{name}"] = checks, (name,)

    def has(self, path: str) -> bool:
        """There is such a page."""
        return path in self._checks

    async def answer(self, path: str, query: Mapping[str, list[str]]) -> tuple[HTTPStatus, str]:
        """What one says; ``exclude``: checks that don't count, ``verbose``: also of those that
        pass."""
        checks, names = self._checks[path]
        excluded = query.get("exclude", ())
        passed, lines = await _outcome_of(checks, [name for name in names if name not in excluded])
        # As etcd: who asks for no more hears why it failed, and else a word.
        said = lines if not passed or "verbose" in query else ""
        said += "ok\n" if passed else ""
        return (HTTPStatus.OK if passed else HTTPStatus.SERVICE_UNAVAILABLE), said


async def _outcome_of(checks: dict[str, Check], names: Sequence[str]) -> tuple[bool, str]:
    """Whether the checks of those ``names`` all pass, and a line for each."""
    found = {name: await checks[name]() for name in names}
    lines = "".join(
        f"[-]{name} failed: {why}\n" if why else f"[+]{name} ok\n" for name, why in found.items()
    )
    return not any(found.values()), lines
