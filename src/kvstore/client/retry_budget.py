"""How many retries an overloaded server gets from one client (as gRPC's retry throttling, A6).

Without it each call that is refused for too much work comes again, fifteen times in its ten
seconds, and the work of refusing keeps the server busy. A refusal for overload takes one token, a
call that succeeds gives back a tenth; while half or less are left, such a refusal ends its call.
What passes by itself (no leader, a member that restarts) is retried whatever is left.
"""

from __future__ import annotations

__all__ = ["TOKENS_MAX", "TOKENS_PER_SUCCESS", "RetryBudget"]

TOKENS_MAX = 100.0
TOKENS_PER_SUCCESS = 0.1


class RetryBudget:
    """The tokens of one client."""

    __slots__ = ("tokens",)

    def __init__(self) -> None:
        self.tokens = TOKENS_MAX

    def succeeded(self) -> None:
        """A call was answered."""
        if self.tokens < TOKENS_MAX:
            self.tokens = min(TOKENS_MAX, self.tokens + TOKENS_PER_SUCCESS)

    def allows(self) -> bool:
        """A server has refused a call for overload: whether it may be tried again."""
        self.tokens = max(0.0, self.tokens - 1.0)
        return self.tokens > TOKENS_MAX / 2
