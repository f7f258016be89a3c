"""What answers etcd's v3 API: proposals, reads, headers; no message and no event loop in it."""

from kvstore.service.etcd.header import Header

__all__ = ["Header"]
