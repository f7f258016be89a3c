"""Who a call comes from: by its token, by a client's certificate, or by the way it came."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from kvstore.api.metadata_keys import COMMON_NAME_KEY
from kvstore.etcd_errors import EtcdError, Reason
from kvstore.service.etcd.auth_tokens import Tokens
from kvstore.state.mvcc.auth import ROOT, Auth
from kvstore.state.mvcc.requests import Authenticated

__all__ = [
    "TOKEN_KEYS",
    "Caller",
    "Identity",
    "caller_of",
    "forwarded_identity",
    "identity_of",
]

TOKEN_KEYS: Final = ("token", "authorization")

_BEARER: Final = "bearer "

_GATEWAY: Final = "grpcgateway-accept"
"""Metadata of a call that came through a gateway: whoever has called that isn't the owner of the
certificate with which it calls (etcd's own sets this)."""

_COMMON_NAME: Final = "x509_common_name"

Pairs = Iterable[tuple[str, str | bytes]]


class Identity(NamedTuple):
    """What a call says of who makes it. ``token``: as it was shown; ``name``: of the certificate
    that the client proved to have, where it shows no token. Neither: nobody."""

    token: str | None
    name: str = ""


class Caller:
    """Who makes a call, which is found out when it is asked for. Once it was found to be somebody
    it is that until the call ends, however long that lasts, unless the user is deleted or gets
    another password. Any thread."""

    __slots__ = ("_find", "_identity", "_known_by", "_tokens")

    def __init__(self, tokens: Tokens, find: Callable[[], Identity]) -> None:
        self._tokens = tokens
        self._find = find
        self._identity: Identity | None = None
        self._known_by: tuple[str, bytes, bytes] | None = None

    @property
    def identity(self) -> Identity:
        """What the call says."""
        if self._identity is None:
            self._identity = self._find()
        return self._identity

    def user(self, auth: Auth) -> str:
        """Who it is, among the users of ``auth``; a certificate may name one that isn't among them.

        Raises EtcdError: USER_EMPTY for nobody, INVALID_AUTH_TOKEN.
        """
        token, name = self.identity
        if token is None:
            if not name:
                raise EtcdError(Reason.USER_EMPTY)
            return name
        known = self._known_by
        if known is not None:
            name, token_key, password_hash = known
            user = auth.users.get(name)
            if user and user.password_hash == password_hash and auth.token_key == token_key:
                return name
        name = self._tokens.user_of(token, auth)
        self._known_by = name, auth.token_key, auth.users[name].password_hash
        return name

    def who(self, auth: Auth) -> Authenticated | None:
        """For a proposal; None while users aren't asked for. Raises as :meth:`user` does."""
        return Authenticated(self.user(auth), auth.revision) if auth.enabled else None


def caller_of(context: Any, tokens: Tokens) -> Caller:
    """Who calls with ``context``."""

    def find() -> Identity:
        metadata = context.invocation_metadata()
        return identity_of(metadata, context.auth_context(), context.peer())

    return Caller(tokens, find)


def identity_of(
    metadata: Pairs | None, auth_context: Mapping[str, Iterable[bytes]], peer: str
) -> Identity:
    """What a front knows of who calls.

    Whoever comes over the unix socket and shows no token is root: it may be opened by kvd's own
    user alone, who could change the files as well; so a password of root that was lost isn't the
    end.
    """
    token, is_of_gateway = None, False
    for key, value in metadata or ():
        if key in TOKEN_KEYS and token is None:
            token = _bare(value)
        elif key == _GATEWAY:
            is_of_gateway = True
    if token is not None or is_of_gateway:
        return Identity(token)
    if peer.startswith("unix:"):
        return Identity(None, ROOT)
    for name in auth_context.get(_COMMON_NAME, ()):
        return Identity(None, name.decode("utf-8", "replace"))
    return Identity(None)


def forwarded_identity(metadata: Pairs | None) -> Identity:
    """Who has made a call that another member passes on, by what that says of it."""
    token, name = None, ""
    for key, value in metadata or ():
        if key in TOKEN_KEYS and token is None:
            token = _bare(value)
        elif key == COMMON_NAME_KEY and isinstance(value, bytes):
            name = value.decode("utf-8", "replace")
    return Identity(token, name if token is None else "")


def _bare(value: str | bytes) -> str:
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    return text[len(_BEARER) :] if text[: len(_BEARER)].lower() == _BEARER else text
