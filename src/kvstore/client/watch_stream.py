"""All watches of a client over one stream, which is opened again whenever it ends.

kvd bounds the streams of a connection, and each costs both sides, so watches share one. A watch
that isn't read from holds up no other: with ``QUEUE_BYTES_MAX`` waiting it is taken off the stream,
and put back where it stopped once half of that was read.

A stream that says nothing for ``SILENCE_S`` is asked how far it is, which every server answers
whose watches are up to date; one that stays silent is left for another member. A member that has
lost its leader ends the stream by itself, as is asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from dataclasses import replace
from typing import Final

import grpc
import grpc.aio

from kvstore.api.etcd import etcd_pb2
from kvstore.client.attempts import try_seconds
from kvstore.client.calls import CLOSED, Calls, task_is_cancelled
from kvstore.client.connections import Connection
from kvstore.client.failure import Failure
from kvstore.client.logs import log
from kvstore.client.servers import Server, Stream
from kvstore.client.watch_position import Delivery, Position
from kvstore.errors import (
    ClosedError,
    CompactedError,
    DeadlineExceededError,
    Error,
    InternalError,
    RefusedError,
    UnavailableError,
)
from kvstore.wire import RpcError

__all__ = ["QUEUE_BYTES_MAX", "SILENCE_S", "Subscription", "WatchStream"]

# Of one watch, what waits to be read: so much, and the response that goes beyond it.
QUEUE_BYTES_MAX: Final = 4 << 20

SILENCE_S: Final = 15.0

_REQUIRE_LEADER: Final = (("hasleader", "true"),)

_NO_WATCH: Final = -1

WatchCall = Stream[etcd_pb2.WatchRequest, etcd_pb2.WatchResponse]


class Subscription:
    """One watch: what it asks for, how far it is, and what waits to be read."""

    def __init__(self, request: etcd_pb2.WatchCreateRequest) -> None:
        self.request = request
        self.position = Position(request.start_revision)
        self.begun = False
        """A server has it, or had."""
        self.first = request.start_revision
        """The revision that it begins with, once it has begun."""
        self.error: Error | None = None
        """Why there is no more after what waits."""
        self.watch_id = 0
        """On the stream there is; 0: on none."""
        self.waits_for_future = False
        """It begins with a revision that there isn't yet."""
        self.suspended = False
        """It is off the stream until it is read from."""
        self.queue: deque[tuple[Delivery, int]] = deque()
        self.queued_bytes = 0
        self._waiter: asyncio.Future[None] | None = None

    def push(self, delivery: Delivery, size: int) -> None:
        """Something came. That there is nothing up to a revision is told once."""
        if not delivery.events and self.queue:
            (last, size), revision = self.queue.pop(), delivery.revision
            self.queue.append((last._replace(revision=max(last.revision, revision)), size))
            return
        self.queue.append((delivery, size))
        self.queued_bytes += size
        self.wake()

    def fail(self, error: Error) -> None:
        """Nothing more will come."""
        if self.error is None:
            self.error = error
        self.wake()

    def wake(self) -> None:
        """Somebody may wait for what has changed."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def changed(self) -> None:
        """Wait until something came, or it began or failed."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None


class WatchStream:
    """The watches of one client, on its loop."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._subscriptions: set[Subscription] = set()
        self._task: asyncio.Task[None] | None = None
        self._call: WatchCall | None = None
        self._outgoing: deque[etcd_pb2.WatchRequest] = deque()
        self._outgoing_filled = asyncio.Event()
        self._by_id: dict[int, Subscription] = {}
        # In the order in which they were sent; so come the answers.
        self._creating: deque[int] = deque()
        self._last_id = 0
        self._heard = False
        self._asked = False
        # Why the stream is being ended here.
        self._given_up: Failure | None = None
        self._failures = 0
        self._failure: Error | None = None
        addresses = calls.endpoints.addresses
        self._address = random.choice(addresses)

    async def begin(self, subscription: Subscription, timeout: float) -> None:
        """Put a watch on the stream; returns when a server has it.

        Raises Error when none has it in time, or it is refused.
        """
        if self._calls.closed:
            raise ClosedError("the client is closed")
        self._subscriptions.add(subscription)
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        elif self._call is not None:
            self._create(subscription)
        try:
            async with asyncio.timeout(timeout):
                while not subscription.begun and subscription.error is None:
                    await subscription.changed()
        except TimeoutError:
            self.end(subscription)
            raise (
                self._failure or DeadlineExceededError(f"no answer within {timeout:g} s")
            ) from None
        except BaseException:
            self.end(subscription)
            raise
        if not subscription.begun and subscription.error is not None:
            raise subscription.error

    async def take(self, subscription: Subscription) -> Delivery:
        """What comes next. Raises the error that ends it, and ClosedError."""
        while not subscription.queue:
            if subscription.error is not None:
                raise subscription.error
            await subscription.changed()
        delivery, size = subscription.queue.popleft()
        subscription.queued_bytes -= size
        if subscription.suspended and subscription.queued_bytes <= QUEUE_BYTES_MAX // 2:
            subscription.suspended = False
            if self._call is not None:
                self._create(subscription)
        return delivery

    def end(self, subscription: Subscription) -> None:
        """Nobody reads it any more."""
        self._subscriptions.discard(subscription)
        subscription.queue.clear()
        subscription.fail(ClosedError("the watch was closed"))
        self._cancel(subscription)
        if not self._subscriptions and self._task is not None:
            self._task.cancel()

    def ask_progress(self) -> None:
        """Ask how far all watches are; each one that is up to date is told by an empty batch."""
        self._asked = True
        if self._call is not None:
            self._send(etcd_pb2.WatchRequest(progress_request=etcd_pb2.WatchProgressRequest()))

    async def close(self) -> None:
        """End all of them."""
        for subscription in self._subscriptions:
            subscription.fail(ClosedError(CLOSED))
        self._subscriptions.clear()
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _run(self) -> None:
        """One stream after the other, as long as there are watches."""
        try:
            while self._subscriptions:
                pause = await self._stream()
                await asyncio.sleep(pause)
        except Exception as error:
            self._fail_all(InternalError(f"watches broke down: {error!r}"))
            raise
        finally:
            self._task = None
            if self._subscriptions and not self._calls.closed:
                # A watch came while the last one went.
                self._task = asyncio.create_task(self._run())

    async def _stream(self) -> float:
        """Serve a stream until it ends; seconds to wait before the next."""
        calls = self._calls
        connection: Connection[Server] | None = None
        identity = calls.login.metadata
        try:
            identity = await calls.identity()
            connection = calls.connections.take(self._address)
            call = connection.server.etcd.watch(timeout=None, metadata=identity + _REQUIRE_LEADER)
            failure = await self._serve(call)
        except grpc.RpcError as error:
            failure = calls.understood(error, identity)
        except grpc.aio.UsageError as error:
            failure = Failure(UnavailableError(str(error)), retry=True)
        except Error as error:
            # Of a login, or of certificates that can't be read now.
            failure = Failure(error, retry=isinstance(error, UnavailableError | TimeoutError))
        finally:
            if connection is not None:
                await calls.give_back(connection)
        if connection is not None:
            calls.connections.failed(connection, failure, SILENCE_S)
        return self._lost(failure)

    async def _serve(self, call: WatchCall) -> Failure:
        """Write and read a stream until it ends. Raises RpcError."""
        self._call = call
        self._given_up = None
        self._outgoing.clear()
        self._by_id.clear()
        self._creating.clear()
        self._last_id = 0
        for subscription in self._subscriptions:
            subscription.watch_id = 0
            if not subscription.suspended:
                self._create(subscription)
        if self._asked:
            self.ask_progress()
        helpers = [
            asyncio.create_task(self._write(call)),
            asyncio.create_task(self._watch_silence(call)),
        ]
        try:
            while (response := await call.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]
                self._heard = True
                self._receive(response)
            return Failure(UnavailableError("the server ended the watch"), retry=True)
        except asyncio.CancelledError:
            if task_is_cancelled():
                raise
            return self._given_up or Failure(UnavailableError(CLOSED), retry=True)
        finally:
            self._call = None
            call.cancel()
            for task in helpers:
                task.cancel()
            await asyncio.wait(helpers)

    def _give_up(self, failure: Failure) -> None:
        """End the stream there is: all watches begin anew, over another one."""
        if self._call is not None:
            self._given_up = failure
            self._call.cancel()

    async def _write(self, call: WatchCall) -> None:
        """Send what there is to be sent. Errors are the reader's."""
        ended = (grpc.RpcError, grpc.aio.UsageError, asyncio.InvalidStateError)
        with contextlib.suppress(*ended):
            while True:
                while self._outgoing:
                    await call.write(self._outgoing.popleft())
                self._outgoing_filled.clear()
                await self._outgoing_filled.wait()

    async def _watch_silence(self, call: WatchCall) -> None:
        """Ask a stream that says nothing for a word, and give it up if none comes."""
        patience = try_seconds(self._calls.endpoints, self._calls.policy, SILENCE_S)
        while True:
            self._heard = False
            await asyncio.sleep(patience)
            patience = SILENCE_S
            if self._heard or not self._by_id:
                continue
            if not self._creating:
                if any(one.waits_for_future for one in self._by_id.values()):
                    continue  # whatever a server is asked, it says nothing to those
                self._send(etcd_pb2.WatchRequest(progress_request=etcd_pb2.WatchProgressRequest()))
                await asyncio.sleep(SILENCE_S)
            if not self._heard:
                silent = UnavailableError(f"no sign of life of the watches at {self._address}")
                self._give_up(Failure(silent, retry=True, silent=True))
                return

    def _lost(self, failure: Failure) -> float:
        """A stream has ended, or couldn't be opened."""
        self._failure = failure.error
        if self._calls.closed:
            self._fail_all(ClosedError(CLOSED))
            return 0.0
        if not failure.retry and not isinstance(failure.error, InternalError):
            self._fail_all(failure.error)
            return 0.0
        addresses = self._calls.endpoints.addresses
        place = addresses.index(self._address) if self._address in addresses else -1
        self._address = addresses[(place + 1) % len(addresses)]
        log.info("watches: %s; they go on at %s", failure.error, self._address)
        policy = self._calls.policy
        longest = min(policy.delay_max_s, policy.delay_first_s * 2**self._failures)
        self._failures = min(self._failures + 1, 30)
        return random.uniform(0.0, longest)

    def _fail_all(self, error: Error) -> None:
        for subscription in self._subscriptions:
            subscription.fail(error)
        self._subscriptions.clear()

    def _create(self, subscription: Subscription) -> None:
        """Put a watch on the stream, from where it stopped."""
        self._last_id += 1
        subscription.watch_id = self._last_id
        self._by_id[self._last_id] = subscription
        self._creating.append(self._last_id)
        request = etcd_pb2.WatchCreateRequest()
        request.CopyFrom(subscription.request)
        request.start_revision = subscription.position.next
        request.watch_id = self._last_id
        self._send(etcd_pb2.WatchRequest(create_request=request))

    def _cancel(self, subscription: Subscription) -> None:
        """Take a watch off the stream. What still comes of it is nobody's."""
        watch_id, subscription.watch_id = subscription.watch_id, 0
        if self._by_id.pop(watch_id, None) is not None and self._call is not None:
            self._send(
                etcd_pb2.WatchRequest(cancel_request=etcd_pb2.WatchCancelRequest(watch_id=watch_id))
            )

    def _send(self, request: etcd_pb2.WatchRequest) -> None:
        self._outgoing.append(request)
        self._outgoing_filled.set()

    def _receive(self, response: etcd_pb2.WatchResponse) -> None:
        if response.created:
            self._created(response)
        elif response.canceled:
            self._canceled(response.watch_id, response)
        elif response.watch_id == _NO_WATCH:
            self._progressed(response.header.revision)
        elif (subscription := self._by_id.get(response.watch_id)) is not None:
            self._failures = 0
            subscription.waits_for_future = False
            delivery = subscription.position.take(response)
            subscription.push(delivery, response.ByteSize())
            if subscription.queued_bytes > QUEUE_BYTES_MAX:
                subscription.suspended = True
                self._cancel(subscription)

    def _created(self, response: etcd_pb2.WatchResponse) -> None:
        """Answers come in the requests' order; one that is refused has no id."""
        watch_id = response.watch_id
        if watch_id in self._creating:
            self._creating.remove(watch_id)
        elif self._creating:
            watch_id = self._creating.popleft()
        if response.canceled:
            self._canceled(watch_id, response)
        elif (subscription := self._by_id.get(watch_id)) is not None:
            revision = response.header.revision
            subscription.position.began(revision)
            subscription.waits_for_future = subscription.position.next > revision + 1
            if not subscription.begun:
                subscription.first = subscription.position.next
            subscription.begun = True
            subscription.wake()

    def _canceled(self, watch_id: int, response: etcd_pb2.WatchResponse) -> None:
        """The server ends a watch."""
        subscription = self._by_id.pop(watch_id, None)
        if subscription is None:
            return
        subscription.watch_id = 0
        oldest = response.compact_revision
        if oldest:
            wanted = subscription.position.next
            forgotten = f"revision {wanted} is forgotten: history begins at {oldest}"
            self._refuse(subscription, CompactedError(forgotten, oldest))
            return
        # Some say it as Go prints it, with the status before.
        reason = response.cancel_reason.rpartition("desc = ")[2]
        failure = self._calls.understood(
            RpcError(grpc.StatusCode.UNKNOWN, reason), self._calls.login.metadata
        )
        if failure.retry or not reason:
            self._give_up(replace(failure, retry=True))
        elif isinstance(failure.error, InternalError):
            self._refuse(subscription, RefusedError(reason))
        else:
            self._refuse(subscription, failure.error)

    def _refuse(self, subscription: Subscription, error: Error) -> None:
        self._subscriptions.discard(subscription)
        subscription.fail(error)

    def _progressed(self, revision: int) -> None:
        """All watches are up to date, and this far.

        Where a lost stream resumes is left as it is: etcd before 3.4.25 and 3.5.8 says so too soon
        (its issue 15220).
        """
        self._asked = False
        for subscription in self._by_id.values():
            if subscription.begun:
                subscription.push(Delivery((), revision), 0)
