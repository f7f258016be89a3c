"""Passwords as they are kept: hashed, by whoever takes the call, before anything is proposed.

scrypt (RFC 7914), which Python's own hashlib has, rather than bcrypt: it needs no library of its
own, costs whoever guesses memory beside time, and takes passwords of any length, of which bcrypt
passes over what comes after 72 bytes. What is kept says how it was made::

    scrypt1$<log2 of N>$<r>$<p>$<salt, hexadecimal>$<hash, hexadecimal>

Both functions take some 50 ms of a processor and 16 MiB, and hold no lock meanwhile: they are for
workers, and few of them at a time.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Final

__all__ = ["DECOY", "PASSWORD_BYTES_MAX", "SALT_BYTES", "hash_password", "is_password"]

SALT_BYTES: Final = 16

PASSWORD_BYTES_MAX: Final = 4096
"""Nothing of a longer one is hashed: it is no one's."""

_HASH_BYTES: Final = 32
_LOG_N, _R, _P = 14, 8, 1
_MEMORY_BYTES_MAX: Final = 64 << 20
_KEPT: Final = re.compile(
    rb"scrypt1\$([0-9]{1,2})\$([0-9]{1,2})\$([0-9]{1,2})\$([0-9a-f]{32})\$([0-9a-f]{64})"
)
# What a kept form may cost to look at, whoever wrote it.
_LOG_N_MAX, _R_MAX, _P_MAX = 15, 8, 4


def hash_password(password: bytes, salt: bytes) -> bytes:
    """What is kept of ``password``: never empty. ``salt``: SALT_BYTES, drawn for this alone.

    Raises ValueError for a password of more than PASSWORD_BYTES_MAX.
    """
    if len(salt) != SALT_BYTES:
        raise ValueError(f"a salt of {len(salt)} bytes")
    if len(password) > PASSWORD_BYTES_MAX:
        raise ValueError(f"a password of {len(password)} bytes")
    made = _scrypt(password, salt, _LOG_N, _R, _P)
    return b"scrypt1$%d$%d$%d$%s$%s" % (
        _LOG_N,
        _R,
        _P,
        salt.hex().encode(),
        made.hex().encode(),
    )


def is_password(password: bytes, kept: bytes) -> bool:
    """Whether ``kept`` was made of ``password``. A form that isn't known was made of none."""
    found = _KEPT.fullmatch(kept)
    if found is None or len(password) > PASSWORD_BYTES_MAX:
        return False
    log_n, r, p = map(int, found.groups()[:3])
    if not (0 < log_n <= _LOG_N_MAX and 0 < r <= _R_MAX and 0 < p <= _P_MAX):
        return False
    salt, expected = (bytes.fromhex(each.decode()) for each in found.groups()[3:])
    return hmac.compare_digest(_scrypt(password, salt, log_n, r, p), expected)


def _scrypt(password: bytes, salt: bytes, log_n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(
        password,
        salt=salt,
        n=1 << log_n,
        r=r,
        p=p,
        maxmem=_MEMORY_BYTES_MAX,
        dklen=_HASH_BYTES,
    )


DECOY: Final = b"scrypt1$%d$%d$%d$%s$%s" % (_LOG_N, _R, _P, b"00" * SALT_BYTES, b"00" * _HASH_BYTES)
"""What to compare with where there is no user, or no password: it takes as long, and is made of no
password that anybody knows."""
