"""A database that is written until its process is killed: a program of its own.

``python -m tests.crash.killed_library DIRECTORY BACKGROUND`` goes through the steps of
``kill_story``, in ``DIRECTORY/db``, and says the number of each that is done. With BACKGROUND 0
all calls of the disk are of one thread, with 1 flushes and compactions are of others.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from kvstore.engine import DB
from tests.crash.kill_story import Step, steps

__all__ = ["OPTIONS"]

OPTIONS: dict[str, Any] = {
    "write_buffer_size": 64 << 10,
    "max_file_size": 64 << 10,
    "compaction_trigger": 2,
}


def main(directory: str, background: str) -> None:
    options = OPTIONS | {"background": background == "1"}
    path = f"{directory}/db"
    db = DB(path, **options)
    for number, step in enumerate(steps()):
        if step.kind == "reopen":
            db.close()
            db = DB(path, **options)
        elif step.kind == "checkpoint":
            db.checkpoint(f"{directory}/copy{number}")
        else:
            do(db, step)
        # One call, so that a line is told whole or not at all.
        os.write(1, b"%d\n" % number)
    db.close()


def do(db: DB, step: Step) -> None:
    if step.kind == "flush":
        db.flush()
    elif step.kind == "compact":
        db.compact_range()
    elif step.kind == "delete_range":
        db.delete_range(*step.span)
        if step.sync:
            db.sync()
    else:
        with db.write_batch(sync=step.sync) as batch:
            for key, value in step.rows.items():
                if value is None:
                    batch.delete(key)
                else:
                    batch.put(key, value)


if __name__ == "__main__":
    main(*sys.argv[1:])
