"""Tokens: what a client shows in place of its password once it has authenticated.

A token is signed and kept nowhere: any member can tell whether it is genuine, right after a restart
too. The key of the signature is replicated, drawn anew whenever users begin to be asked for, and
what is signed includes the user's password as it is kept (salted and hashed): so a token is void
once users aren't asked for any more, once its user is deleted, made anew or has another password,
and nobody needs to be told. It says nothing of what the user may do, which is looked up in each
call. Its bytes, which stand in URL-safe base64 without padding::

    0   u8   version (1)
    1   u64  when it was made, in milliseconds since 1970
    9   u64  revision of the users at that time
    17  8 bytes at random
    25  ...  the user's name
        32 bytes HMAC-SHA256 of all before it and of the kept password

It lasts for TOKEN_TTL_S, and at a member at which it is used for so long after its last use there,
as etcd's do. What members' clocks differ by is added to the former, or taken off.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import struct
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, Protocol

from kvstore.etcd_errors import EtcdError, Reason

__all__ = ["TOKEN_TTL_S", "Token", "Tokens", "Users", "new_tokens", "read_token"]

TOKEN_TTL_S: Final = 300.0

TOKEN_CHARACTERS_MAX: Final = 4096
"""A longer one is none of ours."""

USED_MAX: Final = 50_000
"""Tokens whose last use a member remembers; beyond it, it forgets what was used longest ago."""

_HEAD: Final = struct.Struct(">BQQ8s")
_VERSION: Final = 1
_MAC_BYTES: Final = 32
_DOMAIN: Final = b"kvstore token 1\0"
_RANDOM_BYTES: Final = 8


class _User(Protocol):
    @property
    def password_hash(self) -> bytes: ...


class Users(Protocol):
    """Users as of one moment (:class:`kvstore.state.mvcc.auth.Auth`)."""

    @property
    def revision(self) -> int: ...
    @property
    def token_key(self) -> bytes: ...
    @property
    def users(self) -> Mapping[str, _User]: ...


class Token(NamedTuple):
    """What stands in a token, whoever made it."""

    user: str
    made_ms: int
    auth_revision: int
    signed: bytes
    mac: bytes


def read_token(text: str) -> Token | None:
    """Take a token apart; None for what is none."""
    if len(text) > TOKEN_CHARACTERS_MAX:
        return None
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        signed, mac = data[:-_MAC_BYTES], data[-_MAC_BYTES:]
        version, made_ms, auth_revision, _ = _HEAD.unpack_from(signed)
        user = signed[_HEAD.size :].decode()
    except (ValueError, binascii.Error, struct.error):
        return None
    if version != _VERSION or not user:
        return None
    return Token(user, made_ms, auth_revision, signed, mac)


class _Use:
    """A genuine token's: for which users it was found to be that, and when it was last shown."""

    __slots__ = ("at", "user", "users")

    def __init__(self, user: str, users: Users, at: float) -> None:
        self.user = user
        self.users = users
        self.at = at


class Tokens:
    """Makes tokens and judges them, for one process. Any thread."""

    def __init__(
        self,
        *,
        now: Callable[[], float],
        clock: Callable[[], float],
        draw: Callable[[int], bytes],
        used_max: int = USED_MAX,
    ) -> None:
        """``now``: the monotonic clock, ``clock``: that of the world, both in seconds. ``draw``
        gives random bytes."""
        self._now = now
        self._clock = clock
        self._draw = draw
        self._used_max = used_max
        self._lock = threading.Lock()
        # By token, the one that was shown longest ago first.
        self._used: OrderedDict[str, _Use] = OrderedDict()

    def make(self, user: str, users: Users) -> str:
        """A token for ``user``, who is one of ``users``."""
        made_ms = int(self._clock() * 1000)
        head = _HEAD.pack(_VERSION, made_ms, users.revision, self._draw(_RANDOM_BYTES))
        signed = head + user.encode()
        mac = _mac(signed, users, user)
        return base64.urlsafe_b64encode(signed + mac).rstrip(b"=").decode()

    def user_of(self, text: str, users: Users) -> str:
        """Whose token it is. Raises EtcdError, INVALID_AUTH_TOKEN, for one that isn't good, or not
        any more."""
        now = self._now()
        with self._lock:
            use = self._used.get(text)
            if use is not None and now - use.at < TOKEN_TTL_S and use.users is users:
                use.at = now
                self._used.move_to_end(text)
                return use.user
        token = read_token(text)
        if token is None or not is_genuine(token, users):
            raise EtcdError(Reason.INVALID_AUTH_TOKEN)
        is_in_use = use is not None and now - use.at < TOKEN_TTL_S
        if not is_in_use and self._clock() - token.made_ms / 1000 >= TOKEN_TTL_S:
            raise EtcdError(Reason.INVALID_AUTH_TOKEN)
        self._note(text, _Use(token.user, users, now))
        return token.user

    def _note(self, text: str, use: _Use) -> None:
        with self._lock:
            self._used[text] = use
            self._used.move_to_end(text)
            if len(self._used) > self._used_max:
                self._used.popitem(last=False)


def new_tokens() -> Tokens:
    """By this machine's clocks and its chance."""
    return Tokens(now=time.monotonic, clock=time.time, draw=os.urandom)


def is_genuine(token: Token, users: Users) -> bool:
    """Whether it was made for one of ``users`` as they are, however long ago."""
    user = users.users.get(token.user)
    if user is None or not user.password_hash or not users.token_key:
        return False
    return hmac.compare_digest(token.mac, _mac(token.signed, users, token.user))


def _mac(signed: bytes, users: Users, user: str) -> bytes:
    kept = users.users[user].password_hash
    # The kept password has no fixed size: its own end must not depend on what is before it.
    said = _DOMAIN + len(kept).to_bytes(4, "big") + kept + signed
    return hmac.digest(users.token_key, said, "sha256")
