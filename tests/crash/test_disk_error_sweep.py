"""Each call of a database's disk fails in turn: no space or descriptors, once and for a while; EIO.

The story is ``disk_story``'s. ``KVSTORE_DISK_SWEEP=all`` tells it four times as long, with each
call up to the 500th of each kind.
"""

from __future__ import annotations

import errno
import random

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from tests.crash.disk_story import STEPS, Faults, Story, lack_is_for_good
from tests.crash.disk_sweep import CALLS_MAX, takes_long

pytestmark = takes_long

OPERATIONS = [
    "open",
    "pread",
    "pwrite",
    "datasync",
    "allocate",
    "truncate",
    "rename",
    "link",
    "unlink",
    "sync_directory",
    "make_directory",
    "lock",
]
FAILS = [
    *((operation, errno.EIO) for operation in OPERATIONS),
    *((operation, errno.ENOSPC) for operation in OPERATIONS if operation != "pread"),
    *((operation, errno.EMFILE) for operation in ("open", "sync_directory", "lock", "list")),
]


def story_with(faults: Faults) -> tuple[Story, MemoryFileSystem]:
    disk = MemoryFileSystem()
    disk.on_operation = faults.before
    return Story(disk, faults.code, forgets=faults.forgets), disk


def forget(story: Story, disk: MemoryFileSystem) -> None:
    """Errors keep all this alive in a circle: the disk mustn't call while that is undone."""
    disk.on_operation = None
    story.close()


@pytest.mark.parametrize(("operation", "code"), FAILS)
def test_each_call_that_fails_once(operation: str, code: int) -> None:
    failures = refused = 0
    for at in range(1, CALLS_MAX + 1):
        faults = Faults(operation, code, at)
        story, disk = story_with(faults)
        story.tell(0, STEPS)
        if not faults.hits:
            forget(story, disk)
            break
        failures += 1
        refused += story.failed_steps
        if code != errno.EIO and not lack_is_for_good(operation, code, faults.hits[0]):
            if story.db is not None:
                assert story.db.stats()["failure"] is None, (at, faults.hits)
            assert story.failed_steps <= 1
        story.end(lambda: disk.crash(random.Random(1), "random"))  # noqa: B023
        forget(story, disk)
    print(f"{operation} {errno.errorcode[code]}: {failures} calls failed, {refused} steps raised")
    assert failures


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        ("create", errno.ENOSPC),
        ("pwrite", errno.ENOSPC),
        ("allocate", errno.ENOSPC),
        ("allocate", errno.EDQUOT),
    ],
)
def test_no_space_from_some_call_on_until_there_is_room(operation: str, code: int) -> None:
    failures = 0
    for at in range(1, CALLS_MAX + 1):
        faults = Faults(operation, code, at, always=True)
        story, disk = story_with(faults)
        for step in range(STEPS):
            story.tell(step, step + 1)
            if len(faults.hits) > 3:
                break
        if not faults.hits:
            forget(story, disk)
            break
        failures += 1
        for_good = any(lack_is_for_good(operation, code, path) for path in faults.hits)
        faults.heal()
        db = story.db
        if db is not None and not for_good:
            db.resume()
            assert db.stats()["background_error"] is None
            assert db.stats()["failure"] is None
        if db is None:
            story.settle()  # it couldn't be opened while there was no room
        before = story.failed_steps
        story.tell(step + 1, STEPS)
        assert story.failed_steps == before
        story.end(lambda: disk.crash(random.Random(1), "random"))  # noqa: B023
        forget(story, disk)
    print(f"{operation} until there is room: {failures} beginnings")
    assert failures
