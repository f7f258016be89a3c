"""When and where a call is tried: the plan of a call. No I/O here."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence

from kvstore.api.metadata_keys import AGE_KEY, ATTEMPT_KEY
from kvstore.client.failure import Failure
from kvstore.client.options import RetryPolicy
from kvstore.client.retry_budget import RetryBudget
from kvstore.errors import DeadlineExceededError, Error, Outcome, OutcomeUnknownError

# Addresses learnt from leader hints are kept beside those given, up to this many in all.
ADDRESSES_MAX = 64

# Of what can't be repeated a last try begins with so much time, or what the one before took, but
# not with less than that part of all the time that there was.
LAST_TRY_S = 0.5
LAST_TRY_PART = 1 / 8

Metadata = tuple[tuple[str, str], ...]


def seconds_of_the_world() -> float:
    """Seconds that pass also while this machine sleeps: what a server is told of an age."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Endpoints:
    """The addresses a client knows and the one it prefers."""

    __slots__ = ("addresses", "budget", "preferred")

    def __init__(self, addresses: Sequence[str]) -> None:
        self.addresses = list(addresses)
        self.preferred = self.addresses[0]
        self.budget = RetryBudget()

    def prefer(self, address: str) -> None:
        """Go to ``address`` from now on, adding it where it is new."""
        if address not in self.addresses:
            if len(self.addresses) >= ADDRESSES_MAX:
                return
            self.addresses.append(address)
        self.preferred = address

    def leave(self, address: str) -> None:
        """Prefer the next address after ``address``, unless another call has moved on already."""
        if self.preferred == address:
            place = self.addresses.index(address)
            self.preferred = self.addresses[(place + 1) % len(self.addresses)]


def try_seconds(endpoints: Endpoints, policy: RetryPolicy, left: float) -> float:
    """What one try may take of the seconds that are left."""
    if len(endpoints.addresses) > 1:
        return min(left, policy.attempt_timeout_s)
    # Another try must fit in: the connection may be one whose other end is gone.
    return min(left, max(left / 2, policy.attempt_timeout_s))


class Attempts:
    """The tries of one call. Ask :meth:`next` for each, tell :meth:`failed` what came of it.

    Of a call that writes it knows as well what the server must be told, and what an error that ends
    the call says of the write. One that isn't ``repeatable``, as nothing would tell the server that
    it was sent before, is tried again only while no try may have been applied.
    """

    __slots__ = (
        "_began",
        "_deadline",
        "_endpoints",
        "_failures",
        "_first_sent",
        "_last",
        "_maybe_applied",
        "_now",
        "_policy",
        "_random",
        "_redirected",
        "_repeatable",
        "_sent",
        "_since",
        "_timeout",
        "_took",
        "_writes",
        "address",
        "request_id",
        "tries",
    )

    def __init__(
        self,
        endpoints: Endpoints,
        policy: RetryPolicy,
        timeout: float,
        *,
        writes: bool = False,
        sent_before: bool = False,
        repeatable: bool = True,
        now: Callable[[], float] = time.monotonic,
        since: Callable[[], float] = seconds_of_the_world,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._endpoints = endpoints
        self._policy = policy
        self._timeout = timeout
        self._now = now
        self._since = since
        self._random = uniform
        self._began = now()
        self._deadline = self._began + timeout
        # The last try, in seconds.
        self._took = 0.0
        self._failures = 0
        self._redirected = False
        self._last: Failure | None = None
        self._writes = writes
        self._repeatable = repeatable
        # Tries that may have been applied, and when the first of them began.
        self._maybe_applied = int(sent_before)
        self._first_sent: float | None = None
        self._sent = 0.0
        self.address = endpoints.preferred
        self.tries = 0
        self.request_id: str | None = None
        """Of a write: under which it is sent."""

    @property
    def left(self) -> float:
        """Seconds until the time is up."""
        return max(self._deadline - self._now(), 0.0)

    def next(self) -> float:
        """Choose :attr:`address` and return the seconds this try may take.

        Raises the last failure's error, or DeadlineExceededError, when the time is up.
        """
        self._sent = self._since()
        self._began = self._now()
        left = self._deadline - self._began
        if left <= 0:
            raise self.out_of_time()
        self.tries += 1
        self.address = self._endpoints.preferred
        if not self._repeatable:
            # A try that is cut short is the last one, and nobody knows what it did: better none
            # than one which can't be expected to end in time. How fast the one before was refused
            # says little of that: the next one may be taken.
            least = max(self._took, self._timeout * LAST_TRY_PART)
            if self._last is not None and left < min(least, LAST_TRY_S):
                raise self.out_of_time()
            return left
        return try_seconds(self._endpoints, self._policy, left)

    def tried(self, address: str, sent: float, took_s: float) -> None:
        """The first try was begun elsewhere, ``sent`` by :func:`seconds_of_the_world`."""
        self.tries += 1
        self.address = address
        self._sent = sent
        self._deadline -= took_s

    def metadata(self) -> Metadata | None:
        """What goes with this try: that an earlier one may have been applied, and its age."""
        if not self._maybe_applied:
            return None
        attempt = (ATTEMPT_KEY, str(self._maybe_applied + 1))
        if self._first_sent is None:
            return (attempt,)
        return (attempt, (AGE_KEY, str(int((self._sent - self._first_sent) * 1000) + 1)))

    def ended(self, error: Error) -> Error:
        """``error``, which ends the call in the middle of a try, with what it says of the write."""
        self._maybe_applied += 1
        return self._judged(error)

    def unsent(self, error: Error) -> Error:
        """``error``, which ends the call before a try was sent, likewise."""
        return self._judged(error)

    def only_once(self) -> None:
        """Nothing tells the server that a request was sent before: see ``repeatable``."""
        self._repeatable = False

    def renew(self) -> None:
        """From now on another request is sent: none of its tries was."""
        self._maybe_applied = 0
        self._first_sent = None

    def succeeded(self) -> None:
        """The call was answered."""
        self._endpoints.budget.succeeded()

    def failed(self, failure: Failure) -> float:
        """Return the seconds to wait before the next try; raises when another can't help."""
        self._took = self._now() - self._began
        if self._writes and not failure.not_applied:
            self._maybe_applied += 1
            # Of a request that another process sent before nobody knows the age.
            if self._maybe_applied == 1:
                self._first_sent = self._sent
            if not self._repeatable:
                raise self._judged(OutcomeUnknownError(str(failure.error))) from failure.error
        if not failure.retry or (failure.overloaded and not self._endpoints.budget.allows()):
            raise self._judged(failure.error)
        # Who runs out of time is told what a server said, and not that another one isn't there.
        if self._last is None or failure.words >= max(1, self._last.words):
            self._last = failure
        if failure.leader_address is not None and failure.leader_address != self.address:
            self._endpoints.prefer(failure.leader_address)
            # The first hint is followed at once; members that send us in circles are given time.
            if not self._redirected:
                self._redirected = True
                return 0.0
        else:
            self._endpoints.leave(self.address)
        self._redirected = False
        longest = min(self._policy.delay_max_s, self._policy.delay_first_s * 2**self._failures)
        self._failures = min(self._failures + 1, 30)
        left = self._deadline - self._now()
        if left <= 0:
            raise self.out_of_time()
        return min(self._random(0.0, longest), left)

    def out_of_time(self) -> Error:
        """The error that ends the call, as its time is up."""
        if self._last is None or isinstance(self._last.error, DeadlineExceededError):
            return self._judged(DeadlineExceededError(f"no answer within {self._timeout:g} s"))
        return self._judged(self._last.error)

    def _judged(self, error: Error) -> Error:
        if self._writes:
            error.outcome = Outcome.UNKNOWN if self._maybe_applied else Outcome.NOT_APPLIED
            error.request_id = self.request_id
        error.attempts = self.tries
        return error
