"""What must hold between a state's own rows: told where it doesn't, silent where it does."""

from __future__ import annotations

import pytest

from kvstore.engine import DB
from kvstore.state import put_command
from kvstore.state.invariants import FINDINGS_MAX, check_rows
from kvstore.state.mvcc.records import attachment_key, encode_event, event_key, lease_key
from kvstore.state.mvcc.requests import (
    Alarm,
    AlarmAction,
    AlarmKind,
    Compact,
    DeleteRange,
    EnableModel,
    LeaseGrant,
    LeaseRevoke,
    Put,
)
from tests.unit.state.test_model import Story


def told() -> Story:
    """A state with some of everything."""
    story = Story()
    for number in range(20):
        story.put(b"before%d" % number, b"v")
    story.ask(EnableModel())
    for number in range(40):
        story.ask(Put(b"k%d" % (number % 7), b"v%d" % number))
    story.ask(DeleteRange(b"k3", b""))
    story.ask(LeaseGrant(7, 60))
    story.ask(LeaseGrant(8, 60))
    story.ask(Put(b"on lease", b"", 7))
    story.ask(Put(b"on another", b"", 8))
    story.ask(LeaseRevoke(8))
    story.ask(Alarm(AlarmAction.ACTIVATE, 2, AlarmKind.CORRUPT))
    story.ask(Alarm(AlarmAction.DEACTIVATE, 2, AlarmKind.CORRUPT))
    story.put(b"by v1", b"")
    story.command(put_command(story.request(), b"before3", b"again"))
    story.machine.flush()
    return story


def database(story: Story) -> DB:
    return story.machine._db


def change(story: Story, key: bytes, value: bytes | None) -> None:
    """A row as nothing that is applied would write it."""
    db = database(story)
    batch = db.write_batch()
    if value is None:
        batch.delete(key)
    else:
        batch.put(key, value)
    db.write(batch, sequence=db.last_sequence, applied_index=story.machine.applied_index)
    db.flush()


def test_a_state_that_was_applied_is_right_whatever_was_done_to_it() -> None:
    story = told()
    assert check_rows(database(story)) == []
    story.ask(Compact(story.machine.revision - 5))
    story.machine.flush()
    assert check_rows(database(story)) == []


def test_an_empty_one_is_right() -> None:
    assert check_rows(database(Story())) == []


CHANGES = {
    "a key that its newest change doesn't have": (b"\x01k5", None, "put is not there"),
    "one that is there after it was deleted": (
        b"\x01k3",
        b"\x01\x01\x00x",
        "no change is known",
    ),
    "a record that can't be read": (b"\x01k5", b"\xff\xff", "can't be read"),
    "a lease that is gone": (lease_key(7), None, "isn't there"),
    "a lease that doesn't know its key": (
        attachment_key(7, b"on lease"),
        None,
        "doesn't know of it",
    ),
    "a lease with a key that is none": (attachment_key(7, b"nobody"), b"", "isn't there"),
    "a lease with another one's key": (attachment_key(7, b"k5"), b"", "on another one"),
    "a change that can't be read": (event_key(30, 0), b"\x07", "a change can't be read"),
    "a change from beyond": (event_key(10_000, 0), encode_event(False, b"k5", 1), "beyond"),
    "requests that can't be read": (b"\x00request" + bytes(8), b"\x09", "requests of an entry"),
    "a session that can't be read": (b"\x00session" + bytes(16), b"\x09", "a session"),
    "an alarm that can't be read": (b"\x06\x00", b"", "an alarm"),
    "users that can't be read": (b"\x05\x00", b"\x09\x09", "users and roles"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_it_tells(what: str) -> None:
    key, value, words = CHANGES[what]
    story = told()
    change(story, key, value)
    findings = check_rows(database(story))
    assert any(words in finding for finding in findings), findings
    assert len(findings) <= 3


def test_where_all_is_wrong_not_all_of_it_is_told() -> None:
    story = told()
    db = database(story)
    batch = db.write_batch()
    for number in range(3 * FINDINGS_MAX):
        batch.put(b"\x00session" + number.to_bytes(16, "big"), b"\x09")
    db.write(batch, sequence=db.last_sequence, applied_index=story.machine.applied_index)
    assert len(check_rows(db)) == FINDINGS_MAX
