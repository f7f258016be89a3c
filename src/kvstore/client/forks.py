"""Which process this is, for what a child of ``fork`` must not share with its parent.

A number to look at, as asking the system at each call would cost more than the rest of it.
"""

from __future__ import annotations

import os

__all__ = ["process"]

process = os.getpid()
"""The id of this process."""


def _forked() -> None:
    global process
    process = os.getpid()


os.register_at_fork(after_in_child=_forked)
