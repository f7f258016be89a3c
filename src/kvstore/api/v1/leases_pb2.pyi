from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LessorQuestions(_message.Message):
    __slots__ = ("renew", "look")
    RENEW_FIELD_NUMBER: _ClassVar[int]
    LOOK_FIELD_NUMBER: _ClassVar[int]
    renew: _containers.RepeatedScalarFieldContainer[int]
    look: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, renew: _Optional[_Iterable[int]] = ..., look: _Optional[_Iterable[int]] = ...) -> None: ...

class LessorAnswers(_message.Message):
    __slots__ = ("renewed", "lives")
    RENEWED_FIELD_NUMBER: _ClassVar[int]
    LIVES_FIELD_NUMBER: _ClassVar[int]
    renewed: _containers.RepeatedScalarFieldContainer[int]
    lives: _containers.RepeatedCompositeFieldContainer[LeaseLife]
    def __init__(self, renewed: _Optional[_Iterable[int]] = ..., lives: _Optional[_Iterable[_Union[LeaseLife, _Mapping[str, object]]]] = ...) -> None: ...

class LeaseLife(_message.Message):
    __slots__ = ("ttl", "granted")
    TTL_FIELD_NUMBER: _ClassVar[int]
    GRANTED_FIELD_NUMBER: _ClassVar[int]
    ttl: int
    granted: int
    def __init__(self, ttl: _Optional[int] = ..., granted: _Optional[int] = ...) -> None: ...
