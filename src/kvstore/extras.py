"""What is installed beside the package: extras by name, and what to say where one is missing."""

from __future__ import annotations

__all__ = ["DISTRIBUTION", "install_line", "missing_package"]

# Under which the package is installed; `kvstore` on the public index is somebody else's.
DISTRIBUTION = "kvstore-raft"

# The extra that brings a package, by the name that it is imported by.
_EXTRAS = {
    "click": "cli",
    "cryptography": "pki",
    "google": "client",
    "grpc": "client",
    "grpc_health": "server",
    "grpc_reflection": "server",
    "h11": "server",
    "jinja2": "console",
    "numpy": "numpy",
    "opentelemetry": "otel",
    "prometheus_client": "metrics",
    "prompt_toolkit": "cli",
    "rich": "cli",
    "starlette": "console",
    "structlog": "server",
    "textual": "cli",
    "uvicorn": "console",
    "uvloop": "server",
}


def install_line(extra: str) -> str:
    """Return the command that installs an extra."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"


def missing_package(who: str, error: ModuleNotFoundError, extra: str | None = None) -> str | None:
    """Return the line that says what ``who`` needs; None where no extra brings what is missing.

    ``extra`` is the one that brings all that ``who`` needs; without it the package's own.
    """
    package = (error.name or "").partition(".")[0]
    if package not in _EXTRAS:
        return None
    return f"{who} needs the {package!r} package: {install_line(extra or _EXTRAS[package])}"
