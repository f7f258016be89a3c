"""Bytes for people: keys and values as text, JSON, hexadecimal or base64, and in links."""

from __future__ import annotations

import base64
import binascii
import datetime
import json
from typing import Final, NamedTuple

from kvstore.errors import InvalidArgumentError

__all__ = [
    "ENCODINGS",
    "VIEWS",
    "View",
    "decode",
    "duration",
    "editable",
    "encode",
    "from_link",
    "in_link",
    "label",
    "size",
    "view_of",
]

VIEWS: Final = ("text", "json", "hex", "base64")
ENCODINGS: Final = ("text", "hex", "base64")

# Of a value that is shown; the whole of it is there to be downloaded.
SHOWN_BYTES: Final = {"text": 64 << 10, "json": 256 << 10, "hex": 8 << 10, "base64": 48 << 10}

HEX_ROW: Final = 16


def in_link(key: bytes) -> str:
    """A key as part of a link: any bytes, and nothing that a link gives a meaning to."""
    return base64.urlsafe_b64encode(key).decode().rstrip("=")


def from_link(text: str) -> bytes:
    """The key. Raises InvalidArgumentError."""
    try:
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        return base64.b64decode(padded, altchars=b"-_", validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise InvalidArgumentError("the link has no key in it") from None


def label(key: bytes) -> str:
    """Text for one line: what isn't printable, or isn't UTF-8, is escaped."""
    text = key.decode("utf-8", "backslashreplace")
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def decode(text: str, encoding: str) -> bytes:
    """What somebody typed. Raises InvalidArgumentError."""
    try:
        match encoding:
            case "text":
                return text.encode("utf-8")
            case "hex":
                return bytes.fromhex(text)
            case "base64":
                return base64.b64decode("".join(text.split()), validate=True)
    except (UnicodeEncodeError, ValueError):
        raise InvalidArgumentError(f"that is not {encoding}") from None
    raise InvalidArgumentError(f"there is no encoding {encoding!r}")


def encode(value: bytes, encoding: str) -> str:
    """The same back. Raises InvalidArgumentError where a value isn't text."""
    match encoding:
        case "hex":
            return value.hex()
        case "base64":
            return base64.b64encode(value).decode()
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidArgumentError("the value is not text") from None


def editable(value: bytes) -> str:
    """The encoding in which a form can hold a value without changing a byte of it: browsers send
    each end of a line as CR LF, and can't hold zeros."""
    if b"\r" in value or b"\0" in value:
        return "base64"
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return "base64"
    return "text"


class View(NamedTuple):
    """``text`` to be shown; ``shown``: bytes of the value that it stands for; ``note``: what else
    is to be said."""

    kind: str
    text: str
    shown: int
    note: str = ""


def view_of(value: bytes, kind: str | None) -> View:
    """A value as it is to be shown; without ``kind`` as what it looks like."""
    if kind not in VIEWS:
        kind = "text" if editable(value[: SHOWN_BYTES["text"]]) == "text" else "hex"
    part = value[: SHOWN_BYTES[kind]]
    match kind:
        case "json":
            return _as_json(value, part)
        case "hex":
            return View(kind, _rows(part), len(part))
        case "base64":
            return View(kind, base64.b64encode(part).decode(), len(part))
        case _:
            text = part.decode("utf-8", "backslashreplace")
            return View(kind, "".join(map(_shown, text)), len(part))


def _as_json(value: bytes, part: bytes) -> View:
    if len(value) > len(part):
        note = "too large to be shown as JSON"
    else:
        try:
            text = json.dumps(json.loads(value), indent=2, ensure_ascii=False)
            return View("json", "".join(map(_shown, text)), len(value))
        except (ValueError, RecursionError):
            note = "this is not JSON"
    plain = view_of(value, "text")
    return View("json", plain.text, plain.shown, note)


def _shown(character: str) -> str:
    if character.isprintable() or character in "\n\t":
        return character
    return character.encode("unicode_escape").decode()


def _rows(data: bytes) -> str:
    rows = []
    for start in range(0, len(data), HEX_ROW):
        row = data[start : start + HEX_ROW]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        rows.append(f"{start:08x}  {row.hex(' '):<{3 * HEX_ROW - 1}}  {text}")
    return "\n".join(rows)


def size(count: int) -> str:
    """Bytes, as people say them."""
    number = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if number < 1024 or unit == "TiB":
            return f"{count} B" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    raise AssertionError


def duration(seconds: float) -> str:
    """A time, to the second; below one, in milliseconds."""
    if 0 <= seconds < 1:
        return f"{seconds * 1000:.1f} ms"
    return str(datetime.timedelta(seconds=round(seconds)))
