"""Telling why a thread of the engine did not start, or could not be waited for."""

from __future__ import annotations

__all__ = ["is_not_begun", "is_refused"]

_REFUSALS = ("can't start new thread", "can't create new thread at interpreter shutdown")
_NOT_BEGUN = "cannot join thread before it is started"


def is_refused(error: RuntimeError) -> bool:
    """Whether ``Thread.start`` raised it for want of a thread.

    Else it is a signal's handler's, which may run within, and for whoever called. Python has no
    type of its own for either, so the words tell.
    """
    return str(error) in _REFUSALS


def is_not_begun(error: RuntimeError) -> bool:
    """The same of ``Thread.join``, and of a thread that another one is about to start."""
    return str(error) == _NOT_BEGUN
