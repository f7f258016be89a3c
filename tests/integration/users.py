"""A store with users, for tests: root, and ann, who may read and write what begins with ``a/``."""

from __future__ import annotations

from kvstore.client import TLS, Access, AsyncClient, Client

__all__ = ["ANN", "PASSWORD", "ROOT", "ask_for_users", "client_of"]

ROOT, ANN = "root", "ann"
PASSWORD = {ROOT: "top", ANN: "secret"}


def ask_for_users(addresses: str, tls: TLS | None = None) -> None:
    """Make them, and have them asked for."""
    with Client(addresses, tls=tls, timeout=30) as client:
        auth = client.auth
        for user in (ROOT, ANN):
            auth.add_user(user, PASSWORD[user])
        auth.add_role(ROOT)
        auth.grant_role(ROOT, ROOT)
        auth.add_role("a")
        auth.grant_permission("a", Access.READWRITE, prefix=b"a/")
        auth.grant_role(ANN, "a")
        auth.enable()


def client_of(addresses: str, user: str, tls: TLS | None = None) -> Client:
    """A client that is logged in, once it calls."""
    return Client(addresses, tls=tls, timeout=30, user=user, password=PASSWORD[user])


def async_client_of(addresses: str, user: str) -> AsyncClient:
    """The same for asyncio."""
    return AsyncClient(addresses, timeout=30, user=user, password=PASSWORD[user])
