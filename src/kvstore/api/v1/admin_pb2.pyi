from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Role(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROLE_UNSPECIFIED: _ClassVar[Role]
    ROLE_FOLLOWER: _ClassVar[Role]
    ROLE_CANDIDATE: _ClassVar[Role]
    ROLE_LEADER: _ClassVar[Role]
    ROLE_LEARNER: _ClassVar[Role]
    ROLE_STOPPED: _ClassVar[Role]
ROLE_UNSPECIFIED: Role
ROLE_FOLLOWER: Role
ROLE_CANDIDATE: Role
ROLE_LEADER: Role
ROLE_LEARNER: Role
ROLE_STOPPED: Role

class Member(_message.Message):
    __slots__ = ("member_id", "client_address", "peer_address", "learner", "votes_when_ready")
    MEMBER_ID_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PEER_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    LEARNER_FIELD_NUMBER: _ClassVar[int]
    VOTES_WHEN_READY_FIELD_NUMBER: _ClassVar[int]
    member_id: int
    client_address: str
    peer_address: str
    learner: bool
    votes_when_ready: bool
    def __init__(self, member_id: _Optional[int] = ..., client_address: _Optional[str] = ..., peer_address: _Optional[str] = ..., learner: bool = ..., votes_when_ready: bool = ...) -> None: ...

class MembersRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class MembersResponse(_message.Message):
    __slots__ = ("members", "leader_id")
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    LEADER_ID_FIELD_NUMBER: _ClassVar[int]
    members: _containers.RepeatedCompositeFieldContainer[Member]
    leader_id: int
    def __init__(self, members: _Optional[_Iterable[_Union[Member, _Mapping[str, object]]]] = ..., leader_id: _Optional[int] = ...) -> None: ...

class ChangeMembersRequest(_message.Message):
    __slots__ = ("add", "promote", "remove", "update", "force")
    ADD_FIELD_NUMBER: _ClassVar[int]
    PROMOTE_FIELD_NUMBER: _ClassVar[int]
    REMOVE_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    add: Member
    promote: int
    remove: int
    update: Member
    force: bool
    def __init__(self, add: _Optional[_Union[Member, _Mapping[str, object]]] = ..., promote: _Optional[int] = ..., remove: _Optional[int] = ..., update: _Optional[_Union[Member, _Mapping[str, object]]] = ..., force: bool = ...) -> None: ...

class TransferLeadershipRequest(_message.Message):
    __slots__ = ("to",)
    TO_FIELD_NUMBER: _ClassVar[int]
    to: int
    def __init__(self, to: _Optional[int] = ...) -> None: ...

class TransferLeadershipResponse(_message.Message):
    __slots__ = ("leader_id",)
    LEADER_ID_FIELD_NUMBER: _ClassVar[int]
    leader_id: int
    def __init__(self, leader_id: _Optional[int] = ...) -> None: ...

class ForgetIntroductionRequest(_message.Message):
    __slots__ = ("member_id",)
    MEMBER_ID_FIELD_NUMBER: _ClassVar[int]
    member_id: int
    def __init__(self, member_id: _Optional[int] = ...) -> None: ...

class ForgetIntroductionResponse(_message.Message):
    __slots__ = ("known",)
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    known: bool
    def __init__(self, known: bool = ...) -> None: ...

class RepairRequest(_message.Message):
    __slots__ = ("begin",)
    BEGIN_FIELD_NUMBER: _ClassVar[int]
    begin: bool
    def __init__(self, begin: bool = ...) -> None: ...

class RepairResponse(_message.Message):
    __slots__ = ("members",)
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    members: _containers.RepeatedCompositeFieldContainer[MemberRepair]
    def __init__(self, members: _Optional[_Iterable[_Union[MemberRepair, _Mapping[str, object]]]] = ...) -> None: ...

class MemberRepair(_message.Message):
    __slots__ = ("member_id", "checks", "checked", "damages", "repairing", "repairs_started", "repairs_done", "repairs_failed", "fault", "repairs_by_range", "repair_received_bytes")
    MEMBER_ID_FIELD_NUMBER: _ClassVar[int]
    CHECKS_FIELD_NUMBER: _ClassVar[int]
    CHECKED_FIELD_NUMBER: _ClassVar[int]
    DAMAGES_FIELD_NUMBER: _ClassVar[int]
    REPAIRING_FIELD_NUMBER: _ClassVar[int]
    REPAIRS_STARTED_FIELD_NUMBER: _ClassVar[int]
    REPAIRS_DONE_FIELD_NUMBER: _ClassVar[int]
    REPAIRS_FAILED_FIELD_NUMBER: _ClassVar[int]
    FAULT_FIELD_NUMBER: _ClassVar[int]
    REPAIRS_BY_RANGE_FIELD_NUMBER: _ClassVar[int]
    REPAIR_RECEIVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    member_id: int
    checks: int
    checked: float
    damages: int
    repairing: str
    repairs_started: int
    repairs_done: int
    repairs_failed: int
    fault: str
    repairs_by_range: int
    repair_received_bytes: int
    def __init__(self, member_id: _Optional[int] = ..., checks: _Optional[int] = ..., checked: _Optional[float] = ..., damages: _Optional[int] = ..., repairing: _Optional[str] = ..., repairs_started: _Optional[int] = ..., repairs_done: _Optional[int] = ..., repairs_failed: _Optional[int] = ..., fault: _Optional[str] = ..., repairs_by_range: _Optional[int] = ..., repair_received_bytes: _Optional[int] = ...) -> None: ...

class SaveSnapshotRequest(_message.Message):
    __slots__ = ("stale",)
    STALE_FIELD_NUMBER: _ClassVar[int]
    stale: bool
    def __init__(self, stale: bool = ...) -> None: ...

class SaveSnapshotResponse(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class SlowCallsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SlowCallsResponse(_message.Message):
    __slots__ = ("slow_seconds", "calls")
    SLOW_SECONDS_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    slow_seconds: float
    calls: _containers.RepeatedCompositeFieldContainer[SlowCall]
    def __init__(self, slow_seconds: _Optional[float] = ..., calls: _Optional[_Iterable[_Union[SlowCall, _Mapping[str, object]]]] = ...) -> None: ...

class SlowCall(_message.Message):
    __slots__ = ("ended_at", "method", "code", "calls", "request_bytes", "seconds", "queue_seconds", "commit_seconds", "apply_seconds")
    ENDED_AT_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_BYTES_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    COMMIT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    APPLY_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ended_at: float
    method: str
    code: str
    calls: int
    request_bytes: int
    seconds: float
    queue_seconds: float
    commit_seconds: float
    apply_seconds: float
    def __init__(self, ended_at: _Optional[float] = ..., method: _Optional[str] = ..., code: _Optional[str] = ..., calls: _Optional[int] = ..., request_bytes: _Optional[int] = ..., seconds: _Optional[float] = ..., queue_seconds: _Optional[float] = ..., commit_seconds: _Optional[float] = ..., apply_seconds: _Optional[float] = ...) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatusResponse(_message.Message):
    __slots__ = ("version", "mode", "leader_id", "members", "uptime_seconds", "warnings")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    LEADER_ID_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    UPTIME_SECONDS_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    version: str
    mode: str
    leader_id: int
    members: _containers.RepeatedCompositeFieldContainer[MemberStatus]
    uptime_seconds: float
    warnings: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, version: _Optional[str] = ..., mode: _Optional[str] = ..., leader_id: _Optional[int] = ..., members: _Optional[_Iterable[_Union[MemberStatus, _Mapping[str, object]]]] = ..., uptime_seconds: _Optional[float] = ..., warnings: _Optional[_Iterable[str]] = ...) -> None: ...

class MemberStatus(_message.Message):
    __slots__ = ("member_id", "role", "term", "leader_id", "commit_index", "applied_index", "last_index", "revision", "client_address", "peer_address", "fault", "table_bytes", "log_bytes", "free_bytes", "memory_bytes", "cache_bytes", "cache_capacity_bytes", "cache_hits", "cache_misses", "findings", "compared_seconds", "scrub_progress", "scrub_rounds", "scrub_ended_seconds", "scrub_damages")
    MEMBER_ID_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    LEADER_ID_FIELD_NUMBER: _ClassVar[int]
    COMMIT_INDEX_FIELD_NUMBER: _ClassVar[int]
    APPLIED_INDEX_FIELD_NUMBER: _ClassVar[int]
    LAST_INDEX_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PEER_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    FAULT_FIELD_NUMBER: _ClassVar[int]
    TABLE_BYTES_FIELD_NUMBER: _ClassVar[int]
    LOG_BYTES_FIELD_NUMBER: _ClassVar[int]
    FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    CACHE_BYTES_FIELD_NUMBER: _ClassVar[int]
    CACHE_CAPACITY_BYTES_FIELD_NUMBER: _ClassVar[int]
    CACHE_HITS_FIELD_NUMBER: _ClassVar[int]
    CACHE_MISSES_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    COMPARED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SCRUB_PROGRESS_FIELD_NUMBER: _ClassVar[int]
    SCRUB_ROUNDS_FIELD_NUMBER: _ClassVar[int]
    SCRUB_ENDED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SCRUB_DAMAGES_FIELD_NUMBER: _ClassVar[int]
    member_id: int
    role: Role
    term: int
    leader_id: int
    commit_index: int
    applied_index: int
    last_index: int
    revision: int
    client_address: str
    peer_address: str
    fault: str
    table_bytes: int
    log_bytes: int
    free_bytes: int
    memory_bytes: int
    cache_bytes: int
    cache_capacity_bytes: int
    cache_hits: int
    cache_misses: int
    findings: _containers.RepeatedScalarFieldContainer[str]
    compared_seconds: float
    scrub_progress: float
    scrub_rounds: int
    scrub_ended_seconds: float
    scrub_damages: int
    def __init__(self, member_id: _Optional[int] = ..., role: _Optional[_Union[Role, str]] = ..., term: _Optional[int] = ..., leader_id: _Optional[int] = ..., commit_index: _Optional[int] = ..., applied_index: _Optional[int] = ..., last_index: _Optional[int] = ..., revision: _Optional[int] = ..., client_address: _Optional[str] = ..., peer_address: _Optional[str] = ..., fault: _Optional[str] = ..., table_bytes: _Optional[int] = ..., log_bytes: _Optional[int] = ..., free_bytes: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., cache_bytes: _Optional[int] = ..., cache_capacity_bytes: _Optional[int] = ..., cache_hits: _Optional[int] = ..., cache_misses: _Optional[int] = ..., findings: _Optional[_Iterable[str]] = ..., compared_seconds: _Optional[float] = ..., scrub_progress: _Optional[float] = ..., scrub_rounds: _Optional[int] = ..., scrub_ended_seconds: _Optional[float] = ..., scrub_damages: _Optional[int] = ...) -> None: ...
