"""The rules of a request, and the words in which fronts ask."""

from kvstore.service.limits import Limits
from kvstore.service.operations import (
    Answered,
    Asked,
    Delete,
    Get,
    Method,
    OpenSession,
    Operation,
    Put,
    Result,
    Service,
)
from kvstore.service.service import KVService

__all__ = [
    "Answered",
    "Asked",
    "Delete",
    "Get",
    "KVService",
    "Limits",
    "Method",
    "OpenSession",
    "Operation",
    "Put",
    "Result",
    "Service",
]
