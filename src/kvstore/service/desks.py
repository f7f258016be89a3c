"""The two forms of a service's desk, which are alike to all who use it."""

from __future__ import annotations

from kvstore._service import native
from kvstore.service.limits import Limits
from kvstore.service.plain import PlainDesk, PlainEntry, PlainPoint, PlainRead

__all__ = ["Desk", "Entry", "Point", "Read", "new_desk"]

Desk = native.Desk | PlainDesk
Entry = native.Entry | PlainEntry
Point = native.Point | PlainPoint
Read = native.Read | PlainRead


def new_desk(limits: Limits, *, plain: bool) -> Desk:
    """The native one, or the readable one."""
    return PlainDesk(limits) if plain else native.Desk(limits)
