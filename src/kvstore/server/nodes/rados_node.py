"""A gateway to a pool of RADOS: no members, no files, no state of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NoReturn

import structlog

from kvstore._rados.native import Listing
from kvstore.api.handlers.calls import Forward
from kvstore.api.handlers.etcd.cluster import ClusterMember
from kvstore.api.handlers.guard import Guard
from kvstore.api.v1 import admin_pb2
from kvstore.beyond.rados import RadosService
from kvstore.beyond.rados.opening import OpenPool, open_pool
from kvstore.beyond.rados.sweeping import Sweep
from kvstore.errors import (
    CorruptionError,
    Error,
    IntegrityCode,
    NoSpaceError,
    StorageError,
    UnavailableError,
    UnsupportedError,
)
from kvstore.server.config.options import ServerOptions
from kvstore.server.config.rados_config import RadosConfig
from kvstore.server.long_lived import long_lived
from kvstore.server.nodes.backups import Form
from kvstore.server.nodes.driver import Driver
from kvstore.server.nodes.node import NodeFigures
from kvstore.service import Service
from kvstore.service.etcd import EtcdService
from kvstore.service.etcd.auth_tokens import new_tokens
from kvstore.service.etcd.hub import WatchHub
from kvstore.service.etcd.leases import Leases

if TYPE_CHECKING:
    from kvstore.wire.server.traces import TraceSink

__all__ = ["RadosNode", "open_rados_node"]

GATEWAY: Final = 1
"""What stands for a leader: a gateway serves by itself."""

SILENCE_S = 5.0
"""Without an answer of the pool for so long, a gateway says that it doesn't serve."""

RETRY_S = 5.0
"""After a start that a pool which is away has ended."""
HEAR_S = 15.0
LOOK_S = 0.01
"""For the first answer of a pool's clock, after which it is said that it didn't come; and between
two looks for it."""

SWEEP_LOOK_S = 300.0
"""Between two looks whether it is time to sweep, and this gateway's turn."""
SWEEP_NAMES = 256
SWEEP_PAUSE_S = 0.1
"""Objects that are listed at one time, and the pause after that."""

CLOSE_S = 3.0
"""For what is under way in the pool, when it all ends."""

NO_GROUP: Final = (
    "this kvd is a gateway to a pool of RADOS (--mode=rados): it has no members, no leader and no "
    "log; ask the cluster with 'ceph'"
)
NO_ETCD: Final = (
    "a pool of RADOS has no order over all keys, so no ranges, transactions, watches or leases "
    "(--mode=rados, docs/beyond.md)"
)

CLOCK_DAMAGED: Final = "the pool's clock is damaged (the object 'clock' of the namespace)"
CLOCK_ADVICE: Final = (
    "'rados rm' removes it, and gateways begin a new one; until that has come to where the old one "
    "was, retries may be refused with REQUEST_FORGOTTEN, and nothing is swept"
)

log = structlog.get_logger("kvstore.rados")


async def open_rados_node(config: RadosConfig, options: ServerOptions) -> RadosNode:
    """Open the pool; wait for one that is away, as when machines start together.

    Raises ConfigurationError, CorruptionError.
    """
    address = config.address
    opened = None
    while opened is None:
        try:
            opened = await asyncio.to_thread(open_pool, address)
        except (UnavailableError, NoSpaceError) as error:
            log.warning("the pool is away", reason=str(error), retry_s=RETRY_S)
            await asyncio.sleep(RETRY_S)
    log.info(
        "pool opened",
        pool=address.pool,
        namespace=address.namespace,
        cluster=opened.fsid,
        store=opened.marker.store.hex(),
        made=opened.made,
    )
    node = RadosNode(opened)
    try:
        await node.hear()
    except BaseException:
        await node.close()
        raise
    return node


class RadosNode:
    """A :class:`kvstore.server.nodes.node.Node` without members."""

    mode = "rados"

    def __init__(self, opened: OpenPool) -> None:
        self._pool = opened.objects
        self._driver = driver = Driver()
        loop = asyncio.get_running_loop()
        self._loop = loop
        self.service: Service
        self._service = self.service = RadosService(
            opened.objects,
            opened.marker.salt,
            now=time.monotonic,
            world=partial(time.clock_gettime, time.CLOCK_BOOTTIME),
            later=loop.call_later,
            fenced=self._fenced,
        )
        # Nobody is asked for a user: there is nowhere to keep one.
        self.guard = Guard(lambda: None, lambda: None, new_tokens())
        driver.watch(opened.objects.fileno(), self._finished)
        self._said_damaged = False
        driver.start(_nothing, self._tick)
        self._listing: asyncio.Future[list[bytes]] | None = None
        self._sweep = Sweep(opened.objects, self._service.clock)
        self._sweeping = long_lived(self._sweep_now_and_then(), "sweep", driver.fail)

    async def hear(self) -> None:
        """Wait until the pool's clock is known: before that nothing is written.

        Raises CorruptionError when it is damaged.
        """
        clock = self._service.clock
        until = self._loop.time() + HEAR_S
        while not clock.is_set:
            if clock.is_damaged:
                raise CorruptionError(
                    f"{CLOCK_DAMAGED}: {CLOCK_ADVICE}", code=IntegrityCode.CHECKSUM_MISMATCH
                )
            if self._loop.time() > until:
                reason = f"the pool's clock did not answer in {HEAR_S:.0f} s"
                log.warning("the pool is away", reason=reason, retry_s=0)
                until = self._loop.time() + HEAR_S
            await asyncio.sleep(LOOK_S)

    async def _sweep_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_LOOK_S)
            if await self._asked(self._sweep.claim):
                await self._sweep_all()

    async def _sweep_all(self) -> None:
        """Walk over all objects, and clear away the values that no key names."""
        listing = Listing(self._pool)
        seen, removed = 0, self._sweep.removed
        try:
            while names := await self._listed(listing):
                seen += len(names)
                await self._asked(partial(self._look_at, names))
                await asyncio.sleep(SWEEP_PAUSE_S)
        except OSError as error:
            log.warning("sweep given up", reason=str(error), seen=seen)
        else:
            log.info("swept", objects=seen, removed=self._sweep.removed - removed)

    async def _listed(self, listing: Listing) -> list[bytes]:
        """More names. The thread goes on, whatever becomes of the task: the pool isn't closed
        under it."""
        self._listing = self._loop.run_in_executor(None, listing.names, SWEEP_NAMES)
        return await asyncio.shield(self._listing)

    def _look_at(self, names: list[bytes], done: Callable[[bool], None]) -> None:
        self._sweep.look_at(names, partial(done, True))

    async def _asked(self, ask: Callable[[Callable[[bool], None]], None]) -> bool:
        """What ``ask`` hands to what it is given."""
        answer: asyncio.Future[bool] = self._loop.create_future()

        def answered(what: bool) -> None:
            if not answer.done():
                answer.set_result(what)

        ask(answered)
        return await answer

    def _tick(self) -> None:
        self._service.tick()
        damaged = self._service.clock.is_damaged
        if damaged and not self._said_damaged:
            log.error("the pool's clock is damaged", advice=CLOCK_ADVICE)
        self._said_damaged = damaged

    def _finished(self) -> None:
        self._service.finished(self._pool.drain())

    def _fenced(self, reason: Error) -> None:
        self._driver.fail(StorageError(f"{reason}; it starts anew with another identity"))

    @property
    def no_etcd(self) -> str:
        return NO_ETCD

    @property
    def etcd(self) -> EtcdService:
        raise UnsupportedError(NO_ETCD)

    @property
    def leases(self) -> Leases:
        raise UnsupportedError(NO_ETCD)

    @property
    def watches(self) -> WatchHub:
        raise UnsupportedError(NO_ETCD)

    def etcd_members(self, address: str) -> Sequence[ClusterMember]:
        return ()

    @property
    def quota_bytes(self) -> int:
        return 0

    @property
    def forward(self) -> Forward | None:
        return None  # each gateway does all

    @property
    def failed(self) -> asyncio.Future[Error]:
        return self._driver.failed

    def leader(self) -> int:
        return GATEWAY

    def storage_trouble(self) -> str:
        if not self._pool.is_there():
            return "the pool is gone: it was removed, or renamed"
        silent_s = self._service.silent_s()
        if silent_s < SILENCE_S:
            return ""
        if silent_s == float("inf"):
            return "the pool has not answered yet"
        # Not how long: each other text would be another trouble.
        return "the pool does not answer"

    def member_statuses(self) -> Sequence[admin_pb2.MemberStatus]:
        return ()

    def trace_by(self, traces: TraceSink) -> None:
        pass  # no calls come from other members

    def figures(self) -> NodeFigures:
        return NodeFigures(
            (),
            self._driver.figures(),
            waiting={"kvstore": self._service.waiting},
            rados=self._service.figures(),
        )

    def members(self) -> admin_pb2.MembersResponse:
        refuse()

    async def change_members(
        self, request: admin_pb2.ChangeMembersRequest
    ) -> admin_pb2.MembersResponse:
        refuse()

    async def transfer_leadership(self, to: int) -> int:
        refuse()

    async def forget_introduction(self, member: int) -> bool:
        refuse()

    def repair(self, begin: bool) -> admin_pb2.RepairResponse:
        refuse()

    async def forward_admin(self, method: str, request: Any, leader: int, timeout_s: float) -> Any:
        refuse()

    def exposures(self) -> Mapping[str, str]:
        return {}

    async def hand_over(self) -> int:
        return 0  # clients find another gateway by themselves

    async def save_snapshot(self, stale: bool, form: Form = iter) -> AsyncGenerator[bytes, None]:
        refuse()
        yield b""

    async def close(self) -> None:
        """End the client, once what is under way in the pool has ended or was given up."""
        until = self._loop.time() + CLOSE_S
        self._sweeping.cancel()
        await asyncio.wait([self._sweeping])
        self._driver.stop()
        self._service.close()
        while self._pool.under_way and self._loop.time() < until:
            self._service.finished(self._pool.drain())
            await asyncio.sleep(0.01)
        if self._listing is not None and not self._listing.done():
            await asyncio.wait([self._listing], timeout=max(0.0, until - self._loop.time()))
        listed = self._listing is None or self._listing.done()
        if not (listed and await asyncio.to_thread(self._pool.close)):
            log.warning("the pool does not answer: its client ends with the process")


def refuse() -> NoReturn:
    """What only a group can do. Raises UnsupportedError."""
    raise UnsupportedError(NO_GROUP)


def _nothing() -> None:
    """Nothing is gathered for a turn."""
