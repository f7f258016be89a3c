"""The methods of etcd's v3 API: their services, the shape of each, and its messages.

The paths are etcd's (``/etcdserverpb.KV/Range``), the messages of a package of ours.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from kvstore.api.etcd import etcd_pb2

__all__ = ["SERVICES", "MethodShape", "method_shape"]


class MethodShape(NamedTuple):
    """One method: what it takes and gives, and whether either is a stream."""

    service: str
    name: str
    request: Any
    response: Any
    streams_in: bool = False
    streams_out: bool = False

    @property
    def path(self) -> str:
        """As it stands in HTTP/2's ``:path``."""
        return f"/{self.service}/{self.name}"


# The methods of each service whose messages are called after them, with a prefix or not.
_UNARY: dict[str, tuple[str, tuple[str, ...]]] = {
    "etcdserverpb.KV": ("", ("Range", "Put", "DeleteRange", "Txn")),
    "etcdserverpb.Lease": ("", ("LeaseGrant", "LeaseRevoke", "LeaseTimeToLive", "LeaseLeases")),
    "etcdserverpb.Cluster": (
        "",
        ("MemberAdd", "MemberRemove", "MemberUpdate", "MemberList", "MemberPromote"),
    ),
    "etcdserverpb.Maintenance": (
        "",
        ("Alarm", "Status", "Defragment", "Hash", "HashKV", "MoveLeader", "Downgrade"),
    ),
    "etcdserverpb.Auth": (
        "Auth",
        (
            "UserAdd",
            "UserGet",
            "UserList",
            "UserDelete",
            "UserChangePassword",
            "UserGrantRole",
            "UserRevokeRole",
            "RoleAdd",
            "RoleGet",
            "RoleList",
            "RoleDelete",
            "RoleGrantPermission",
            "RoleRevokePermission",
        ),
    ),
    "v3lockpb.Lock": ("", ("Lock", "Unlock")),
    "v3electionpb.Election": ("", ("Campaign", "Proclaim", "Leader", "Resign")),
}


def _shape(
    service: str, name: str, stem: str, *, streams_in: bool = False, streams_out: bool = False
) -> MethodShape:
    request = getattr(etcd_pb2, f"{stem}Request")
    response = getattr(etcd_pb2, f"{stem}Response")
    return MethodShape(service, name, request, response, streams_in, streams_out)


def _services() -> dict[str, dict[str, MethodShape]]:
    shapes = [
        _shape(service, name, f"{prefix}{name}")
        for service, (prefix, names) in _UNARY.items()
        for name in names
    ]
    shapes += [
        _shape("etcdserverpb.KV", "Compact", "Compaction"),
        _shape("etcdserverpb.Auth", "AuthEnable", "AuthEnable"),
        _shape("etcdserverpb.Auth", "AuthDisable", "AuthDisable"),
        _shape("etcdserverpb.Auth", "AuthStatus", "AuthStatus"),
        _shape("etcdserverpb.Auth", "Authenticate", "Authenticate"),
        _shape("etcdserverpb.Watch", "Watch", "Watch", streams_in=True, streams_out=True),
        _shape(
            "etcdserverpb.Lease",
            "LeaseKeepAlive",
            "LeaseKeepAlive",
            streams_in=True,
            streams_out=True,
        ),
        _shape("etcdserverpb.Maintenance", "Snapshot", "Snapshot", streams_out=True),
        _shape("v3electionpb.Election", "Observe", "Leader", streams_out=True),
    ]
    services: dict[str, dict[str, MethodShape]] = {}
    for shape in shapes:
        services.setdefault(shape.service, {})[shape.name] = shape
    return services


SERVICES: Final = _services()
"""Every method, by the service's full name and its own."""


def method_shape(service: str, name: str) -> MethodShape:
    """One method. Raises KeyError."""
    return SERVICES[service][name]
