"""From when until when certificates hold, read from their DER without a library (RFC 5280 §4.1)."""

from __future__ import annotations

import base64
import datetime
import re

from kvstore.errors import ConfigurationError

__all__ = ["not_after", "validities"]

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)


def not_after(pem: bytes) -> datetime.datetime:
    """When the first certificate in ``pem`` ends. Raises ConfigurationError when there is none."""
    return validities(pem)[0][1]


def validities(pem: bytes) -> list[tuple[datetime.datetime, datetime.datetime]]:
    """Begin and end of each certificate in ``pem``, at least one.

    Raises ConfigurationError when there is none, or one that can't be read.
    """
    try:
        periods = [_validity(base64.b64decode(match[1])) for match in _PEM.finditer(pem)]
        if not periods:
            raise ValueError("no certificate")
    except (ValueError, IndexError) as error:
        raise ConfigurationError(f"not a certificate in PEM form: {error}") from error
    return periods


def _validity(der: bytes) -> tuple[datetime.datetime, datetime.datetime]:
    body = _element(_element(der, 0)[1], 0)[1]
    at = 0
    # version [0], serial number, signature, issuer, validity
    fields = 4 if body[0] == 0xA0 else 3
    for _ in range(fields):
        at = _element(body, at)[2]
    validity = _element(body, at)[1]
    begin_tag, begin, at = _element(validity, 0)
    end_tag, end, _ = _element(validity, at)
    return _moment(begin_tag, begin), _moment(end_tag, end)


def _moment(tag: int, digits: bytes) -> datetime.datetime:
    text = digits.decode("ascii")
    # UTCTime counts years from 1950 to 2049, as strptime's %y doesn't.
    if tag == 0x17:
        text = ("19" if text >= "50" else "20") + text
    return datetime.datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=datetime.UTC)


def _element(data: bytes, at: int) -> tuple[int, bytes, int]:
    """The DER element at ``at``: tag, contents and where the next one begins."""
    tag, length, start = data[at], data[at + 1], at + 2
    if length >= 0x80:
        size = length & 0x7F
        length = int.from_bytes(data[start : start + size], "big")
        start += size
    if start + length > len(data):
        raise ValueError("ends early")
    return tag, data[start : start + length], start + length
