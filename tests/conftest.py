"""What holds for every test."""

from __future__ import annotations

import os
import signal

from hypothesis import settings

# How long an example takes says more about the machine's load than about the code. Each run tries
# the same examples, so that none fails for another reason than a change; KVSTORE_FRESH_EXAMPLES=1
# draws new ones, and a failure prints the line that repeats it.
settings.register_profile(
    "kvstore",
    deadline=None,
    derandomize=os.environ.get("KVSTORE_FRESH_EXAMPLES") != "1",
    print_blob=True,
)
settings.load_profile("kvstore")

# A shell has what it runs beside itself ignore Ctrl-C, and programs that tests start would inherit
# that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
