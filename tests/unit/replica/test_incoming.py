"""What a member that sends anything can do to the others: nothing that stops them."""

from __future__ import annotations

import dataclasses
import random
from contextlib import nullcontext

import pytest

from kvstore.errors import CorruptionError, Error
from kvstore.raft import Entry, EntryKind, Membership, Message, MessageKind, SnapshotMeta
from kvstore.raft.codec import encode_membership
from kvstore.replica import Packet, Replica, SnapshotPart, SnapshotProgress
from kvstore.state import encode_commands
from kvstore.state.commands import Command
from tests.unit.replica.driven_group import DrivenGroup, delete_of, put_of

K = MessageKind
GOOD = encode_commands([put_of("r", b"k", b"v"), delete_of("s", b"k")])


def append_to(replica: Replica, sender: int, kind: EntryKind, data: bytes) -> Message:
    """An APPEND that follows the log of ``replica``, from whoever leads the next term."""
    raft = replica.status().raft
    term = raft.term + 1
    entry = Entry(term, raft.last_index + 1, kind, data)
    return Message(
        K.APPEND,
        replica.member,
        sender,
        term,
        raft.last_index,
        raft.term,
        raft.last_index + 1,
        entries=[entry],
    )


BAD_ENTRIES = {
    "garbage": (EntryKind.COMMAND, b"\xff" * 30),
    "nothing": (EntryKind.COMMAND, b""),
    "cut": (EntryKind.COMMAND, GOOD[:-1]),
    "more": (EntryKind.COMMAND, GOOD + b"\0"),
    "an empty key": (EntryKind.COMMAND, encode_commands([Command(1, b"", b"", b"", b"v")])),
    "a delete with a value": (
        EntryKind.COMMAND,
        encode_commands([Command(2, b"", b"", b"k", b"")])[:-1] + b"kv",
    ),
    "another kind": (EntryKind.COMMAND, encode_commands([Command(3, b"", b"", b"k", b"v")])),
    "members cut": (EntryKind.MEMBERSHIP, b"\x01"),
    "no voters": (EntryKind.MEMBERSHIP, encode_membership(Membership())),
    "voter and learner": (
        EntryKind.MEMBERSHIP,
        encode_membership(Membership(frozenset({1, 2}), learners=frozenset({2}))),
    ),
    "ten voters": (EntryKind.MEMBERSHIP, encode_membership(Membership(frozenset(range(1, 11))))),
    "words in an empty one": (EntryKind.EMPTY, b"x"),
}


@pytest.mark.parametrize("name", BAD_ENTRIES)
def test_an_entry_that_cant_be_applied_is_not_appended(name: str) -> None:
    kind, data = BAD_ENTRIES[name]
    with DrivenGroup() as group:
        group.put(b"k", b"1")
        leader = group.leader().member
        group.settle()
        victim = group.group.replicas[leader % 3 + 1]
        hostile = next(m for m in (1, 2, 3) if m not in (leader, victim.member))
        last = victim.status().raft.last_index
        with pytest.raises(CorruptionError):
            victim.receive([append_to(victim, hostile, kind, data)])
        group.step()
        assert victim.failure is None
        assert victim.status().raft.last_index == last
        assert group.put(b"k", b"2") == [True]
        group.settle()
        assert len(group.hashes()) == 1
        assert not group.failed


def test_commands_that_were_made_here_pass() -> None:
    with DrivenGroup() as group:
        group.put(b"k", b"1")
        leader = group.leader().member
        victim = group.group.replicas[leader % 3 + 1]
        hostile = next(m for m in (1, 2, 3) if m not in (leader, victim.member))
        last = victim.status().raft.last_index
        victim.receive([append_to(victim, hostile, EntryKind.COMMAND, GOOD)])
        assert victim.status().raft.last_index == last + 1


def test_members_that_this_program_cant_follow_are_refused() -> None:
    def refuse(membership: Membership) -> None:
        raise CorruptionError("no address")

    with DrivenGroup() as group:
        leader = group.leader().member
        victim = group.group.replicas[leader % 3 + 1]
        victim._judge_membership = refuse
        data = encode_membership(Membership(frozenset({1, 2, 3})))
        with pytest.raises(CorruptionError, match="no address"):
            victim.receive([append_to(victim, leader, EntryKind.MEMBERSHIP, data)])
        assert victim.failure is None


def test_a_snapshot_that_isnt_what_its_mark_says_is_refused() -> None:
    """It used to be installed, and the member stopped for good when it was opened."""
    with DrivenGroup() as group:
        for number in range(60):
            group.put(b"%d" % number, b"v" * 2000)
        leader = group.leader()
        victim = group.group.replicas[leader.member % 3 + 1]
        group.group.network.isolate(victim.member, [m for m in (1, 2, 3) if m != victim.member])
        for number in range(60):
            group.put(b"%d" % number, b"w" * 2000)
        leader.machine.flush()
        for _ in range(60):
            group.step()

        def forge(packet: Packet) -> Packet:
            if isinstance(packet, SnapshotPart):
                meta = dataclasses.replace(packet.meta, index=packet.meta.index + 1_000_000)
                return dataclasses.replace(packet, meta=meta)
            return packet

        parts = []
        real = victim.receive

        def receive(packets: list[Packet]) -> None:
            parts.extend(p for p in packets if isinstance(p, SnapshotPart))
            real([forge(packet) for packet in packets])

        victim.receive = receive  # type: ignore[method-assign]
        group.group.network.heal()
        for _ in range(100):
            group.step()
        assert parts
        assert victim.failure is None
        victim.receive = real  # type: ignore[method-assign]
        group.settle()
        assert len(group.hashes()) == 1


LIES = {"a term that leaps": 1 << 33, "a second leader": 0}


@pytest.mark.parametrize("kind", ["message", "part", "progress"])
@pytest.mark.parametrize("lie", LIES)
def test_a_lie_about_who_leads_stops_nobody(lie: str, kind: str) -> None:
    """As a part of a snapshot it used to fence each member that got it."""
    with DrivenGroup() as group:
        group.put(b"k", b"1")
        group.settle()
        leader = group.leader()
        victim = group.group.replicas[leader.member % 3 + 1]
        hostile = next(m for m in (1, 2, 3) if m not in (leader.member, victim.member))
        term = victim.term + LIES[lie]
        packet: Packet
        if kind == "message":
            packet = Message(K.HEARTBEAT, victim.member, hostile, term)
        elif kind == "part":
            meta = SnapshotMeta(5, 1, victim.membership)
            packet = SnapshotPart(victim.member, hostile, term, meta, 100, 0, b"x")
        else:
            packet = SnapshotProgress(hostile, victim.member, term, 5, 1)
        with nullcontext() if kind == "progress" else pytest.raises(CorruptionError):
            victim.receive([packet])
        group.settle()
        assert group.put(b"k", b"2") == [True]
        assert not group.failed
        assert victim.leader == leader.member


def random_message(chance: random.Random, sender: int, to: int, term: int, last: int) -> Message:
    """Anything: near to what could be, and far from it."""

    def number(near: int) -> int:
        return chance.choice(
            (0, near, near + chance.randint(-2, 2), chance.getrandbits(40), (1 << 63) - 1)
        ) % (1 << 63)

    before = number(last)
    message_term = number(term)
    entries = []
    if chance.random() < 0.6:
        kind = chance.choice(list(EntryKind))
        data = chance.choice((b"", chance.randbytes(chance.randint(1, 60)), GOOD))
        entries = [Entry(max(1, message_term), before + 1, kind, data)]
    return Message(
        chance.choice([kind for kind in K if kind is not K.SNAPSHOT]),
        to,
        sender,
        message_term,
        before,
        number(term),
        number(last),
        number(last),
        number(3),
        entries,
        None,
        chance.random() < 0.5,
        chance.random() < 0.5,
        False,
    )


@pytest.mark.parametrize("seed", range(6))
def test_one_without_membership_that_sends_anything_costs_nothing(seed: int) -> None:
    chance = random.Random(seed)
    with DrivenGroup(seed=seed) as group:
        group.put(b"k", b"0")
        group.settle()
        leader = group.leader()
        term = leader.status().raft.term
        for round_number in range(60):
            for replica in group.group.replicas.values():
                raft = replica.status().raft
                message = random_message(chance, 77, replica.member, raft.term, raft.last_index)
                try:
                    replica.receive([message])
                except CorruptionError:
                    pass
                except Error as error:
                    raise AssertionError(f"{message} gave {error!r}") from error
            group.step()
            if round_number % 10 == 9:
                assert group.put(b"k", b"%d" % round_number) == [True]
        assert not group.failed
        assert group.leader() is leader
        assert leader.status().raft.term == term
        group.settle()
        assert len(group.hashes()) == 1


def test_news_of_a_snapshot_without_its_bytes_is_a_lie() -> None:
    """A member whose core believed it waited for a state that nobody would ever send."""
    with DrivenGroup() as group:
        group.put(b"k", b"v")
        group.settle()
        leader = group.leader()
        follower = next(r for r in group.group.replicas.values() if r is not leader)
        mark = SnapshotMeta(1 << 62, leader.term, leader.membership)
        news = Message(K.SNAPSHOT, follower.member, leader.member, leader.term, snapshot=mark)
        with pytest.raises(CorruptionError, match="without the snapshot"):
            follower.receive([news])
        group.put(b"k", b"w")
        group.settle()
        assert not group.failed
