"""Who may change or read everything: an operator, by the way a call comes or by certificate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import grpc.aio

__all__ = ["OPERATOR_NAME", "is_operator"]

OPERATOR_NAME = "operator.kvstore"
"""The DNS name in an operator's certificate (``kvctl pki issue --client NAME --operator``)."""

Context = grpc.aio.ServicerContext[Any, Any]


def is_operator(context: Context) -> bool:
    """Whether a call comes over the unix socket, or with an operator's verified certificate."""
    if context.peer().startswith("unix:"):
        return True
    auth: Mapping[str, Iterable[bytes]] = context.auth_context()
    return OPERATOR_NAME.encode() in auth.get("x509_subject_alternative_name", ())
