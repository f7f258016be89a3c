"""``python -m tests.fuzz.worker TARGET FILE`` runs one input; with ``SECONDS SEED`` it fuzzes."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

from tests.fuzz.hunt import FAILED, replayed, work
from tests.fuzz.targets.every import TARGETS

if __name__ == "__main__":
    name, path, *rest = sys.argv[1:]
    if rest:
        sys.exit(work(TARGETS[name], Path(path), float(rest[0]), int(rest[1])))
    try:
        replayed(TARGETS[name], Path(path).read_bytes())
    except Exception:  # noqa: BLE001  # that is what is looked for
        traceback.print_exc()
        sys.exit(FAILED)
