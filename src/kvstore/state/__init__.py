"""The replicated state machine: committed commands in, engine batches and results out."""

from kvstore.state.captured import Captured, RowsHash
from kvstore.state.cold import COLD, Cold
from kvstore.state.commands import (
    KEY_BYTES_MAX,
    SEQUENCE_MAX,
    SESSION_BYTES,
    SESSION_WINDOW,
    VALUE_BYTES_MAX,
    Command,
    CommandKind,
    command_bytes,
    decode_commands,
    decode_guard,
    decode_time,
    delete_command,
    encode_commands,
    open_command,
    put_command,
    request_digest,
)
from kvstore.state.entries import check_entry
from kvstore.state.lending import Moment, can_be_lent
from kvstore.state.machine import Found, MemoryBounds, Prepared, StateMachine
from kvstore.state.results import (
    USERS_CHANGED,
    Applied,
    CommandResult,
    OperationResult,
    code_of,
    result_of,
)
from kvstore.state.sessions import SessionBounds
from kvstore.state.stored import StoredState, open_state, stand_in, stored_state

__all__ = [
    "COLD",
    "KEY_BYTES_MAX",
    "SEQUENCE_MAX",
    "SESSION_BYTES",
    "SESSION_WINDOW",
    "USERS_CHANGED",
    "VALUE_BYTES_MAX",
    "Applied",
    "Captured",
    "Cold",
    "Command",
    "CommandKind",
    "CommandResult",
    "Found",
    "MemoryBounds",
    "Moment",
    "OperationResult",
    "Prepared",
    "RowsHash",
    "SessionBounds",
    "StateMachine",
    "StoredState",
    "can_be_lent",
    "check_entry",
    "code_of",
    "command_bytes",
    "decode_commands",
    "decode_guard",
    "decode_time",
    "delete_command",
    "encode_commands",
    "open_command",
    "open_state",
    "put_command",
    "request_digest",
    "result_of",
    "stand_in",
    "stored_state",
]
