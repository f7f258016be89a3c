"""Why a call of etcd's v3 API is refused: its exact text, which clients go by, and its status.

clientv3 recognises an error by its message alone and takes the code from a table of its own, so
both must be etcd's to the letter (``rpctypes/error.go`` of etcd 3.4 to 3.6).
"""

from __future__ import annotations

import enum

from kvstore.errors import Error

__all__ = ["EtcdError", "Reason"]


class Reason(enum.Enum):
    """A reason's code (of gRPC, by name) and its message. The members' order is that of a code in
    the log's results: new ones go to the end."""

    EMPTY_KEY = "INVALID_ARGUMENT", "etcdserver: key is not provided"
    KEY_NOT_FOUND = "INVALID_ARGUMENT", "etcdserver: key not found"
    VALUE_PROVIDED = "INVALID_ARGUMENT", "etcdserver: value is provided"
    LEASE_PROVIDED = "INVALID_ARGUMENT", "etcdserver: lease is provided"
    TOO_MANY_OPERATIONS = "INVALID_ARGUMENT", "etcdserver: too many operations in txn request"
    DUPLICATE_KEY = "INVALID_ARGUMENT", "etcdserver: duplicate key given in txn request"
    INVALID_SORT_OPTION = "INVALID_ARGUMENT", "etcdserver: invalid sort option"
    REQUEST_TOO_LARGE = "INVALID_ARGUMENT", "etcdserver: request is too large"
    INVALID_CLIENT_VERSION = "INVALID_ARGUMENT", "etcdserver: invalid client api version"
    BAD_MEMBER_URLS = "INVALID_ARGUMENT", "etcdserver: given member URLs are invalid"
    USER_EMPTY = "INVALID_ARGUMENT", "etcdserver: user name is empty"
    ROLE_EMPTY = "INVALID_ARGUMENT", "etcdserver: role name is empty"
    PERMISSION_NOT_GIVEN = "INVALID_ARGUMENT", "etcdserver: permission not given"
    AUTHENTICATION_FAILED = (
        "INVALID_ARGUMENT",
        "etcdserver: authentication failed, invalid user ID or password",
    )
    INVALID_AUTH_MANAGEMENT = "INVALID_ARGUMENT", "etcdserver: invalid auth management"
    AUTH_OLD_REVISION = "INVALID_ARGUMENT", "etcdserver: revision of auth store is old"
    BAD_VERSION_FORMAT = "INVALID_ARGUMENT", "etcdserver: wrong downgrade target version format"
    BAD_TARGET_VERSION = "INVALID_ARGUMENT", "etcdserver: invalid downgrade target version"
    COMPACTED = "OUT_OF_RANGE", "etcdserver: mvcc: required revision has been compacted"
    FUTURE_REVISION = "OUT_OF_RANGE", "etcdserver: mvcc: required revision is a future revision"
    TTL_TOO_LARGE = "OUT_OF_RANGE", "etcdserver: too large lease TTL"
    NO_SPACE = "RESOURCE_EXHAUSTED", "etcdserver: mvcc: database space exceeded"
    TOO_MANY_REQUESTS = "RESOURCE_EXHAUSTED", "etcdserver: too many requests"
    LEASE_NOT_FOUND = "NOT_FOUND", "etcdserver: requested lease not found"
    MEMBER_NOT_FOUND = "NOT_FOUND", "etcdserver: member not found"
    LEASE_EXISTS = "FAILED_PRECONDITION", "etcdserver: lease already exists"
    MEMBER_EXISTS = "FAILED_PRECONDITION", "etcdserver: member ID already exist"
    PEER_URL_EXISTS = "FAILED_PRECONDITION", "etcdserver: Peer URLs already exists"
    NOT_ENOUGH_STARTED = (
        "FAILED_PRECONDITION",
        "etcdserver: re-configuration failed due to not enough started members",
    )
    NOT_LEARNER = "FAILED_PRECONDITION", "etcdserver: can only promote a learner member"
    LEARNER_NOT_READY = (
        "FAILED_PRECONDITION",
        "etcdserver: can only promote a learner member which is in sync with leader",
    )
    TOO_MANY_LEARNERS = "FAILED_PRECONDITION", "etcdserver: too many learner members in cluster"
    CLUSTER_ID_MISMATCH = "FAILED_PRECONDITION", "etcdserver: cluster ID mismatch"
    NOT_CAPABLE = "FAILED_PRECONDITION", "etcdserver: not capable"
    NOT_FOR_LEARNER = "FAILED_PRECONDITION", "etcdserver: rpc not supported for learner"
    NOT_LEADER = "FAILED_PRECONDITION", "etcdserver: not leader"
    BAD_TRANSFEREE = "FAILED_PRECONDITION", "etcdserver: bad leader transferee"
    ROOT_USER_NOT_EXIST = "FAILED_PRECONDITION", "etcdserver: root user does not exist"
    ROOT_ROLE_NOT_EXIST = "FAILED_PRECONDITION", "etcdserver: root user does not have root role"
    USER_EXISTS = "FAILED_PRECONDITION", "etcdserver: user name already exists"
    USER_NOT_FOUND = "FAILED_PRECONDITION", "etcdserver: user name not found"
    ROLE_EXISTS = "FAILED_PRECONDITION", "etcdserver: role name already exists"
    ROLE_NOT_FOUND = "FAILED_PRECONDITION", "etcdserver: role name not found"
    ROLE_NOT_GRANTED = "FAILED_PRECONDITION", "etcdserver: role is not granted to the user"
    PERMISSION_NOT_GRANTED = (
        "FAILED_PRECONDITION",
        "etcdserver: permission is not granted to the role",
    )
    AUTH_NOT_ENABLED = "FAILED_PRECONDITION", "etcdserver: authentication is not enabled"
    NO_CLUSTER_VERSION = (
        "FAILED_PRECONDITION",
        "etcdserver: cluster version not found during downgrade",
    )
    DOWNGRADE_IN_PROCESS = (
        "FAILED_PRECONDITION",
        "etcdserver: cluster has a downgrade job in progress",
    )
    NO_INFLIGHT_DOWNGRADE = "FAILED_PRECONDITION", "etcdserver: no inflight downgrade job"
    PERMISSION_DENIED = "PERMISSION_DENIED", "etcdserver: permission denied"
    INVALID_AUTH_TOKEN = "UNAUTHENTICATED", "etcdserver: invalid auth token"
    NO_LEADER = "UNAVAILABLE", "etcdserver: no leader"
    LEADER_CHANGED = "UNAVAILABLE", "etcdserver: leader changed"
    STOPPED = "UNAVAILABLE", "etcdserver: server stopped"
    UNHEALTHY = "UNAVAILABLE", "etcdserver: unhealthy cluster"
    TIMED_OUT = "UNAVAILABLE", "etcdserver: request timed out"
    TIMED_OUT_LEADER_FAILED = (
        "UNAVAILABLE",
        "etcdserver: request timed out, possibly due to previous leader failure",
    )
    TIMED_OUT_CONNECTION_LOST = (
        "UNAVAILABLE",
        "etcdserver: request timed out, possibly due to connection lost",
    )
    TIMED_OUT_APPLYING = (
        "UNAVAILABLE",
        "etcdserver: request timed out, waiting for the applied index took too long",
    )
    NOT_PRIMARY_LESSOR = "UNAVAILABLE", "not a primary lessor"
    TRANSFER_TIMED_OUT = (
        "UNAVAILABLE",
        "etcdserver: request timed out, leader transfer took too long",
    )
    CORRUPT = "DATA_LOSS", "etcdserver: corrupt cluster"
    WATCH_CANCELED = "CANCELLED", "etcdserver: watch canceled"
    REQUEST_CANCELED = "CANCELLED", "etcdserver: request canceled"
    DEADLINE = "DEADLINE_EXCEEDED", "context deadline exceeded"
    # Lock and Election; their codes are UNKNOWN in etcd.
    SESSION_EXPIRED = "FAILED_PRECONDITION", "mutex: session is expired"
    NOT_ELECTED = "FAILED_PRECONDITION", "election: not leader"
    NOBODY_ELECTED = "NOT_FOUND", "election: no leader"
    NO_LEADER_KEY = "INVALID_ARGUMENT", '"leader" field must be provided'
    # Of requests that a session has numbered: kvd's own.
    SESSION_FORGOTTEN = "ABORTED", "kvstore: the session has expired, or never was"
    SEQUENCE_PASSED = "ABORTED", "kvstore: the session has gone past this sequence"
    NUMBER_REUSED = "INVALID_ARGUMENT", "kvstore: the sequence was used before for something else"

    @property
    def code(self) -> str:
        """The name of gRPC's status."""
        return self.value[0]

    @property
    def text(self) -> str:
        """The whole message."""
        return self.value[1]


class EtcdError(Error):
    """A call of etcd's API is refused, for one of its reasons; nothing was changed by it unless
    the reason says that its outcome is unknown (the ``TIMED_OUT`` ones)."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.text)
        self.reason = reason
