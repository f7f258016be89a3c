"""What the data of an entry may be: v1's commands, or operations of the model."""

from __future__ import annotations

from kvstore._state.native import names_single_keys
from kvstore.state.commands import check_commands
from kvstore.state.mvcc.operations import decode_operations, is_operations

__all__ = ["check_entry"]


def check_entry(data: bytes) -> None:
    """Raise CorruptionError unless ``data`` is whole and a state machine can apply it."""
    if is_operations(data):
        if not names_single_keys(data):  # most do, and that is quick to see
            decode_operations(data)
    else:
        check_commands(data)
