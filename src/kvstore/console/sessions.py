"""Who looks: sessions of browsers, bounded and expiring, and what proves that a form is ours.

Guests, of a cluster that asks nobody, hold nothing here: all there is of them is their cookie.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
from collections import Counter
from collections.abc import Callable

from kvstore.client import AsyncClient
from kvstore.console.cluster import Cluster
from kvstore.console.failures import Failures
from kvstore.errors import DeadlineExceededError, Error, PermissionDeniedError, UnavailableError

__all__ = ["Session", "Sessions"]

SESSIONS_MAX = 64
# Of one user; for one more the one that was unused for longest ends.
SESSIONS_OF_USER_MAX = 8
IDLE_S = 30 * 60.0
LIFE_S = 12 * 3600.0

# Logins under way at one time.
LOGINS_MAX = 4

# What says nothing of a password.
AWAY = (UnavailableError, DeadlineExceededError)

ROOT_ROLE = "root"


class Session:
    """One browser. ``user`` None: a guest, or whoever started the console (``owner``)."""

    __slots__ = ("born", "client", "id", "owner", "roles", "used", "user")

    def __init__(
        self,
        client: AsyncClient,
        *,
        sid: str,
        user: str | None = None,
        roles: tuple[str, ...] = (),
        owner: bool = False,
        now: float = 0.0,
    ) -> None:
        self.id = sid
        self.client = client
        self.user = user
        self.roles = roles
        self.owner = owner
        self.born = self.used = now

    @property
    def guest(self) -> bool:
        return self.user is None and not self.owner

    @property
    def name(self) -> str:
        """For people and the audit log."""
        return self.user or ("(owner)" if self.owner else "(nobody)")


class Sessions:
    """Those of one console. For one loop."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        lends_rights: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster = cluster
        self._clock = clock
        self._secret = secrets.token_bytes(32)
        self._sessions: dict[str, Session] = {}
        self._failures = Failures(clock)
        self._logins = asyncio.Semaphore(LOGINS_MAX)
        self.key = secrets.token_urlsafe(24) if lends_rights else None
        """What whoever started the console was told, for it has rights that others have not."""

    def find(self, sid: str | None) -> Session | None:
        """The session of a cookie; a guest where everybody may look; None: to be logged in."""
        now = self._clock()
        session = self._sessions.get(sid or "")
        if session is not None and not self._expired(session, now):
            session.used = now
            return session
        if self.key is not None or self._cluster.asks_for_users:
            return None
        known = sid is not None and self._genuine(sid)
        return Session(self._cluster.client, sid=sid if known and sid else self._new_id())

    async def log_in(self, user: str, password: str, place: str) -> Session:
        """As a user of the store, from an address. Raises UnauthenticatedError, OverloadedError,
        and as calls do."""
        self._failures.check(place, user)
        async with self._logins:
            client = self._cluster.client_of(user, password)
            try:
                roles = await client.auth.roles_of(user)
            except BaseException as error:
                await client.close()
                if isinstance(error, Error) and not isinstance(error, AWAY):
                    self._failures.add(place, user)
                raise
        return await self._begin(client, user=user, roles=tuple(roles))

    async def log_in_owner(self, key: str) -> Session:
        """With what the console said when it was started. Raises PermissionDeniedError."""
        if self.key is None or not hmac.compare_digest(key.encode(), self.key.encode()):
            raise PermissionDeniedError("that is not the key that the console printed")
        return await self._begin(self._cluster.client_of(None, None), owner=True)

    async def _begin(
        self,
        client: AsyncClient,
        *,
        user: str | None = None,
        roles: tuple[str, ...] = (),
        owner: bool = False,
    ) -> Session:
        await self.expire()
        ends = self._one_to_end(user)
        session = Session(
            client, sid=self._new_id(), user=user, roles=roles, owner=owner, now=self._clock()
        )
        self._sessions[session.id] = session
        if ends is not None:
            await self.end(ends)
        return session

    def _one_to_end(self, user: str | None) -> Session | None:
        """For one more: of this user where that one has many, else of whoever has most."""
        count = Counter(one.user for one in self._sessions.values())
        if count[user] < SESSIONS_OF_USER_MAX:
            if len(self._sessions) < SESSIONS_MAX:
                return None
            most = max(count.values())
            users = {one for one, has in count.items() if has == most}
        else:
            users = {user}
        theirs = [one for one in self._sessions.values() if one.user in users]
        return min(theirs, key=lambda one: one.used)

    async def end(self, session: Session) -> None:
        """Log out."""
        if self._sessions.pop(session.id, None) is not None:
            await session.client.close()

    async def expire(self) -> None:
        """End those that are over."""
        now = self._clock()
        for session in [one for one in self._sessions.values() if self._expired(one, now)]:
            await self.end(session)

    async def close(self) -> None:
        for session in [*self._sessions.values()]:
            await self.end(session)

    async def may_operate(self, session: Session) -> bool:
        """Whether it may have the console do what a cluster's operators may. Raises as calls do."""
        if session.owner:
            return True
        if session.user is not None:
            # Asked anew: it may have lost the role since it logged in.
            return ROOT_ROLE in await session.client.auth.roles_of(session.user)
        return session.guest and self.key is None and not await self._cluster.learn_users()

    def csrf_of(self, session: Session) -> str:
        """What each form of a session has in it, and no other site can know."""
        return self._mac(b"csrf", session.id)

    def is_ours(self, session: Session, token: str) -> bool:
        return hmac.compare_digest(token.encode("utf-8", "replace"), self.csrf_of(session).encode())

    def _expired(self, session: Session, now: float) -> bool:
        return now - session.used > IDLE_S or now - session.born > LIFE_S

    def _new_id(self) -> str:
        random = secrets.token_urlsafe(24)
        return f"{random}.{self._mac(b'id', random)}"

    def _genuine(self, sid: str) -> bool:
        random, _, mac = sid.partition(".")
        return hmac.compare_digest(
            mac.encode("utf-8", "replace"), self._mac(b"id", random).encode()
        )

    def _mac(self, what: bytes, text: str) -> str:
        message = what + b"\0" + text.encode("utf-8", "replace")
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest()
