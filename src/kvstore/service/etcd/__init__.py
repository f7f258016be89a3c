"""What answers etcd's v3 API: proposals, reads, headers; no message and no event loop in it."""

from kvstore.service.etcd.header import Header, cluster_number
from kvstore.service.etcd.limits import EtcdLimits
from kvstore.service.etcd.member import Answers, Listener, Passed, PassOn
from kvstore.service.etcd.service import EtcdService

__all__ = [
    "Answers",
    "EtcdLimits",
    "EtcdService",
    "Header",
    "Listener",
    "PassOn",
    "Passed",
    "cluster_number",
]
