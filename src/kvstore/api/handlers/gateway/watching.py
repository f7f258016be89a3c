"""A watch's messages in JSON: each event is put into it once, for all who are told of it."""

from __future__ import annotations

from collections.abc import Sequence

from kvstore.api.etcd import etcd_pb2 as pb
from kvstore.api.handlers.etcd.watch import event_message
from kvstore.api.handlers.gateway.transcoding import pieces_of
from kvstore.state.mvcc.answers import Event

__all__ = ["JsonText", "JsonWording"]


class JsonText(bytes):
    """A message that is JSON already, without what a stream has around it."""


class JsonWording:
    """As :class:`kvstore.api.handlers.etcd.watch.Wording`."""

    @staticmethod
    def event(event: Event, prev_kv: bool) -> bytes:
        """With the comma before it: the first of a message goes without."""
        return ("," + "".join(pieces_of(event_message(event, prev_kv)))).encode()

    @staticmethod
    def message(head: bytes, events: Sequence[bytes]) -> JsonText:
        """``head`` has a field at least: that of the header."""
        before = "".join(pieces_of(pb.WatchResponse.FromString(head))).encode()
        if not events:
            return JsonText(before)
        joined = memoryview(events[0] if len(events) == 1 else b"".join(events))
        return JsonText(b"".join((before[:-1], b',"events":[', joined[1:], b"]}")))
