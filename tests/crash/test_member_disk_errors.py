"""Each call of one member's disk fails in turn: its log, its state, a snapshot on its way.

What was acknowledged is there on all members in the end, and after a power loss; nothing is
written after a sync that failed; only the member whose disk it is stops, and where only space or
descriptors were lacking it goes on. ``KVSTORE_DISK_SWEEP=all`` takes every call up to the 500th of
each kind, else some of each are taken.
"""

from __future__ import annotations

import errno

import pytest

from tests.crash.disk_sweep import places, takes_long
from tests.crash.member_story import Fault, MemberStory

pytestmark = takes_long

LEADER, FOLLOWER = 1, 2
TAKEN = 5
FAILS = [
    ("open", errno.EMFILE),
    ("open", errno.EIO),
    ("create", errno.ENOSPC),
    ("pread", errno.EIO),
    ("pwrite", errno.EIO),
    ("pwrite", errno.ENOSPC),
    ("datasync", errno.EIO),
    ("datasync", errno.ENOSPC),
    ("allocate", errno.ENOSPC),
    ("allocate", errno.EIO),
    ("rename", errno.ENOSPC),
    ("rename", errno.EIO),
    ("link", errno.ENOSPC),
    ("unlink", errno.EIO),
    ("make_directory", errno.ENOSPC),
    ("sync_directory", errno.EMFILE),
    ("sync_directory", errno.EIO),
]


def tell(victim: int, cut_off: int, fault: Fault) -> MemberStory:
    story = MemberStory(victim, cut_off, fault)
    try:
        story.tell()
    except BaseException as error:
        error.add_note(f"member {victim}, cut off: {cut_off}, {fault}")
        raise
    finally:
        # Errors keep all this alive in a circle: the disk mustn't call while that is undone.
        story.disk.on_operation = None
    return story


def calls(victim: int, cut_off: int, operation: str, path: str = "") -> int:
    fault = Fault(operation, 0, 0, path=path)
    tell(victim, cut_off, fault)
    return fault.seen


@pytest.mark.parametrize(("operation", "code"), FAILS)
@pytest.mark.parametrize("victim", [LEADER, FOLLOWER])
def test_each_call_that_fails_once(victim: int, operation: str, code: int) -> None:
    told = stopped = 0
    seen = calls(victim, FOLLOWER, operation)
    for at in places(seen, TAKEN):
        fault = Fault(operation, code, at)
        story = tell(victim, FOLLOWER, fault)
        told += bool(fault.hits)
        stopped += story.stopped
    print(f"{victim}: {operation} {errno.errorcode[code]}: {told} failed, {stopped} stopped it")
    # A follower links no files: it makes no checkpoints.
    assert told or not seen


@pytest.mark.parametrize("victim", [LEADER, FOLLOWER])
def test_a_manifest_that_could_not_be_synced_is_no_lack_of_room(victim: int) -> None:
    """Whatever the number of the error: the member stops, rather than wait for room for ever."""
    told = stopped = 0
    for at in places(calls(victim, FOLLOWER, "datasync", "MANIFEST"), TAKEN):
        fault = Fault("datasync", errno.ENOSPC, at, path="MANIFEST")
        story = tell(victim, FOLLOWER, fault)
        told += bool(fault.hits)
        stopped += story.stopped
    print(f"{victim}: datasync ENOSPC of manifests: {told} failed, {stopped} stopped it")
    assert told
    assert stopped


@pytest.mark.parametrize(
    ("operation", "code", "path"),
    [
        ("open", errno.EMFILE, ""),
        ("create", errno.ENOSPC, ""),
        ("pwrite", errno.ENOSPC, "/state"),
        ("pwrite", errno.ENOSPC, "/incoming"),
        ("allocate", errno.EDQUOT, "/log"),
    ],
)
def test_a_lack_from_some_call_on_until_it_is_over(operation: str, code: int, path: str) -> None:
    told = stopped = 0
    for at in places(calls(FOLLOWER, FOLLOWER, operation, path), TAKEN):
        fault = Fault(operation, code, at, always=True, path=path)
        story = tell(FOLLOWER, FOLLOWER, fault)
        told += bool(fault.hits)
        stopped += story.stopped
    what = f"{operation} {errno.errorcode[code]} {path}"
    print(f"{what} until it is over: {told} beginnings, {stopped} stopped it")
    assert told
