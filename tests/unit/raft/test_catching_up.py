"""A follower that needs more than memory holds, while the leader goes on writing and compacting:
it gets what is on the disk, or a snapshot and what follows it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kvstore.errors import CorruptionError
from kvstore.raft import Entry, EntryKind, Message, MessageKind, Options, older
from kvstore.raft.progress import PeerState

from .raft_cluster import Cluster, voters

OPTIONS = Options(tail_entries=2, tail_bytes=100, transfer_bytes=4000)
PAYLOAD = b"x" * 100


class SlowTransfer(Cluster):
    """Snapshots wait in ``offered`` until :meth:`transfer`."""

    offered: list[Message]
    mark_at_start = 0

    def deliver(self, message: Message) -> None:
        if message.kind is MessageKind.SNAPSHOT and message.to not in self._down():
            self.offered.append(message)
            source = self.members[message.sender]
            self.mark_at_start = source.applied
            self.snapshots[source.applied] = tuple(source.state)
        else:
            super().deliver(message)

    def _down(self) -> set[int]:
        return {to for sender, to in self.cut if sender == self.leader}

    def transfer(self) -> None:
        """What was offered first arrives whole, as it was when it was begun."""
        message = self.offered[-1]
        source = self.members[message.sender]
        mark = replace(
            source.core.snapshot_meta(max(self.mark_at_start, source.core.status().first_index - 1))
        )
        assert mark.index == self.mark_at_start, "the entry after the snapshot is gone"
        self.members[message.to].core.step(replace(message, snapshot=mark))
        source.core.snapshot_status(message.to, ok=True)


def fallen_behind() -> SlowTransfer:
    """Member 3 needs a snapshot, and it is under way."""
    cluster = SlowTransfer(voters(1, 2, 3), options=OPTIONS)
    cluster.offered = []
    cluster.elect(1)
    cluster.isolate(3)
    write(cluster, 10)
    cluster.heal()
    cluster.tick(3)
    assert len(cluster.offered) == 1
    return cluster


def write(cluster: Cluster, count: int) -> None:
    for _ in range(count):
        cluster.propose(PAYLOAD)
        for member in cluster.up:
            member.compact()


def first_index(cluster: Cluster) -> int:
    return cluster[1].status().first_index


def peer(cluster: Cluster, member: int = 3) -> PeerState:
    return next(p.state for p in cluster[1].status().peers if p.member == member)


def test_what_follows_a_snapshot_stays_until_the_follower_has_it():
    cluster = fallen_behind()
    write(cluster, 30)
    assert first_index(cluster) == cluster.mark_at_start + 1
    cluster.transfer()
    cluster.settle()
    cluster.tick(2)
    assert len(cluster.offered) == 1
    assert peer(cluster) is PeerState.REPLICATE
    assert len(cluster.states()) == 1
    # And now it goes.
    write(cluster, 3)
    assert first_index(cluster) >= cluster[1].status().last_index - 2


def test_it_stays_after_the_transfer_as_well_until_the_follower_has_caught_up():
    cluster = fallen_behind()
    write(cluster, 5)
    mark = cluster.mark_at_start
    cluster.transfer()
    # The snapshot is whole there, but its answer is on its way.
    cluster.cut = {(3, 1)}
    for _ in range(3):
        cluster.propose(PAYLOAD)
        cluster.members[1].compact()
    assert first_index(cluster) == mark + 1
    cluster.heal()
    cluster.tick(3)
    assert len(cluster.offered) == 1
    assert peer(cluster) is PeerState.REPLICATE


def test_so_much_and_no_more_is_kept_for_it():
    cluster = fallen_behind()
    write(cluster, 100)
    status = cluster[1].status()
    assert status.log_bytes <= OPTIONS.transfer_bytes
    assert status.log_bytes > OPTIONS.transfer_bytes // 2
    assert first_index(cluster) > cluster.mark_at_start + 1


def test_a_transfer_that_failed_keeps_nothing():
    cluster = fallen_behind()
    write(cluster, 10)
    cluster[1].snapshot_status(3, ok=False)
    write(cluster, 1)
    assert first_index(cluster) >= cluster[1].status().last_index - 2


def test_a_follower_that_went_silent_keeps_nothing():
    cluster = fallen_behind()
    cluster.isolate(3)
    write(cluster, 10)
    assert first_index(cluster) == cluster.mark_at_start + 1
    cluster.tick(10 * OPTIONS.election_ticks)
    write(cluster, 1)
    assert first_index(cluster) >= cluster[1].status().last_index - 2


# From the disk


def behind_memory(tail: int = 1000, lacking: int = 40, options: Options = OPTIONS) -> Cluster:
    """Member 3 lacks more than the others hold in memory; nothing has been sent to it yet."""
    cluster = Cluster(voters(1, 2, 3), options=options, tail=tail)
    cluster.elect(1)
    write(cluster, 10)
    cluster.isolate(3)
    write(cluster, lacking)
    assert first_index(cluster) > cluster[3].status().last_index + 1
    cluster.heal()
    return cluster


def is_whole(cluster: Cluster) -> bool:
    last = cluster[1].status().last_index
    return all(core.status().last_index == last for core in map(cluster.__getitem__, (1, 2, 3)))


def test_what_memory_has_no_more_comes_from_the_disk():
    cluster = behind_memory()
    cluster.tick(4)
    assert is_whole(cluster)
    assert len(cluster.states()) == 1
    assert cluster.read_back >= 38
    assert peer(cluster) is PeerState.REPLICATE
    assert cluster.members[3].disk.snapshot.index <= 12, "it got a snapshot"


@pytest.mark.parametrize("entries", [1, 2, 7, 1000])
@pytest.mark.parametrize("window", [150, 1000, 100_000])
def test_it_comes_in_pieces_of_any_size_and_no_entry_twice(entries, window):
    options = replace(
        OPTIONS,
        message_entries_max=entries,
        message_bytes_max=350,
        inflight_bytes_max=window,
        inflight_messages_max=3,
    )
    cluster = behind_memory(options=options, lacking=60)
    cluster.tick(60)
    assert is_whole(cluster)
    assert len(cluster.states()) == 1
    assert cluster.members[3].disk.snapshot.index <= 12, "it got a snapshot"


def test_it_goes_on_while_there_are_writes():
    cluster = behind_memory(lacking=100)
    for _ in range(40):
        cluster.propose(PAYLOAD)
        for member in cluster.up:
            member.compact()
        cluster.tick()
    assert is_whole(cluster)
    assert cluster[1].status().peers[1].match == cluster[1].status().last_index


def test_beyond_what_the_disk_keeps_a_snapshot_is_needed():
    cluster = behind_memory(tail=10)
    cluster.tick(4)
    assert is_whole(cluster)
    assert cluster.members[3].disk.snapshot.index > 12
    assert cluster.read_back == 0


def test_at_the_border_of_disk_and_snapshot():
    """The entry before the first one sent is needed for its term."""
    for tail in range(30, 45):
        cluster = behind_memory(tail=tail)
        lacks = cluster[3].status().last_index + 1
        oldest = cluster[1]._state.log.oldest
        cluster.tick(4)
        assert is_whole(cluster)
        assert (cluster.read_back > 0) == (oldest < lacks)
        assert (cluster.members[3].disk.snapshot.index > 12) == (oldest >= lacks)


def test_a_follower_with_another_end_is_led_to_where_the_logs_part():
    cluster = Cluster(voters(1, 2, 3), options=OPTIONS, tail=1000)
    cluster.elect(3)
    write(cluster, 5)
    cluster.isolate(3)
    # Nobody else ever sees these.
    cluster[3].propose([b"lost"] * 6)
    cluster.collect()
    cluster.members[3].sync()
    cluster.wire.clear()
    cluster.elect(1)
    write(cluster, 40)
    assert first_index(cluster) > cluster[3].status().last_index
    cluster.heal()
    cluster.tick(20)
    assert is_whole(cluster)
    assert len(cluster.states()) == 1
    assert cluster.members[3].disk.snapshot.index <= 12, "it got a snapshot"


def waiting_for_the_disk() -> tuple[Cluster, int]:
    """Member 1 has asked for entries from the index given, and didn't get them yet."""
    cluster = behind_memory()
    leader = cluster.members[1]
    leader.read_back = lambda: None
    for _ in range(4):
        for member in cluster.up:
            member.core.tick()
        for _ in range(6):
            cluster.collect()
            for member in cluster.up:
                member.sync()
            wire, cluster.wire = cluster.wire, []
            for message in wire:
                cluster.deliver(message)
    del leader.read_back
    assert len(leader.fetches) == 1
    return cluster, leader.fetches[0].first


def test_what_cannot_be_read_is_made_up_for_by_a_snapshot():
    cluster, first = waiting_for_the_disk()
    cluster.members[1].fetches.clear()
    cluster[1].fetched(3, first, ())
    cluster.tick(4)
    assert is_whole(cluster)
    assert cluster.members[3].disk.snapshot.index > 12


def test_an_answer_that_nobody_waits_for_is_ignored():
    cluster, first = waiting_for_the_disk()
    wrong = [Entry(1, first + 1, EntryKind.EMPTY, b""), Entry(1, first + 2, EntryKind.EMPTY, b"")]
    cluster[1].fetched(3, first + 1, wrong)
    cluster[1].fetched(2, first, wrong)
    cluster[1].fetched(9, first, wrong)
    cluster[1].transfer_leadership(2)
    cluster.members[1].fetches.clear()
    cluster.settle()
    assert cluster.leader == 2
    cluster[1].fetched(3, first, wrong)
    cluster.tick(6)
    assert is_whole(cluster)
    assert len(cluster.states()) == 1


@pytest.mark.parametrize("wrong", ["hole", "terms fall", "too high a term", "start"])
def test_what_cannot_stand_there_is_damage(wrong):
    cluster, first = waiting_for_the_disk()
    good = [cluster.members[1].disk.older[index] for index in range(first, first + 5)]
    entries = list(good)
    if wrong == "hole":
        del entries[2]
    elif wrong == "terms fall":
        entries[1] = entries[1]._replace(term=1)
        entries[0] = entries[0]._replace(term=2)
    elif wrong == "too high a term":
        entries[4] = entries[4]._replace(term=9)
    else:
        del entries[0]
    with pytest.raises(CorruptionError):
        cluster[1].fetched(3, first, entries)


def test_after_a_snapshot_was_installed_nothing_older_is_read_back():
    cluster = behind_memory(tail=10)
    cluster.tick(4)
    assert cluster[3]._state.log.oldest > 12
    cluster.isolate(1)
    cluster.elect(3)
    cluster.heal()
    write(cluster, 5)
    cluster.tick(4)
    assert is_whole(cluster)


def test_what_was_read_back_leaves_in_messages_of_a_size_and_the_last_term_is_known():
    cluster = Cluster(voters(1, 2, 3), options=replace(OPTIONS, message_bytes_max=250), tail=1000)
    cluster.elect(1)
    write(cluster, 12)
    state = cluster[1]._state
    assert state.log.offset > 8
    progress = state.progress[3]
    terms = (1, 1, 1, 1, 2, 2)
    progress.older = [
        Entry(term, index, EntryKind.COMMAND, PAYLOAD * (3 if index == 7 else 1))
        for index, term in enumerate(terms, 3)
    ]
    progress.next = 4
    sent = []
    while progress.next <= 8:
        before = len(state.messages)
        assert older.send(state, 3, progress) is older.Outcome.SENT
        (message,) = state.messages[before:]
        sent.append([entry.index for entry in message.entries])
        last = message.entries[-1]
        assert older.term_before(state.log, progress) == last.term
        for wrong in (last.index, last.index + 2):
            progress.next = wrong
            assert older.term_before(state.log, progress) == -1
        progress.next = last.index + 1
    # The one that is too large for a message has one of its own.
    assert sent == [[4, 5], [6], [7], [8]]


@pytest.mark.parametrize("what", ["entries", "bytes"])
def test_a_log_past_half_of_its_bound_wants_compaction(what):
    bound = {
        "entries": {"log_entries_max": 16},
        "bytes": {"log_bytes_max": 1600, "uncommitted_bytes_max": 800},
    }[what]
    cluster = Cluster(voters(1), options=replace(OPTIONS, **bound))
    cluster.elect(1)
    log = cluster[1]._state.log
    half = 8 if what == "entries" else 800
    while (len(log.entries) if what == "entries" else log.size) <= half:
        assert not cluster[1].wants_compaction
        cluster.propose(PAYLOAD)
    assert cluster[1].wants_compaction


@pytest.mark.parametrize("entries", [1, 3, 1000])
def test_terms_change_within_what_is_read_back(entries):
    cluster = Cluster(
        voters(1, 2, 3), options=replace(OPTIONS, message_entries_max=entries), tail=1000
    )
    cluster.elect(1)
    cluster.isolate(3)
    for leader in (2, 1, 2, 1, 2, 1):
        write(cluster, 2)
        cluster[cluster.leader].transfer_leadership(leader)
        cluster.settle()
        assert cluster.leader == leader
    write(cluster, 10)
    cluster.heal()
    cluster.tick(30)
    assert is_whole(cluster)
    assert len(cluster.states()) == 1
    assert cluster.members[3].disk.snapshot.index <= 3, "it got a snapshot"
