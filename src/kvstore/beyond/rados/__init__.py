"""The service over a pool of Ceph's RADOS (docs/beyond.md)."""

from kvstore.beyond.rados.service import RadosFigures, RadosService

__all__ = ["RadosFigures", "RadosService"]
