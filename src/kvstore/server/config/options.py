"""What a kvd is told to be, checked before anything is touched."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kvstore.errors import ConfigurationError
from kvstore.server.metrics.endpoint import parse_metrics_address

DEFAULT_LISTEN_ADDRESS = "127.0.0.1:50051"
DEFAULT_DATA_DIR = "./data"

MODES = ("embedded", "cluster-node")
TLS_PROFILES = ("dev", "secure")
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("json", "console")
ADMINS = ("operators", "everybody")


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

    def __post_init__(self) -> None:
        _require("mode", self.mode, MODES)
        _require("tls_profile", self.tls_profile, TLS_PROFILES)
        _require("admin", self.admin, ADMINS)
        _require("log_level", self.log_level, LOG_LEVELS)
        _require("log_format", self.log_format, LOG_FORMATS)
        if self.metrics_addr is not None:
            parse_metrics_address(self.metrics_addr)
        if not self.data_dir:
            raise ConfigurationError("--data_dir is empty; expected the path of a directory")
        if self.mode == "cluster-node" and not self.config:
            raise ConfigurationError("--mode=cluster-node requires --config=PATH")
        if self.mode == "embedded" and self.config:
            raise ConfigurationError(
                "--config has no effect with --mode=embedded; use --mode=cluster-node"
            )
        if self.tls_profile == "secure" and not (self.tls_cert and self.tls_key):
            raise ConfigurationError(
                "secure TLS profile requires both --tls_cert=PATH and --tls_key=PATH"
            )
        if self.tls_profile == "secure" and self.insecure_clients:
            raise ConfigurationError(
                "--insecure_clients has no effect with --tls_profile=secure; leave it out"
            )
        if self.tls_profile == "dev" and self.tls_client_ca:
            raise ConfigurationError(
                "--tls_client_ca has no effect with --tls_profile=dev; use --tls_profile=secure"
            )
        if self.tls_profile == "dev" and (self.tls_cert or self.tls_key):
            raise ConfigurationError(
                "--tls_cert and --tls_key have no effect with --tls_profile=dev; "
                "use --tls_profile=secure"
            )

    @property
    def data_path(self) -> Path:
        return Path(self.data_dir)


def _require(flag: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        expected = " or ".join([", ".join(allowed[:-1]), allowed[-1]])
        raise ConfigurationError(f"unsupported --{flag}={value}; expected {expected}")
