"""Connection strings: what a client is told, in one line.

``kv://[USER[:PASSWORD]@]HOST[:PORT][,HOST[:PORT]…][/][?NAME=VALUE[&…]]``, or ``kv:///PATH?…`` for a
socket of this machine. What stands for itself in no URL is written ``%XX``, a password's ``@``,
``/`` and ``?`` among it. No message here says anything of what may be a password.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import unquote, unquote_to_bytes

from kvstore.addresses import HostPort
from kvstore.client.channels import Transport, checked_transport
from kvstore.client.options import DEFAULT_PORT, TLS, parse_addresses
from kvstore.errors import ConfigurationError

__all__ = ["Target", "described", "is_url", "parse_url", "target_of"]

T = TypeVar("T")

SCHEME: Final = "kv"

_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>.*)", re.DOTALL)
_ESCAPED = re.compile(r"(?:[^%]|%[0-9A-Fa-f]{2})*", re.DOTALL)
_SECONDS = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?)(?P<unit>ms|s|m)?")
_ESCAPE_LOGIN = "in a user's name or password @, / and ? are written %40, %2F and %3F"
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, None: 1.0}


@dataclass(frozen=True, slots=True)
class Target:
    """What a connection string says; None where it says nothing."""

    addresses: tuple[str, ...]
    tls: TLS | None = None
    timeout: float | None = None
    namespace: bytes | None = None
    transport: Transport | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)


_GIVEN: Final = tuple(one.name for one in fields(Target) if one.name != "addresses")


def is_url(text: str) -> bool:
    """Whether it is a URL, of whatever scheme, and not a list of addresses."""
    return _URL.fullmatch(text.strip()) is not None


def target_of(addresses: str | Sequence[str], given: Target) -> Target:
    """What a client is told by ``addresses``, which may be a connection string, and by arguments.

    What is ``given`` counts, whatever the string says. Raises ConfigurationError.
    """
    said = given
    if isinstance(addresses, str) and is_url(addresses):
        said = parse_url(addresses)
        addresses = said.addresses
    return Target(
        tuple(parse_addresses(addresses)),
        **{
            name: getattr(said, name) if getattr(given, name) is None else getattr(given, name)
            for name in _GIVEN
        },
    )


def parse_url(text: str) -> Target:
    """What a connection string says. Raises ConfigurationError."""
    match = _URL.fullmatch(text.strip())
    if match is None or match["scheme"].lower() != SCHEME:
        scheme = "no scheme" if match is None else f"the scheme {match['scheme']!r}"
        raise _wrong(f"it has {scheme}; expected kv://host:port,host2:port/?name=value")
    rest, _, query = match["rest"].partition("?")
    if "#" in rest or "#" in query:
        raise _wrong("a # is written %23")
    authority, slash, path = rest.partition("/")
    login, at, hosts = authority.rpartition("@")
    if "@" in path or (at and not hosts):
        raise _wrong(_ESCAPE_LOGIN)
    if path and hosts:
        raise _wrong("a path has no meaning after hosts; a namespace is given by ?namespace=")
    if not _ESCAPED.fullmatch(match["rest"]):
        raise _wrong("a % begins %XX, and stands for itself as %25")
    settings = _settings(query)
    user, password = _login(login, settings) if at else (None, None)
    if user is None:
        user = _taken(settings, "user", str)
    if "password-file" in settings:
        if password is not None:
            raise _wrong("a password and password-file, of which one is enough")
        password = _taken(settings, "password-file", _first_line)
    return Target(
        _addresses(hosts) if hosts else _socket(slash + path),
        tls=_tls(settings),
        timeout=_taken(settings, "timeout", _seconds),
        namespace=_taken(settings, "namespace", unquote_to_bytes),
        transport=_taken(settings, "transport", checked_transport),
        user=user,
        password=password,
    )


PARAMETERS: Final = (
    "namespace",
    "password-file",
    "timeout",
    "tls",
    "tls-ca",
    "tls-cert",
    "tls-key",
    "tls-server-name",
    "transport",
    "user",
)


def described(client: object, target: Target, *, closed: bool) -> str:
    """What a client's ``repr`` says: never a password."""
    said = [f"{type(client).__name__} {','.join(target.addresses)}"]
    if target.namespace:
        said.append(f"namespace={target.namespace!r}")
    if target.user is not None:
        said.append(f"user={target.user!r}")
    return f"<{' '.join(said)}{' closed' if closed else ''}>"


def _settings(query: str) -> dict[str, str]:
    """Each parameter's value, still escaped."""
    settings: dict[str, str] = {}
    for part in filter(None, query.split("&")):
        written, equals, value = part.partition("=")
        name = unquote(written).lower().replace("_", "-")
        if name not in PARAMETERS:
            raise _unknown(unquote(written))
        if name in settings:
            raise _wrong(f"{name} is given twice")
        if not equals or (not value and name != "namespace"):
            raise _wrong(f"{name} has no value")
        settings[name] = value
    return settings


def _unknown(name: str) -> ConfigurationError:
    if "@" in name:
        return _wrong(_ESCAPE_LOGIN)
    if name.lower() in ("password", "passwd", "pwd"):
        return _wrong(
            "a password goes before the host (user:password@host) or in a file (password-file=)"
        )
    nearest = difflib.get_close_matches(name.lower().replace("_", "-"), PARAMETERS, 1, 0.5)
    advice = f"did you mean {nearest[0]!r}?" if nearest else f"there are {', '.join(PARAMETERS)}"
    return _wrong(f"unknown parameter {name!r}; {advice}")


def _taken(settings: dict[str, str], name: str, make: Callable[[str], T]) -> T | None:
    value = settings.get(name)
    if value is None:
        return None
    return make(value if make is unquote_to_bytes else unquote(value))


def _login(login: str, settings: dict[str, str]) -> tuple[str, str | None]:
    if "user" in settings:
        raise _wrong("a user before the host, and one by user=, of which one is enough")
    name, colon, password = login.partition(":")
    if not name:
        raise _wrong("a password has no user before it")
    return unquote(name), unquote(password) if colon else None


def _first_line(path: str) -> str:
    try:
        lines = Path(path).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise _wrong(f"password-file {path}: {why}") from None
    if not lines or not lines[0]:
        raise _wrong(f"password-file {path}: its first line is empty")
    return lines[0]


def _seconds(text: str) -> float:
    match = _SECONDS.fullmatch(text)
    seconds = float(match["number"]) * _UNITS[match["unit"]] if match else 0.0
    if not seconds:
        raise _wrong(f"timeout={text} is no positive number of seconds, as 10, 2.5s or 500ms")
    return seconds


def _tls(settings: dict[str, str]) -> TLS | None:
    wanted = _taken(settings, "tls", str)
    if wanted not in (None, "true", "false"):
        raise _wrong(f"tls={wanted} is neither true nor false")
    ca = _taken(settings, "tls-ca", str)
    cert = _taken(settings, "tls-cert", str)
    key = _taken(settings, "tls-key", str)
    server_name = _taken(settings, "tls-server-name", str)
    given = [name for name in settings if name.startswith("tls-")]
    if wanted == "false" and given:
        raise _wrong(f"tls=false, but {given[0]} is given")
    if wanted != "true" and not given:
        return None
    return TLS(ca=ca, cert=cert, key=key, server_name=server_name)


def _addresses(hosts: str) -> tuple[str, ...]:
    return tuple(_address(unquote(host.strip())) for host in hosts.split(","))


def _address(host: str) -> str:
    if HostPort.parse(host) is not None:
        return host
    alone = f"{host}:{DEFAULT_PORT}"
    if HostPort.parse(alone) is not None:
        return alone
    if host.count(":") > 1 and HostPort.parse(f"[{host}]:{DEFAULT_PORT}") is not None:
        raise _wrong(f"an address of IPv6 stands in brackets: [{host}]:{DEFAULT_PORT}")
    # What comes after a colon may be a password that lacks its host.
    raise _wrong(f"malformed server address {host.partition(':')[0]!r}; expected host:port")


def _socket(path: str) -> tuple[str, ...]:
    if path.strip("/"):
        return (f"unix:{unquote(path)}",)
    raise _wrong("it has no host")


def _wrong(why: str) -> ConfigurationError:
    return ConfigurationError(f"connection string: {why}")
