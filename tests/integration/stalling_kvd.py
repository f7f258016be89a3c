"""kvd whose event loop is held up on SIGUSR1: ``python stalling_kvd.py SECONDS python -m … ARGS``.

Its thread then computes, and keeps the GIL as far as Python lets it: the worst that code of ours
could do. A line on standard error says when that begins and ends.
"""

from __future__ import annotations

import signal
import sys
import time

from kvstore.cli.kvd import main


def stall(number: int, frame: object) -> None:
    print("stalling", file=sys.stderr, flush=True)
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        pass
    print("stalled", file=sys.stderr, flush=True)


SECONDS = float(sys.argv[1])
signal.signal(signal.SIGUSR1, stall)
sys.argv = ["kvd", *sys.argv[sys.argv.index("kvstore.cli.kvd") + 1 :]]
main()
