"""The paths of etcd's JSON gateway (``google.api.http`` in its rpc.proto, 3.5)."""

from __future__ import annotations

from typing import Final

from kvstore.api.etcd.methods import SERVICES, MethodShape

__all__ = ["PREFIXES", "ROUTES"]

PREFIXES: Final = ("/v3/", "/v3beta/")
"""The second is what 3.3 and 3.4 have as well."""

# Below /v3/; the first is the usual one.
_PATHS: dict[str, dict[str, tuple[str, ...]]] = {
    "etcdserverpb.KV": {
        "Range": ("kv/range",),
        "Put": ("kv/put",),
        "DeleteRange": ("kv/deleterange",),
        "Txn": ("kv/txn",),
        "Compact": ("kv/compaction",),
    },
    "etcdserverpb.Watch": {"Watch": ("watch",)},
    "etcdserverpb.Lease": {
        "LeaseGrant": ("lease/grant",),
        "LeaseRevoke": ("lease/revoke", "kv/lease/revoke"),
        "LeaseKeepAlive": ("lease/keepalive",),
        "LeaseTimeToLive": ("lease/timetolive", "kv/lease/timetolive"),
        "LeaseLeases": ("lease/leases", "kv/lease/leases"),
    },
    "etcdserverpb.Cluster": {
        "MemberAdd": ("cluster/member/add",),
        "MemberRemove": ("cluster/member/remove",),
        "MemberUpdate": ("cluster/member/update",),
        "MemberList": ("cluster/member/list",),
        "MemberPromote": ("cluster/member/promote",),
    },
    "etcdserverpb.Maintenance": {
        "Alarm": ("maintenance/alarm",),
        "Status": ("maintenance/status",),
        "Defragment": ("maintenance/defragment",),
        "HashKV": ("maintenance/hash", "maintenance/hashkv"),
        "Snapshot": ("maintenance/snapshot",),
        "MoveLeader": ("maintenance/transfer-leadership",),
        "Downgrade": ("maintenance/downgrade",),
    },
    "etcdserverpb.Auth": {
        "AuthEnable": ("auth/enable",),
        "AuthDisable": ("auth/disable",),
        "AuthStatus": ("auth/status",),
        "Authenticate": ("auth/authenticate",),
        "UserAdd": ("auth/user/add",),
        "UserGet": ("auth/user/get",),
        "UserList": ("auth/user/list",),
        "UserDelete": ("auth/user/delete",),
        "UserChangePassword": ("auth/user/changepw",),
        "UserGrantRole": ("auth/user/grant",),
        "UserRevokeRole": ("auth/user/revoke",),
        "RoleAdd": ("auth/role/add",),
        "RoleGet": ("auth/role/get",),
        "RoleList": ("auth/role/list",),
        "RoleDelete": ("auth/role/delete",),
        "RoleGrantPermission": ("auth/role/grant",),
        "RoleRevokePermission": ("auth/role/revoke",),
    },
    "v3lockpb.Lock": {"Lock": ("lock/lock",), "Unlock": ("lock/unlock",)},
    "v3electionpb.Election": {
        "Campaign": ("election/campaign",),
        "Proclaim": ("election/proclaim",),
        "Leader": ("election/leader",),
        "Observe": ("election/observe",),
        "Resign": ("election/resign",),
    },
}

ROUTES: Final[dict[str, MethodShape]] = {
    prefix + path: SERVICES[service][name]
    for service, methods in _PATHS.items()
    for name, paths in methods.items()
    for path in paths
    for prefix in PREFIXES
}
"""Each method by each of its paths."""
