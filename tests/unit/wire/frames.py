"""HTTP/2 frames by hand (RFC 9113), for what no session of ours would send."""

from __future__ import annotations

from collections.abc import Iterable

PATHS = ("/kvstore.v1.KV/Put", "/kvstore.v1.KV/Get", "/kvstore.v1.KV/Delete")

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED = 1, 1, 4, 8

Field = tuple[str | bytes, str | bytes]


def frame(kind: int, stream: int, payload: bytes = b"", flags: int = 0) -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")
    return head + payload


def _integer(number: int, bits: int) -> bytes:
    """An HPACK integer with nothing but zeros before it (RFC 7541, 5.1)."""
    most = (1 << bits) - 1
    if number < most:
        return bytes((number,))
    number -= most
    encoded = bytearray((most,))
    while number >= 128:
        encoded.append(number & 127 | 128)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def block(fields: Iterable[Field]) -> bytes:
    """A header block of literals that go into no table."""
    encoded = b""
    for pair in fields:
        encoded += b"\0"
        for text in pair:
            data = text.encode() if isinstance(text, str) else text
            encoded += _integer(len(data), 7) + data
    return encoded


def request(path: str = PATHS[1], *more: Field, without: str = "") -> list[Field]:
    fields: list[Field] = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "a"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ]
    names = {name for name, _ in more}
    pseudo = [pair for pair in more if str(pair[0]).startswith(":")]
    rest = [pair for pair in more if not str(pair[0]).startswith(":")]
    kept = [pair for pair in fields if pair[0] not in names and pair[0] != without]
    return [
        *pseudo,
        *(pair for pair in kept if str(pair[0]).startswith(":")),
        *(pair for pair in kept if not str(pair[0]).startswith(":")),
        *rest,
    ]


def headers(stream: int, fields: Iterable[Field], *, flags: int = END_HEADERS) -> bytes:
    return frame(HEADERS, stream, block(fields), flags)


def message(data: bytes, *, flag: int = 0, declared: int | None = None) -> bytes:
    """gRPC's framing of one message."""
    size = len(data) if declared is None else declared
    return bytes((flag,)) + size.to_bytes(4, "big") + data


def frames_of(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """Kind, stream, flags and payload of each frame."""
    found = []
    while data:
        size = int.from_bytes(data[:3], "big")
        stream = int.from_bytes(data[5:9], "big") & 0x7FFFFFFF
        found.append((data[3], stream, data[4], data[9 : 9 + size]))
        data = data[9 + size :]
    return found
