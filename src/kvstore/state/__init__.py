"""The replicated state machine: committed commands in, engine batches and results out."""

from kvstore.state.commands import (
    Command,
    CommandKind,
    decode_commands,
    delete_command,
    encode_commands,
    put_command,
    request_digest,
)
from kvstore.state.machine import Applied, StateMachine
from kvstore.state.requests import REMEMBERED_REQUESTS

__all__ = [
    "REMEMBERED_REQUESTS",
    "Applied",
    "Command",
    "CommandKind",
    "StateMachine",
    "decode_commands",
    "delete_command",
    "encode_commands",
    "put_command",
    "request_digest",
]
