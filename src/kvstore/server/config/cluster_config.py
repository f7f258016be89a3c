"""What a cluster node is told to be: a TOML file, overridden by environment and flags.

Everything is checked before anything is touched, and each complaint is one line that names the
key and says what would be right. Keys that don't exist are refused: a misspelt ``tls_profil``
must not turn encryption off in silence.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from kvstore.addresses import HostPort, is_loopback
from kvstore.errors import ConfigurationError
from kvstore.raft.membership import VOTERS_MAX
from kvstore.server.config.options import (
    ADMINS,
    BOUND_MAX,
    FRONTS,
    HISTORY_MIB_DEFAULT,
    HISTORY_S_DEFAULT,
    LOG_FORMATS,
    LOG_LEVELS,
    SCRUB_ROUND_HOURS_DEFAULT,
    SCRUB_ROUND_HOURS_MAX,
    SLOW_CALL_MS_DEFAULT,
    SLOW_CALL_MS_MAX,
    TLS_PROFILES,
)
from kvstore.server.config.values import Attempt as _Attempt
from kvstore.server.config.values import Refused as _Refused
from kvstore.server.config.values import address as _address
from kvstore.server.config.values import attempt as _attempt
from kvstore.server.config.values import boolean as _boolean
from kvstore.server.config.values import choice as _choice
from kvstore.server.config.values import dialled as _dialled
from kvstore.server.config.values import integer as _integer
from kvstore.server.config.values import name as _cluster_id
from kvstore.server.config.values import path as _path
from kvstore.server.config.values import refuse_unknown as _refuse_unknown
from kvstore.server.config.values import shown as _shown
from kvstore.server.config.values import unreadable as _unreadable
from kvstore.small_files import read_small

MEMBER_ID_MAX = (1 << 63) - 1

HEARTBEAT_MS_DEFAULT = 50
ELECTION_TIMEOUT_MS_DEFAULT = 500
SNAPSHOT_MIB_PER_S_DEFAULT = 256
LOG_TAIL_MIB_DEFAULT = 1024


@dataclass(frozen=True, slots=True)
class Node:
    """One member: its id, where clients reach it and where the other members do."""

    node_id: int
    client_addr: str
    peer_addr: str


@dataclass(frozen=True, slots=True)
class PeerTls:
    """PEM files for mutual TLS between members; ``ca`` signs nothing but members."""

    ca: str
    cert: str
    key: str


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """A cluster node's settings, complete and free of contradictions.

    ``client_addr`` and ``peer_addr`` are what this node listens on, those in ``nodes`` what others
    dial; they differ behind ``0.0.0.0``. ``join`` says that the cluster exists already and has
    been told of this node by ``kvctl member add``: it founds nothing. ``forward`` lets a follower
    pass writes and reads on to the leader instead of naming it. ``peer_tls`` is None when peers
    talk in plain text; ``peer_secret_file`` holds what proves them then, and ``insecure_peers``
    says in so many words that they may do so beyond this machine. ``metrics_address`` is where
    ``/metrics`` is served; None: nowhere. ``etcd_api``: etcd's API is served, and keys get
    revisions once all members can give them.
    """

    cluster_id: str
    self_id: int
    data_dir: str
    nodes: tuple[Node, ...]
    client_addr: str
    peer_addr: str
    tls_profile: str = "dev"
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_client_ca: str | None = None
    peer_tls: PeerTls | None = None
    peer_secret_file: str | None = None
    insecure_peers: bool = False
    forward: bool = False
    join: bool = False
    heartbeat_ms: int = HEARTBEAT_MS_DEFAULT
    election_timeout_ms: int = ELECTION_TIMEOUT_MS_DEFAULT
    snapshot_mib_per_s: int = SNAPSHOT_MIB_PER_S_DEFAULT
    log_tail_mib: int = LOG_TAIL_MIB_DEFAULT
    metrics_address: str | None = None
    log_level: str = "info"
    log_format: str = "console"
    admin: str = "operators"
    insecure_clients: bool = False
    front: str = FRONTS[0]
    etcd_api: bool = True
    history_s: int = HISTORY_S_DEFAULT
    history_mib: int = HISTORY_MIB_DEFAULT
    history_revisions: int = 0
    quota_mib: int = 0
    scrub_round_hours: int = SCRUB_ROUND_HOURS_DEFAULT
    slow_call_ms: int = SLOW_CALL_MS_DEFAULT

    def node(self, node_id: int) -> Node | None:
        """The entry of ``[[nodes]]`` with this id."""
        return next((node for node in self.nodes if node.node_id == node_id), None)

    @property
    def founders_digest(self) -> str:
        """Hex digest of cluster id and nodes: founders with different lists don't go together."""
        founders = sorted((n.node_id, n.client_addr, n.peer_addr) for n in self.nodes)
        return hashlib.sha256(json.dumps([self.cluster_id, founders]).encode()).hexdigest()[:16]


def load_cluster_config(
    path: str, overrides: Mapping[str, str | bool | int | None] | None = None
) -> ClusterConfig:
    """Read the file, let ``overrides`` (flags and environment; None: not given) win, and check.

    ``peer_tls`` is overridden by ``peer_tls=off`` or by ``peer_tls_ca``, ``peer_tls_cert`` and
    ``peer_tls_key``. Raises ConfigurationError with one line, the first of what is wrong.
    """
    config, faults = draft_cluster_config(path, overrides)
    if config is None or faults:
        raise ConfigurationError(faults[0])
    return config


def draft_cluster_config(
    path: str, overrides: Mapping[str, str | bool | int | None] | None = None
) -> tuple[ClusterConfig | None, list[str]]:
    """The same with all that is wrong, a line each, and without raising.

    Where a key is missing or wrong, the configuration has its default, or an empty text and 0; it
    is None when the file can't be read at all.
    """
    try:
        document = tomllib.loads(read_small(path).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        return None, [_unreadable(path, error)]
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    faults: list[str] = []
    config = _config(document, given, partial(_attempt, faults))
    return config, [f"{path}: {fault}" for fault in faults]


def check_cluster_id(cluster_id: str) -> None:
    """Raise ConfigurationError unless a cluster may have this name."""
    try:
        _cluster_id("cluster_id", cluster_id)
    except _Refused as refused:
        raise ConfigurationError(str(refused)) from None


def check_dialled(node: Node) -> None:
    """Raise ConfigurationError unless both addresses can be dialled, and are no more than that."""
    try:
        _dialled("client address", node.client_addr)
        _dialled("peer address", node.peer_addr)
    except _Refused as refused:
        raise ConfigurationError(str(refused)) from None


def _config(
    document: dict[str, Any], overrides: Mapping[str, Any], attempt: _Attempt
) -> ClusterConfig:
    for key in document:
        attempt(_refuse_unknown, "", key, [*_KEYS, "nodes", "peer_tls"])
    values = {}
    for key, parse in _KEYS.items():
        if key in document:
            values[key] = attempt(parse, key, document[key])
    for key, given in overrides.items():
        if key in _KEYS:
            values[key] = attempt(_KEYS[key], f"--{key}", _typed(_KEYS[key], given))
    for key in ("cluster_id", "self_id", "data_dir"):
        if key not in values:
            attempt(_missing, key)
    values = {key: value for key, value in values.items() if value is not None}
    nodes = _nodes(document.get("nodes"), attempt)
    own = attempt(_own, nodes, values.get("self_id"))
    if own is not None:
        values.setdefault("client_addr", own.client_addr)
        values.setdefault("peer_addr", own.peer_addr)
    tls = attempt(_peer_tls, document.get("peer_tls"), overrides)
    wrong_tls = tls is None and not _says_nothing_of_tls(document, overrides)
    nothing = {"cluster_id": "", "self_id": 0, "data_dir": "", "client_addr": "", "peer_addr": ""}
    config = ClusterConfig(
        nodes=nodes, peer_tls=tls if isinstance(tls, PeerTls) else None, **{**nothing, **values}
    )
    attempt(_check_ports, config)
    for check in _tls_checks(config, peer_tls_off=tls == "off" or wrong_tls):
        attempt(check)
    if not wrong_tls:
        attempt(_check_peers, config)
    attempt(_check_timing, config)
    return config


def _says_nothing_of_tls(document: Mapping[str, Any], overrides: Mapping[str, Any]) -> bool:
    return "peer_tls" not in document and not any(key.startswith("peer_tls") for key in overrides)


def _missing(key: str, where: str = "") -> None:
    raise _Refused(f"{where}{key} is missing; {_MEANING[key]}")


def _own(nodes: Sequence[Node], self_id: int | None) -> Node | None:
    """This member's entry; None where it or the list was refused already."""
    if not nodes or self_id is None:
        return None
    own = next((node for node in nodes if node.node_id == self_id), None)
    if own is None:
        ids = ", ".join(str(node.node_id) for node in nodes)
        raise _Refused(f"self_id = {self_id} is none of the [[nodes]] ({ids})")
    return own


def _check_ports(config: ClusterConfig) -> None:
    if config.client_addr and config.peer_addr and _collide(config.client_addr, config.peer_addr):
        raise _Refused(
            f"client_addr and peer_addr are both {config.client_addr}; "
            "clients and peers need a port each"
        )


def _nodes(tables: object, attempt: _Attempt) -> tuple[Node, ...]:
    listed: list[dict[str, Any]] = attempt(_node_tables, tables) or []
    nodes: list[Node | None] = [
        attempt(_node, f"nodes[{number}]", table, attempt) for number, table in enumerate(listed)
    ]
    ids: dict[int, int] = {}
    addresses: dict[str, str] = {}
    for number, node in enumerate(nodes):
        if node is not None:
            attempt(_unique, number, node, ids)
            for key, address in (("client_addr", node.client_addr), ("peer_addr", node.peer_addr)):
                attempt(_unshared, f"nodes[{number}].{key}", address, addresses)
    return tuple(node for node in nodes if node is not None)


def _node_tables(tables: object) -> list[dict[str, Any]]:
    if tables is None:
        raise _Refused("[[nodes]] is missing; give one table for each member, this one included")
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise _Refused("nodes must be an array of tables, each begun with [[nodes]]")
    if not 1 <= len(tables) <= VOTERS_MAX:
        raise _Refused(f"{len(tables)} [[nodes]]; a cluster has 1 to {VOTERS_MAX}")
    return tables


def _unique(number: int, node: Node, taken: dict[int, int]) -> None:
    if node.node_id in taken:
        raise _Refused(
            f"nodes[{number}].node_id = {node.node_id} is taken by nodes[{taken[node.node_id]}]; "
            "ids must be unique"
        )
    taken[node.node_id] = number


def _unshared(where: str, address: str, taken: dict[str, str]) -> None:
    other = taken.setdefault(address.lower(), where)
    if other != where:
        raise _Refused(f'{where} = "{address}" is taken by {other}; addresses must be unique')


def _node(where: str, table: dict[str, Any], attempt: _Attempt) -> Node | None:
    """The member in a table; None where anything of it was refused."""
    for key in table:
        attempt(_refuse_unknown, f"{where}.", key, list(_NODE_KEYS))
    values: dict[str, Any] = {}
    for key, parse in _NODE_KEYS.items():
        if key not in table:
            attempt(_missing, key, f"{where}.")
        values[key] = attempt(parse, f"{where}.{key}", table[key]) if key in table else None
    return None if None in values.values() else Node(**values)


def _peer_tls(table: object, overrides: Mapping[str, Any]) -> PeerTls | str | None:
    """The files, ``"off"``, or None when nothing was said."""
    said = overrides.get("peer_tls")
    if said is not None and said != "off":
        raise _Refused(
            f"--peer_tls={said} is not known; give off, or --peer_tls_ca, --peer_tls_cert and "
            "--peer_tls_key"
        )
    flags = {
        key: overrides[f"peer_tls_{key}"]
        for key in _PEER_TLS_KEYS
        if f"peer_tls_{key}" in overrides
    }
    if said == "off":
        if flags:
            raise _Refused(f"--peer_tls=off contradicts --peer_tls_{next(iter(flags))}")
        return "off"
    files: dict[str, Any] = {}
    if isinstance(table, dict):
        for key in table:
            _refuse_unknown("peer_tls.", key, list(_PEER_TLS_KEYS))
        files = {key: _path(f"peer_tls.{key}", value) for key, value in table.items()}
    elif table == "off" and not flags:
        return "off"
    elif table is not None and table != "off":
        raise _Refused(
            f'peer_tls = {_shown(table)}; give "off" or a table [peer_tls] with ca, cert and key'
        )
    files |= {key: _path(f"--peer_tls_{key}", value) for key, value in flags.items()}
    if not files:
        if table is not None:
            raise _Refused("peer_tls.ca is missing; [peer_tls] needs ca, cert and key")
        return None
    for key in _PEER_TLS_KEYS:
        if key not in files:
            raise _Refused(f"peer_tls.{key} is missing; [peer_tls] needs ca, cert and key")
    return PeerTls(**files)


def _tls_checks(config: ClusterConfig, *, peer_tls_off: bool) -> Iterator[Callable[[], None]]:
    if config.tls_profile == "dev":
        for key in ("tls_cert", "tls_key", "tls_client_ca"):
            yield partial(_check_no_effect, config, key)
        return
    yield partial(_check_secure, config)
    yield partial(_check_secure_peers, config, peer_tls_off=peer_tls_off)


def _check_no_effect(config: ClusterConfig, key: str) -> None:
    if getattr(config, key):
        raise _Refused(f'{key} has no effect with tls_profile = "dev"; use tls_profile = "secure"')


def _check_secure(config: ClusterConfig) -> None:
    if config.insecure_clients:
        raise _Refused('insecure_clients = true contradicts tls_profile = "secure"')
    if not (config.tls_cert and config.tls_key):
        raise _Refused("secure TLS profile requires both tls_cert and tls_key")


def _check_secure_peers(config: ClusterConfig, *, peer_tls_off: bool) -> None:
    if config.peer_tls is None and not peer_tls_off and len(config.nodes) > 1:
        raise _Refused(
            "secure TLS profile requires [peer_tls] with ca, cert and key "
            '(kvctl pki makes them), or peer_tls = "off" to let members talk in plain text'
        )


def _check_peers(config: ClusterConfig) -> None:
    if config.peer_tls is not None:
        if config.insecure_peers:
            raise _Refused("insecure_peers = true contradicts [peer_tls]")
        return
    open_addresses = [
        address
        for address in (config.peer_addr, *(node.peer_addr for node in config.nodes))
        if address and not is_loopback(address)
    ]
    if open_addresses and not config.insecure_peers:
        raise _Refused(
            f'members would talk in plain text, and the peer address "{open_addresses[0]}" is not '
            "of this machine alone: give [peer_tls] with ca, cert and key (kvctl pki makes them), "
            "or say insecure_peers = true where nobody else reaches that network"
        )


def _check_timing(config: ClusterConfig) -> None:
    if config.election_timeout_ms < 3 * config.heartbeat_ms:
        raise _Refused(
            f"election_timeout_ms = {config.election_timeout_ms} is too short; it must be at least "
            f"3 times heartbeat_ms = {config.heartbeat_ms}"
        )


_member_id = _integer(1, MEMBER_ID_MAX)
_timing_ms = _integer(1, 60_000)
_rate = _integer(1, 100_000)
_size_mib = _integer(0, 1_000_000)
_history = _integer(0, BOUND_MAX)
_quota_mib = _integer(0, BOUND_MAX)
_scrub_round_hours = _integer(0, SCRUB_ROUND_HOURS_MAX)
_slow_call_ms = _integer(0, SLOW_CALL_MS_MAX)

_KEYS: dict[str, Callable[[str, object], Any]] = {
    "cluster_id": _cluster_id,
    "self_id": _member_id,
    "tls_profile": _choice(*TLS_PROFILES),
    "data_dir": _path,
    "client_addr": _address,
    "peer_addr": _address,
    "tls_cert": _path,
    "tls_key": _path,
    "tls_client_ca": _path,
    "peer_secret_file": _path,
    "insecure_peers": _boolean,
    "forward": _boolean,
    "join": _boolean,
    "heartbeat_ms": _timing_ms,
    "election_timeout_ms": _timing_ms,
    "snapshot_mib_per_s": _rate,
    "log_tail_mib": _size_mib,
    "metrics_address": _address,
    "log_level": _choice(*LOG_LEVELS),
    "log_format": _choice(*LOG_FORMATS),
    "admin": _choice(*ADMINS),
    "insecure_clients": _boolean,
    "front": _choice(*FRONTS),
    "etcd_api": _boolean,
    "history_s": _history,
    "history_mib": _history,
    "history_revisions": _history,
    "quota_mib": _quota_mib,
    "scrub_round_hours": _scrub_round_hours,
    "slow_call_ms": _slow_call_ms,
}

_NODE_KEYS: dict[str, Callable[[str, object], Any]] = {
    "node_id": _member_id,
    "client_addr": _dialled,
    "peer_addr": _dialled,
}

_PEER_TLS_KEYS = ("ca", "cert", "key")

_MEANING = {
    "cluster_id": "give every member of a cluster the same name",
    "self_id": "give the node_id of this node",
    "data_dir": "give the directory that holds this node's data",
    "node_id": "give each node a number of its own",
    "client_addr": 'give "host:port" for clients',
    "peer_addr": 'give "host:port" for the other members',
}

OVERRIDES = (
    *(key for key in _KEYS if key != "metrics_address"),  # its flag is --metrics_addr
    "peer_tls",
    *(f"peer_tls_{key}" for key in _PEER_TLS_KEYS),
)
"""Every key that a flag ``--key=`` or an environment variable ``KVD_KEY`` may override."""


def _typed(parse: Callable[[str, object], Any], given: object) -> object:
    """Turn the text of a flag into what TOML would have given for it."""
    if not isinstance(given, str):
        return given
    if parse is _boolean:
        return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}.get(
            given.lower(), given
        )
    numbers = (
        _member_id,
        _timing_ms,
        _rate,
        _size_mib,
        _history,
        _quota_mib,
        _scrub_round_hours,
        _slow_call_ms,
    )
    if parse in numbers and re.fullmatch(r"[0-9]{1,19}", given):
        return int(given)
    return given


def _collide(left: str, right: str) -> bool:
    """Whether two addresses that were checked can't be listened on at once."""
    one, other = HostPort.parse(left), HostPort.parse(right)
    return one is not None and other is not None and one.collides(other)
