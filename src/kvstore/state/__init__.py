"""The replicated state machine: committed commands in, engine batches and results out."""

from kvstore.state.commands import (
    KEY_BYTES_MAX,
    SEQUENCE_MAX,
    SESSION_BYTES,
    SESSION_WINDOW,
    VALUE_BYTES_MAX,
    Command,
    CommandKind,
    check_commands,
    command_bytes,
    decode_commands,
    decode_time,
    delete_command,
    encode_commands,
    open_command,
    put_command,
    request_digest,
)
from kvstore.state.machine import (
    COLD,
    Applied,
    Cold,
    MemoryBounds,
    Prepared,
    StateMachine,
)
from kvstore.state.results import CommandResult, code_of, result_of
from kvstore.state.sessions import SessionBounds
from kvstore.state.stored import StoredState, stored_state

__all__ = [
    "COLD",
    "KEY_BYTES_MAX",
    "SEQUENCE_MAX",
    "SESSION_BYTES",
    "SESSION_WINDOW",
    "VALUE_BYTES_MAX",
    "Applied",
    "Cold",
    "Command",
    "CommandKind",
    "CommandResult",
    "MemoryBounds",
    "Prepared",
    "SessionBounds",
    "StateMachine",
    "StoredState",
    "check_commands",
    "code_of",
    "command_bytes",
    "decode_commands",
    "decode_time",
    "delete_command",
    "encode_commands",
    "open_command",
    "put_command",
    "request_digest",
    "result_of",
    "stored_state",
]
