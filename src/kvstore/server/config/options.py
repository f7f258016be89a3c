"""What a kvd is told to be, checked before anything is touched."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvstore.errors import ConfigurationError
from kvstore.server.metrics.endpoint import parse_metrics_address

DEFAULT_LISTEN_ADDRESS = "127.0.0.1:50051"
DEFAULT_DATA_DIR = "./data"
HISTORY_S_DEFAULT = 3600
HISTORY_MIB_DEFAULT = 1024
SCRUB_ROUND_HOURS_DEFAULT = 168
BOUND_MAX = 1_000_000_000
"""Of history's bounds and the quota, each in its unit."""
SCRUB_ROUND_HOURS_MAX = 10_000
SLOW_CALL_MS_DEFAULT = 100
SLOW_CALL_MS_MAX = 3_600_000

MODES = ("embedded", "cluster-node", "rados")
TLS_PROFILES = ("dev", "secure")
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("json", "console")
ADMINS = ("operators", "everybody")
FRONTS = ("auto", "native", "grpcio")


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """The flags of kvd. Raises ConfigurationError for a value that is none of the allowed ones."""

    mode: str = "embedded"
    listen_addr: str = DEFAULT_LISTEN_ADDRESS
    data_dir: str = DEFAULT_DATA_DIR
    tls_profile: str = "dev"
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_client_ca: str | None = None
    metrics_addr: str | None = None
    config: str | None = None
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

    def __post_init__(self) -> None:
        for fault in option_faults(dataclasses.asdict(self)):
            raise ConfigurationError(fault)

    @property
    def data_path(self) -> Path:
        return Path(self.data_dir)


def option_faults(values: Mapping[str, Any]) -> Iterator[str]:
    """All that is wrong with the fields of a :class:`ServerOptions`, a line each."""
    for flag, allowed in _CHOICES.items():
        if values[flag] not in allowed:
            expected = " or ".join([", ".join(allowed[:-1]), allowed[-1]])
            yield f"unsupported --{flag}={values[flag]}; expected {expected}"
    if values["metrics_addr"] is not None:
        try:
            parse_metrics_address(values["metrics_addr"])
        except ConfigurationError as error:
            yield str(error)
    for flag in ("history_s", "history_mib", "history_revisions", "quota_mib"):
        if values[flag] < 0:
            yield f"--{flag}={values[flag]} is below 0; 0 sets no bound"
        if values[flag] > BOUND_MAX:
            yield f"--{flag}={values[flag]} is above {BOUND_MAX}; 0 sets no bound"
    if not 0 <= values["scrub_round_hours"] <= SCRUB_ROUND_HOURS_MAX:
        yield (
            f"--scrub_round_hours={values['scrub_round_hours']} is not from 0 to "
            f"{SCRUB_ROUND_HOURS_MAX}; 0 checks nothing in the background"
        )
    if not 0 <= values["slow_call_ms"] <= SLOW_CALL_MS_MAX:
        yield (
            f"--slow_call_ms={values['slow_call_ms']} is not from 0 to {SLOW_CALL_MS_MAX}; "
            "0 tells of none"
        )
    if not values["data_dir"]:
        yield "--data_dir is empty; expected the path of a directory"
    if values["mode"] in ("cluster-node", "rados") and not values["config"]:
        yield f"--mode={values['mode']} requires --config=PATH"
    if values["mode"] == "embedded" and values["config"]:
        yield "--config has no effect with --mode=embedded; use --mode=cluster-node"
    yield from _tls_faults(values)


def _tls_faults(values: Mapping[str, Any]) -> Iterator[str]:
    if values["tls_profile"] == "secure":
        if not (values["tls_cert"] and values["tls_key"]):
            yield "secure TLS profile requires both --tls_cert=PATH and --tls_key=PATH"
        if values["insecure_clients"]:
            yield "--insecure_clients has no effect with --tls_profile=secure; leave it out"
    if values["tls_profile"] == "dev":
        if values["tls_client_ca"]:
            yield "--tls_client_ca has no effect with --tls_profile=dev; use --tls_profile=secure"
        if values["tls_cert"] or values["tls_key"]:
            yield (
                "--tls_cert and --tls_key have no effect with --tls_profile=dev; "
                "use --tls_profile=secure"
            )


_CHOICES = {
    "mode": MODES,
    "tls_profile": TLS_PROFILES,
    "admin": ADMINS,
    "front": FRONTS,
    "log_level": LOG_LEVELS,
    "log_format": LOG_FORMATS,
}
