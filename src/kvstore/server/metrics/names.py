"""Methods as series and the log of slow calls name them."""

from __future__ import annotations

from kvstore.api.etcd.methods import SERVICES
from kvstore.api.handlers.etcd.register import WAITING

__all__ = ["name_of"]

_OURS = "/kvstore.v1."

_ETCDS = {
    shape.path: shape.path[1:]
    for shapes in SERVICES.values()
    for shape in shapes.values()
    if not (shape.streams_in or shape.streams_out or shape.path in WAITING)
}
"""The unary methods of etcd's API, by the names that they have in the series: that of their service
stands before those, since some are called as ours are."""


def name_of(path: str) -> str | None:
    """A method's name; None where it isn't told of: it streams, waits for others, or is another
    service's."""
    return path.rpartition("/")[2] if path.startswith(_OURS) else _ETCDS.get(path)
