"""A client of watches for tests: resumes by itself, as clientv3 does, and notes what it saw."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any

import grpc

from kvstore.api.etcd import etcd_pb2 as pb
from kvstore.api.etcd.methods import method_shape
from kvstore.state.mvcc.answers import Event, KeyValue
from tests.watch_validator import Asked, Seen, Watched

__all__ = ["Watcher", "call"]

RESUMABLE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL)


def call(channel: grpc.Channel, service: str, name: str) -> Any:
    """A method of etcd's API on a channel."""
    shape = method_shape(f"etcdserverpb.{service}", name)
    kind = channel.stream_stream if shape.streams_in else channel.unary_unary
    return kind(
        shape.path,
        request_serializer=shape.request.SerializeToString,
        response_deserializer=shape.response.FromString,
    )


class Watcher:
    """One watch, from revision 1 or later on, at the members ``addresses``, one after the other."""

    def __init__(
        self, addresses: list[str], key: bytes, range_end: bytes, *, start: int, **more: Any
    ) -> None:
        self.addresses = addresses
        self.watched = Watched(Asked(key, range_end, start, more.get("prev_kv", False)))
        self.resumed = 0
        self.unexpected: list[str] = []
        self._next = start
        self._more = more
        self._changed = threading.Condition()
        self._stopped = False
        self._call: Any = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def wait_for(self, revision: int, timeout: float = 60.0) -> None:
        """Until everything up to ``revision`` is said to have come."""
        with self._changed:
            reached = self._changed.wait_for(lambda: self._next > revision, timeout)
        assert reached, f"at {self._next - 1} instead of {revision}: {self.unexpected}"

    def stop(self) -> None:
        self._stopped = True
        if self._call is not None:
            self._call.cancel()
        self._thread.join()

    def _run(self) -> None:
        turn = 0
        while not self._stopped:
            address = self.addresses[turn % len(self.addresses)]
            turn += 1
            with grpc.insecure_channel(
                address, options=[("grpc.use_local_subchannel_pool", 1)]
            ) as channel:
                try:
                    self._watch(channel)
                    if not self._stopped:
                        self.unexpected.append("OK")
                except grpc.RpcError as error:
                    if not self._stopped and error.code() not in RESUMABLE:  # type: ignore[attr-defined]
                        self.unexpected.append(str(error))
            self.resumed += 1

    def _watch(self, channel: grpc.Channel) -> None:
        asked: queue.SimpleQueue[pb.WatchRequest | None] = queue.SimpleQueue()
        watched = self.watched.asked
        asked.put(
            pb.WatchRequest(
                create_request=pb.WatchCreateRequest(
                    key=watched.key,
                    range_end=watched.range_end,
                    start_revision=self._next,
                    **self._more,
                )
            )
        )
        requests: Iterator[pb.WatchRequest] = iter(asked.get, None)
        self._call = call(channel, "Watch", "Watch")(requests, metadata=[("hasleader", "true")])
        try:
            for response in self._call:
                if response.created:
                    asked.put(pb.WatchRequest(progress_request=pb.WatchProgressRequest()))
                elif self._take(response):
                    # For as long as there are answers there are questions.
                    asked.put(pb.WatchRequest(progress_request=pb.WatchProgressRequest()))
        finally:
            asked.put(None)

    def _take(self, response: pb.WatchResponse) -> bool:
        """Note it; True for progress."""
        if response.canceled:
            self.unexpected.append(str(response))
            return False
        events = tuple(_event(event) for event in response.events)
        seen = Seen(response.header.revision, events, response.fragment)
        with self._changed:
            self.watched.seen.append(seen)
            last = events[-1].kv.mod_revision if events else seen.revision
            if not seen.fragment:
                self._next = max(self._next, last + 1)
            self._changed.notify_all()
        return not events


def _event(event: pb.Event) -> Event:
    before = _key_value(event.prev_kv) if event.HasField("prev_kv") else None
    return Event(
        event.type == pb.Event.DELETE,
        _key_value(event.kv),
        before.mod_revision if before else 0,
        before,
    )


def _key_value(kv: pb.KeyValue) -> KeyValue:
    return KeyValue(kv.key, kv.create_revision, kv.mod_revision, kv.version, kv.value, kv.lease)
