from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class ProposeRequest(_message.Message):
    __slots__ = ("proposals",)
    PROPOSALS_FIELD_NUMBER: _ClassVar[int]
    proposals: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, proposals: _Optional[_Iterable[bytes]] = ...) -> None: ...

class ProposeResponse(_message.Message):
    __slots__ = ("proposed", "term")
    PROPOSED_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    proposed: bool
    term: int
    def __init__(self, proposed: bool = ..., term: _Optional[int] = ...) -> None: ...
