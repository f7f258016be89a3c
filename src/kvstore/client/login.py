"""Who a client is to the server, and the token that it was given for that. No I/O here."""

from __future__ import annotations

from kvstore.client.attempts import Metadata
from kvstore.errors import ConfigurationError

__all__ = ["Login"]

TOKEN_KEY = "token"


class Login:
    """A user with a password, or nobody."""

    __slots__ = ("_token", "metadata", "password", "user")

    def __init__(self, user: str | None, password: str | None) -> None:
        """Raises ConfigurationError for one without the other."""
        if (user is None) != (password is None):
            raise ConfigurationError("a user needs a password, and a password its user")
        self.user = user
        self.password = password
        self._token: str | None = None
        self.metadata: Metadata = ()
        """What goes with each call."""

    @property
    def wanted(self) -> bool:
        """Whether to authenticate before the next call."""
        return self.user is not None and self._token is None

    @property
    def known(self) -> bool:
        """Whether there is anybody to authenticate."""
        return self.user is not None

    def given(self, token: str) -> None:
        """The server knows the user by this; empty: it asks for nobody."""
        self._token = token
        self.metadata = ((TOKEN_KEY, token),) if token else ()

    def refused(self, metadata: Metadata) -> None:
        """A call with that was refused: unless there is a newer token, another one is needed."""
        if metadata == self.metadata:
            self._token = None
