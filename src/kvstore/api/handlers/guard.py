"""Who may do what by ``kvstore.v1``, once the store has users who are asked for.

A call is judged in the turn in which it is handed to the service, by the users that the member has
which is to do it, and that is the leader's. Should they change before it is done the service
refuses it (docs/architecture.md). While users aren't asked for all this is a look at a flag.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from kvstore.api.handlers.etcd.auth_callers import Caller, caller_of, forwarded_identity
from kvstore.errors import Error
from kvstore.etcd_errors import EtcdError, Reason
from kvstore.service.etcd.auth_tokens import Tokens
from kvstore.service.operations import Delete, Get, Method, Operation, Put
from kvstore.state.mvcc.auth import Auth

__all__ = ["Guard"]

Identify = Callable[[Any, Tokens], Caller]
"""Who calls with a context."""


class Machine(Protocol):
    """A state machine's users."""

    @property
    def auth(self) -> Auth: ...


class Member(Protocol):
    """A replica of this process."""

    @property
    def machine(self) -> Machine: ...


class Guard:
    """Judges calls. One thread."""

    def __init__(
        self,
        find: Callable[[], Member | None],
        route: Callable[[], object | Error],
        tokens: Tokens,
        identify: Identify = caller_of,
    ) -> None:
        """``find``: the replica that does what calls ask for, None while there is none: then
        nothing is done. ``route``: why it wouldn't, as another one leads, or else anything.
        ``identify``: who calls.
        """
        self._find = find
        self._route = route
        self.tokens = tokens
        self._identify = identify

    def of_forwarded(self) -> Guard:
        """The same for calls that other members pass on."""
        return Guard(self._find, self._route, self.tokens, _who_forwarded)

    @property
    def auth(self) -> Auth | None:
        """The users, where they are asked for; None where they aren't."""
        member = self._find()
        if member is None:
            return None
        auth = member.machine.auth
        return auth if auth.enabled else None

    def elsewhere(self) -> Error | None:
        """Why another member is to judge; None: this one does."""
        route = self._route()
        return route if isinstance(route, Error) else None

    def judge(self, auth: Auth, caller: Caller, method: int, key: bytes) -> Error | None:
        """Why a call may not be done; None: it may."""
        try:
            user = caller.user(auth)
        except EtcdError as error:
            return error
        if method == Method.GET:
            may = auth.may_read(user, key, b"")
        elif method == Method.OPEN_SESSION:
            may = user in auth.users
        else:
            may = auth.may_write(user, key, b"")
        return None if may else EtcdError(Reason.PERMISSION_DENIED)

    def refusal(self, operation: Operation, context: Any) -> Error | None:
        """Why ``operation`` isn't to be done; None: it is."""
        auth = self.auth
        if auth is None:
            return None
        elsewhere = self.elsewhere()
        if elsewhere is not None:
            return elsewhere
        caller = self._identify(context, self.tokens)
        match operation:
            case Get(key):
                return self.judge(auth, caller, Method.GET, key)
            case Put(key) | Delete(key):
                return self.judge(auth, caller, Method.PUT, key)
            case _:
                return self.judge(auth, caller, Method.OPEN_SESSION, b"")


def _who_forwarded(context: Any, tokens: Tokens) -> Caller:
    return Caller(tokens, partial(forwarded_identity, context.invocation_metadata()))
