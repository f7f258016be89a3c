from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class OpenSessionRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class OpenSessionResponse(_message.Message):
    __slots__ = ("session", "idle_timeout_ms", "window", "operations")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    IDLE_TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    session: str
    idle_timeout_ms: int
    window: int
    operations: bool
    def __init__(self, session: _Optional[str] = ..., idle_timeout_ms: _Optional[int] = ..., window: _Optional[int] = ..., operations: bool = ...) -> None: ...
