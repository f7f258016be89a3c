"""Who may do what, for every call of etcd's API (specification of etcd, §9).

Writes are judged when they are applied, reads where they are read; what else there is, is judged
here, before its handler is asked: by the method alone, and for root unless it is listed. Streams of
watches go on to be judged whenever users change. While users aren't asked for each of these costs
a look at a flag.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable
from typing import Any, Final, Protocol

from kvstore.api.etcd.methods import MethodShape
from kvstore.api.handlers.etcd.auth_callers import Caller, caller_of
from kvstore.errors import Error
from kvstore.etcd_errors import EtcdError, Reason
from kvstore.service.etcd.auth_tokens import Tokens, read_token
from kvstore.service.etcd.member import Answers, Listener, Model
from kvstore.state.mvcc.auth import Auth
from kvstore.state.mvcc.requests import Authenticated

__all__ = ["Allowed", "Gate", "Lasting", "Permit", "Service", "is_root", "is_user", "unreadable"]

Permit = Callable[[Auth], None]
"""Raises EtcdError where a call may not be done by its caller. Any thread."""

Allowed = Callable[[Auth, str], None]
"""(users, user): raises EtcdError for what that user may not do. Any thread."""


class _Need(enum.Enum):
    """Whom a method is for."""

    OWN = enum.auto()
    """For whom is decided where it is done."""
    USER = enum.auto()
    ROOT = enum.auto()


_NEEDS: Final = {
    "/etcdserverpb.Cluster/MemberList": _Need.USER,
    "/etcdserverpb.Maintenance/Status": _Need.USER,
    "/etcdserverpb.Maintenance/Alarm": _Need.USER,  # raising and ending one: when it is applied
}

_DECIDE_THEMSELVES: Final = frozenset(
    (
        "etcdserverpb.Auth",
        "etcdserverpb.KV",
        "etcdserverpb.Lease",
        "etcdserverpb.Watch",
        "v3electionpb.Election",
        "v3lockpb.Lock",
    )
)
"""Services of which each method does."""


class Service(Protocol):
    """What it needs of a :class:`kvstore.service.etcd.EtcdService`."""

    @property
    def machine(self) -> Model | None: ...
    def listen(self, listener: Listener) -> None: ...
    def read_point(self, deadline: float | None, done: Callable[[Error | None], None]) -> None: ...


class Lasting:
    """A call that is judged again whenever what its caller may do has changed."""

    __slots__ = ("_gate", "_judged", "_look", "caller")

    def __init__(self, gate: Gate, caller: Caller, look: Callable[[Auth], None]) -> None:
        """``look`` is called with what users there are then."""
        self._gate = gate
        self._look = look
        self._judged: object = None
        self.caller = caller

    def look(self, auth: Auth) -> None:
        """Look at it again, unless its caller's roles are what they were."""
        judged = _standing_of(self.caller, auth)
        if judged != self._judged:
            self._judged = judged
            self._look(auth)

    def end(self) -> None:
        """It has ended."""
        self._gate.forget(self)


def _standing_of(caller: Caller, auth: Auth) -> object:
    """What differs whenever a caller may do something else."""
    if not auth.enabled:
        return None
    try:
        name = caller.user(auth)
    except EtcdError as error:
        return error.reason
    user = auth.users.get(name)
    if user is None:
        return Reason.PERMISSION_DENIED
    return user.roles, [auth.roles.get(role) for role in user.roles]


class Gate:
    """Lets calls through, or not. On a running event loop."""

    def __init__(self, service: Service, tokens: Tokens) -> None:
        self._service = service
        self.tokens = tokens
        self._catching_up: asyncio.Future[Error | None] | None = None
        self._lasting: set[Lasting] = set()
        self._auth: Auth | None = None
        service.listen(self)

    @property
    def auth(self) -> Auth | None:
        """The users, as the local member has them; None while there is none."""
        machine = self._service.machine
        return None if machine is None else machine.auth

    def caller(self, context: Any) -> Caller:
        """Who calls."""
        return caller_of(context, self.tokens)

    # --- calls -----------------------------------------------------------------------------------

    async def admit(self, shape: MethodShape, context: Any) -> None:
        """Raise EtcdError for a call that isn't to reach its handler."""
        if shape.service in _DECIDE_THEMSELVES:
            return
        need = _NEEDS.get(shape.path, _Need.ROOT)
        auth = self.auth
        if auth is None:
            raise EtcdError(Reason.NO_LEADER)  # nor anybody who could be asked about users
        if auth.enabled:
            await self.require(context, is_root if need is _Need.ROOT else is_user)

    async def require(self, context: Any, allowed: Allowed) -> None:
        """Raise EtcdError unless the caller is allowed it, by the users that this member has."""
        auth = await self.users()
        if auth.enabled:
            caller = self.caller(context)
            auth = await self.known(caller)
            allowed(auth, caller.user(auth))

    def or_root(self, allows: Callable[[Any], bool]) -> Callable[[Any], bool]:
        """Whether ``allows`` allows a call; once users are asked for, whether it is root's."""

        def may(context: Any) -> bool:
            auth = self.auth
            if auth is None or not auth.enabled:
                return allows(context)
            try:
                return auth.is_root(self.caller(context).user(auth))
            except EtcdError:
                return False

        return may

    async def users(self) -> Auth:
        """The users that this member has, once it has any: while it starts nobody can tell whether
        they are asked for. Raises EtcdError."""
        if self.auth is None:
            await self._catch_up()
        auth = self.auth
        if auth is None:
            raise EtcdError(Reason.NO_LEADER)
        return auth

    async def who(self, context: Any, caller: Caller | None = None) -> Authenticated | None:
        """Who makes a proposal; None while users aren't asked for. Raises EtcdError."""
        auth = self.auth
        if auth is None or not auth.enabled:
            return None
        if caller is None:
            caller = self.caller(context)
        return caller.who(await self.known(caller))

    def permit(self, context: Any, allowed: Allowed, caller: Caller | None = None) -> Permit:
        """What judges a read by the users that there are when it is read."""
        asking = self.caller(context) if caller is None else caller

        def permit(auth: Auth) -> None:
            if auth.enabled:
                allowed(auth, asking.user(auth))

        return permit

    async def known(self, caller: Caller) -> Auth:
        """The users that this member has, once they are as new as the caller's token."""
        auth = self.auth
        if caller.identity.token is not None:
            token = read_token(caller.identity.token)
            if token is not None and auth is not None and token.auth_revision > auth.revision:
                await self._catch_up()
                auth = self.auth
        if auth is None:
            raise EtcdError(Reason.NO_LEADER)
        return auth

    async def _catch_up(self) -> None:
        """Return once what was acknowledged before is applied here. All share one question: anybody
        can write a token that says that it is new."""
        future = self._catching_up
        if future is None:
            future = self._catching_up = asyncio.get_running_loop().create_future()

            def done(error: Error | None, future: asyncio.Future[Error | None] = future) -> None:
                self._catching_up = None
                future.set_result(error)

            self._service.read_point(None, done)
        error = await asyncio.shield(future)
        if error is not None:
            raise error

    def check_read(self, caller: Caller, key: bytes) -> None:
        """Raise EtcdError where a caller may not read a key now, as far as this member knows."""
        auth = self.auth
        refused = None if auth is None else unreadable(auth, caller, key, b"")
        if refused is not None:
            raise refused

    # --- calls that last -------------------------------------------------------------------------

    def keep(self, caller: Caller, look: Callable[[Auth], None]) -> Lasting:
        """Have ``look`` called whenever what ``caller`` may do may have changed, until it ends."""
        lasting = Lasting(self, caller, look)
        self._lasting.add(lasting)
        return lasting

    def forget(self, lasting: Lasting) -> None:
        """It has ended."""
        self._lasting.discard(lasting)

    def applied(self, answers: Answers, revision: int) -> None:
        """The local member has applied a slice."""
        self._look()

    def installed(self) -> None:
        """The local member's state is another one."""
        self._look()

    def _look(self) -> None:
        auth = self.auth
        if auth is None or auth is self._auth:
            return
        self._auth = auth
        for lasting in [*self._lasting]:
            lasting.look(auth)


def unreadable(auth: Auth, caller: Caller, key: bytes, range_end: bytes) -> EtcdError | None:
    """Why a caller may not read a range; None: it may."""
    if not auth.enabled:
        return None
    try:
        user = caller.user(auth)
    except EtcdError as error:
        return error
    if auth.may_read(user, key, range_end):
        return None
    return EtcdError(Reason.PERMISSION_DENIED)


def is_root(auth: Auth, user: str) -> None:
    """An :data:`Allowed`: for root alone."""
    if not auth.is_root(user):
        raise EtcdError(Reason.PERMISSION_DENIED)


def is_user(auth: Auth, user: str) -> None:
    """An :data:`Allowed`: for any user that there is; a certificate may name somebody else."""
    if user not in auth.users:
        raise EtcdError(Reason.PERMISSION_DENIED)
