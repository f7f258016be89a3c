"""The rules of a request, and the words in which fronts ask."""

from kvstore.service.operations import Delete, Get, OpenSession, Operation, Put, Result, Service
from kvstore.service.service import KVService

__all__ = ["Delete", "Get", "KVService", "OpenSession", "Operation", "Put", "Result", "Service"]
