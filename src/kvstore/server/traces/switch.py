"""Traces on or off, by OpenTelemetry's own environment: works without its packages.

``OTEL_TRACES_EXPORTER`` turns them on and names who exports them: what is installed under that name
in the entry points ``opentelemetry_traces_exporter``, which reads the other variables by itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Final

from kvstore.errors import ConfigurationError

if TYPE_CHECKING:
    from kvstore.server.traces.spans import ServerSpans

__all__ = ["check_exporters", "exporter_names", "open_traces"]

EXPORTER: Final = "OTEL_TRACES_EXPORTER"
GROUP: Final = "opentelemetry_traces_exporter"

_OTLP: Final = {"grpc": "otlp_proto_grpc", "http/protobuf": "otlp_proto_http"}
_PACKAGES: Final = {
    "console": "opentelemetry-sdk",
    "otlp_proto_grpc": "opentelemetry-exporter-otlp-proto-grpc",
    "otlp_proto_http": "opentelemetry-exporter-otlp-proto-http",
}


def exporter_names(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The entry points that the environment chooses; (): no traces.

    Raises ConfigurationError for a protocol that OTLP hasn't.
    """
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return ()
    given = [name.strip() for name in environment.get(EXPORTER, "").split(",")]
    names = [name for name in given if name not in ("", "none")]
    return tuple(_otlp(environment) if name == "otlp" else name for name in dict.fromkeys(names))


def check_exporters(environment: Mapping[str, str]) -> None:
    """Raise ConfigurationError where an exporter that the environment chooses is missing."""
    for name in exporter_names(environment):
        _found(name)


@contextlib.contextmanager
def open_traces(environment: Mapping[str, str]) -> Iterator[ServerSpans | None]:
    """Spans of this process's calls, as long as the context lasts; None: nobody wants any.

    Raises ConfigurationError where an exporter, or the SDK, is missing or refuses its settings.
    """
    names = exporter_names(environment)
    if not names:
        yield None
        return
    exporters = [_made(name) for name in names]
    try:
        from kvstore.server.traces.export import open_spans
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("opentelemetry"):
            raise
        raise ConfigurationError(
            f"{EXPORTER} needs the 'opentelemetry' package: pip install opentelemetry-sdk"
        ) from error
    with open_spans(exporters, environment) as spans:
        yield spans


def _otlp(environment: Mapping[str, str]) -> str:
    """What ``otlp`` stands for."""
    for variable in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        protocol = environment.get(variable, "").strip()
        if protocol and protocol not in _OTLP:
            raise ConfigurationError(f"{variable}={protocol}; expected {' or '.join(_OTLP)}")
        if protocol:
            return _OTLP[protocol]
    return _OTLP["grpc"]


def _found(name: str) -> EntryPoint:
    for found in entry_points(group=GROUP, name=name):
        return found
    package = _PACKAGES.get(name)
    remedy = f"pip install {package}" if package else "no installed package has it"
    raise ConfigurationError(f"{EXPORTER} names the exporter {name!r}, which is missing: {remedy}")


def _made(name: str) -> Any:
    found = _found(name)
    try:
        return found.load()()
    except Exception as error:  # whatever somebody else's package raises
        raise ConfigurationError(
            f"the exporter {name!r} of {EXPORTER} can't be made: {error}"
        ) from error
