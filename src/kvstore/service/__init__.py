"""The rules of a request, and the words in which fronts ask."""

from kvstore.service.operations import Delete, Get, Operation, Put, Result, Service
from kvstore.service.service import KVService

__all__ = ["Delete", "Get", "KVService", "Operation", "Put", "Result", "Service"]
