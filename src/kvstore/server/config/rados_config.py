"""What a gateway to RADOS is told to be: a TOML file, overridden by environment and flags.

As for a cluster node (:mod:`kvstore.server.config.cluster_config`) everything is checked before
anything is touched, and keys that don't exist are refused.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from kvstore.addresses import HostPort
from kvstore.beyond.rados.opening import PoolAddress
from kvstore.errors import ConfigurationError
from kvstore.server.config.options import (
    ADMINS,
    DEFAULT_LISTEN_ADDRESS,
    FRONTS,
    LOG_FORMATS,
    LOG_LEVELS,
    SLOW_CALL_MS_DEFAULT,
    SLOW_CALL_MS_MAX,
    TLS_PROFILES,
    ServerOptions,
)
from kvstore.server.config.values import (
    Refused,
    address,
    attempt,
    boolean,
    choice,
    integer,
    name,
    path,
    refuse_unknown,
    shown,
    text,
    unreadable,
)
from kvstore.small_files import read_small

__all__ = ["OVERRIDES", "RadosConfig", "draft_rados_config", "load_rados_config"]

CEPH_CONF_DEFAULT = "/etc/ceph/ceph.conf"
NAME_DEFAULT = "kvstore"
"""Of the user (without ``client.``) and of the namespace."""
CEPH_NAME_BYTES_MAX = 256
"""An OSD's ``osd_max_object_namespace_len``, unless somebody has changed that."""


@dataclass(frozen=True, slots=True)
class RadosConfig:
    """A gateway's settings. ``client_addr``: where clients reach it; port 0: the system chooses.

    ``keyring``: file with the key of ``client.<user>``; None where the cluster asks for none, or
    ``ceph_conf`` says where it is.
    """

    pool: str
    namespace: str = NAME_DEFAULT
    ceph_conf: str = CEPH_CONF_DEFAULT
    user: str = NAME_DEFAULT
    keyring: str | None = None
    client_addr: str = DEFAULT_LISTEN_ADDRESS
    tls_profile: str = "dev"
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_client_ca: str | None = None
    metrics_address: str | None = None
    log_level: str = "info"
    log_format: str = "console"
    admin: str = "operators"
    insecure_clients: bool = False
    front: str = FRONTS[0]
    slow_call_ms: int = SLOW_CALL_MS_DEFAULT

    @property
    def address(self) -> PoolAddress:
        """Where its keys lie."""
        return PoolAddress(self.ceph_conf, self.user, self.keyring, self.pool, self.namespace)

    def options(self, file: str) -> ServerOptions:
        """The same for what serves clients. Raises ConfigurationError."""
        return ServerOptions(
            mode="rados",
            listen_addr=self.client_addr,
            # There is none; it says where the data is.
            data_dir=f"rados:{self.pool}/{self.namespace}",
            tls_profile=self.tls_profile,
            tls_cert=self.tls_cert,
            tls_key=self.tls_key,
            tls_client_ca=self.tls_client_ca,
            metrics_addr=self.metrics_address,
            config=file,
            log_level=self.log_level,
            log_format=self.log_format,
            admin=self.admin,
            insecure_clients=self.insecure_clients,
            front=self.front,
            etcd_api=False,
            slow_call_ms=self.slow_call_ms,
        )


def load_rados_config(
    file: str, overrides: Mapping[str, str | bool | int | None] | None = None
) -> RadosConfig:
    """Read the file, let ``overrides`` (flags and environment; None: not given) win, and check.

    Raises ConfigurationError with one line, the first of what is wrong.
    """
    config, faults = draft_rados_config(file, overrides)
    if config is None or faults:
        raise ConfigurationError(faults[0])
    return config


def draft_rados_config(
    file: str, overrides: Mapping[str, str | bool | int | None] | None = None
) -> tuple[RadosConfig | None, list[str]]:
    """The same with all that is wrong, a line each, and without raising; None where the file can't
    be read at all."""
    try:
        document = tomllib.loads(read_small(file).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        return None, [unreadable(file, error)]
    faults: list[str] = []
    check = partial(attempt, faults)
    values: dict[str, Any] = {}
    for key in document:
        check(refuse_unknown, "", key, list(_KEYS))
    for key, parse in _KEYS.items():
        if key in document:
            values[key] = check(parse, key, document[key])
    for key, given in (overrides or {}).items():
        if given is not None and key in _KEYS:
            values[key] = check(_KEYS[key], f"--{key}", _typed(_KEYS[key], given))
    if "pool" not in values:
        faults.append("pool is missing; give the name of a pool of RADOS")
    values = {key: value for key, value in values.items() if value is not None}
    config = RadosConfig(**{"pool": "", **values})
    if not faults:
        try:
            config.options(file)
        except ConfigurationError as error:
            faults.append(str(error))
    return config, [f"{file}: {fault}" for fault in faults]


def _listened(key: str, value: object) -> str:
    said = text(key, value)
    if HostPort.parse(said) is None:
        raise Refused(f'{key} = {shown(value)}; it must be "host:port"')
    return said


def _ceph_name(key: str, value: object) -> str:
    said = text(key, value)
    if not said.isprintable() or "/" in said or said != said.strip():
        raise Refused(f"{key} = {shown(value)}; it must be a name without '/'")
    if len(said.encode()) > CEPH_NAME_BYTES_MAX:
        raise Refused(f"{key} has more than {CEPH_NAME_BYTES_MAX} bytes")
    return said


def _user(key: str, value: object) -> str:
    said = name(key, value)
    if said.startswith("client."):
        raise Refused(f"{key} = {shown(value)}; give it without 'client.'")
    return said


_slow_call_ms = integer(0, SLOW_CALL_MS_MAX)

_KEYS: dict[str, Callable[[str, object], Any]] = {
    "ceph_conf": path,
    "user": _user,
    "keyring": path,
    "pool": _ceph_name,
    "namespace": _ceph_name,
    "client_addr": _listened,
    "tls_profile": choice(*TLS_PROFILES),
    "tls_cert": path,
    "tls_key": path,
    "tls_client_ca": path,
    "metrics_address": address,
    "log_level": choice(*LOG_LEVELS),
    "log_format": choice(*LOG_FORMATS),
    "admin": choice(*ADMINS),
    "insecure_clients": boolean,
    "front": choice(*FRONTS),
    "slow_call_ms": _slow_call_ms,
}

OVERRIDES = tuple(
    key
    for key in _KEYS
    if key not in ("ceph_conf", "user", "keyring", "pool", "namespace", "metrics_address")
)
"""Keys that a flag ``--key=`` or an environment variable ``KVD_KEY`` may override."""


def _typed(parse: Callable[[str, object], Any], given: object) -> object:
    """Turn the text of a flag into what TOML would have given for it."""
    if not isinstance(given, str):
        return given
    if parse is boolean:
        return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}.get(
            given.lower(), given
        )
    if parse is _slow_call_ms and re.fullmatch(r"[0-9]{1,19}", given):
        return int(given)
    return given
