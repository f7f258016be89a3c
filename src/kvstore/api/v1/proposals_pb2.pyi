from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class ProposeRequest(_message.Message):
    __slots__ = ("term", "proposals")
    TERM_FIELD_NUMBER: _ClassVar[int]
    PROPOSALS_FIELD_NUMBER: _ClassVar[int]
    term: int
    proposals: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, term: _Optional[int] = ..., proposals: _Optional[_Iterable[bytes]] = ...) -> None: ...

class ProposeResponse(_message.Message):
    __slots__ = ("proposed", "no_room")
    PROPOSED_FIELD_NUMBER: _ClassVar[int]
    NO_ROOM_FIELD_NUMBER: _ClassVar[int]
    proposed: bool
    no_room: bool
    def __init__(self, proposed: bool = ..., no_room: bool = ...) -> None: ...
