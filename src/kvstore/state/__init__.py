"""The replicated state machine: committed commands in, engine batches and results out."""

from kvstore.state.commands import (
    KEY_BYTES_MAX,
    VALUE_BYTES_MAX,
    Command,
    CommandKind,
    check_commands,
    command_bytes,
    decode_commands,
    delete_command,
    encode_commands,
    put_command,
    request_digest,
)
from kvstore.state.machine import (
    Applied,
    CommandResult,
    StateMachine,
    StoredState,
    stored_state,
)
from kvstore.state.requests import REMEMBERED_REQUESTS

__all__ = [
    "KEY_BYTES_MAX",
    "REMEMBERED_REQUESTS",
    "VALUE_BYTES_MAX",
    "Applied",
    "Command",
    "CommandKind",
    "CommandResult",
    "StateMachine",
    "StoredState",
    "check_commands",
    "command_bytes",
    "decode_commands",
    "delete_command",
    "encode_commands",
    "put_command",
    "request_digest",
    "stored_state",
]
