"""What the values in a TOML file may be, and what is said where they aren't.

Each kind takes the key, for the complaint, and the value, and raises :class:`Refused`.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Callable
from typing import Any

from kvstore.addresses import HostPort

__all__ = [
    "Attempt",
    "Refused",
    "address",
    "attempt",
    "boolean",
    "choice",
    "dialled",
    "integer",
    "name",
    "path",
    "refuse_unknown",
    "shown",
    "text",
    "unreadable",
]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class Refused(Exception):
    """What is wrong with a key, without the file's name."""


Attempt = Callable[..., Any]
"""Calls a check and notes what it refuses; its result then is None."""


def attempt(faults: list[str], check: Callable[..., Any], *arguments: Any, **words: Any) -> Any:
    """What ``check`` gives; None where it refuses, and why is noted in ``faults``."""
    try:
        return check(*arguments, **words)
    except Refused as refused:
        faults.append(str(refused))
        return None


def unreadable(path: str, error: OSError | ValueError | RecursionError) -> str:
    """Why the file of ``--config`` says nothing."""
    match error:
        case OSError():
            return f"failed to read --config={path}: {error.strerror or error}"
        case UnicodeDecodeError():
            return f"{path}: not UTF-8 text, as TOML must be: {error}"
        case RecursionError():
            return f"{path}: not valid TOML: it is nested too deeply"
        case tomllib.TOMLDecodeError():
            return f"{path}: not valid TOML: {error}"
        case _:  # Python's own bound on the digits of a number
            return f"{path}: not valid TOML: a number has too many digits"


def refuse_unknown(prefix: str, key: str, known: list[str]) -> None:
    """A misspelt ``tls_profil`` must not turn encryption off in silence."""
    if key in known:
        return
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean {prefix}{near[0]}?" if near else f"expected {', '.join(known)}"
    raise Refused(f"unknown key {prefix}{key}; {hint}")


def text(key: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise Refused(f"{key} = {shown(value)}; it must be a text in quotes, not empty")
    return value


def path(key: str, value: object) -> str:
    said = text(key, value)
    if "\0" in said:
        raise Refused(f"{key} holds a NUL character; it must be the path of a file")
    return said


def name(key: str, value: object) -> str:
    said = text(key, value)
    if not _NAME.fullmatch(said):
        raise Refused(
            f"{key} = {shown(value)}; it must be 1 to 63 letters, digits, '.', '_' or '-', "
            "the first a letter or digit"
        )
    return said


def address(key: str, value: object) -> str:
    said = text(key, value)
    parsed = HostPort.parse(said)
    if parsed is None or parsed.port == 0:
        raise Refused(f'{key} = {shown(value)}; it must be "host:port" with a port from 1 to 65535')
    return said


def dialled(key: str, value: object) -> str:
    said = address(key, value)
    parsed = HostPort.parse(said)
    if parsed is not None and parsed.is_wildcard:
        raise Refused(
            f'{key} = "{said}" can\'t be dialled; give the name or address that others reach it at'
        )
    return said


def boolean(key: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise Refused(f"{key} = {shown(value)}; it must be true or false")
    return value


def integer(low: int, high: int) -> Callable[[str, object], int]:
    def parse(key: str, value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise Refused(f"{key} = {shown(value)}; it must be a number from {low} to {high}")
        return value

    return parse


def choice(*allowed: str) -> Callable[[str, object], str]:
    def parse(key: str, value: object) -> str:
        if not isinstance(value, str) or value not in allowed:
            choices = " or ".join(f'"{choice}"' for choice in allowed)
            raise Refused(f"{key} = {shown(value)}; it must be {choices}")
        return value

    return parse


def shown(value: object) -> str:
    return json.dumps(value, default=str, ensure_ascii=False)
