"""A walk through the Raft paper: each rule once, in the order of its sections.

Members are single cores here; the test plays the rest of the cluster by hand.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest

from kvstore.errors import NotLeaderError
from kvstore.raft import (
    Bundle,
    Entry,
    EntryKind,
    HardState,
    Membership,
    Message,
    MessageKind,
    Options,
    Raft,
    Role,
    SnapshotMeta,
    bootstrap,
)

from .raft_cluster import Cluster, voters

K = MessageKind


def make(member: int = 1, size: int = 3, *, terms: tuple[int, ...] = (), term: int = 1) -> Raft:
    """A member of a cluster of ``size`` whose log has, after the first, entries of these terms."""
    _, first = bootstrap(voters(*range(1, size + 1)))
    log = [*first]
    for position, at in enumerate(terms):
        log.append(Entry(at, 2 + position, EntryKind.COMMAND, b"%d" % (2 + position)))
    return Raft(
        member,
        Options(),
        rng=random.Random(member),
        hard_state=HardState(max((term, *terms))),
        entries=log,
    )


def take(core: Raft, *, sync: bool = True) -> list[Message]:
    """All messages that come out, everything written at once."""
    messages: list[Message] = []
    while (bundle := core.ready()) is not None:
        messages += bundle.messages
        if bundle.must_sync and sync:
            core.stored(bundle.number)
        if bundle.committed:
            core.applied(bundle.committed[-1].index)
    return messages


def lead(core: Raft, *voters_for: int) -> list[Message]:
    """Win an election with the votes given; what a fresh leader sends comes back."""
    core.campaign()
    take(core)
    for voter in voters_for:
        core.step(Message(K.PRE_VOTE_RESPONSE, core.id, voter, core.term + 1))
    take(core)
    for voter in voters_for:
        core.step(Message(K.VOTE_RESPONSE, core.id, voter, core.term))
    assert core.role is Role.LEADER
    return take(core)


def acknowledge(core: Raft, index: int, *members: int) -> None:
    for member in members:
        core.step(Message(K.APPEND_RESPONSE, core.id, member, core.term, log_index=index))


# §5.1 Raft basics


@pytest.mark.parametrize("role", [Role.FOLLOWER, Role.CANDIDATE, Role.LEADER])
def test_5_1_higher_term_makes_any_role_a_follower(role: Role) -> None:
    core = make()
    if role is Role.LEADER:
        lead(core, 2)
    elif role is Role.CANDIDATE:
        core.campaign()
        core.step(Message(K.PRE_VOTE_RESPONSE, 1, 2, 2))
    assert core.role is role
    core.step(Message(K.APPEND, 1, 3, core.term + 5, log_index=1, log_term=1))
    assert (core.role, core.term, core.leader) == (Role.FOLLOWER, 6 + (role > 0), 3)


@pytest.mark.parametrize("kind", [K.APPEND, K.HEARTBEAT, K.SNAPSHOT, K.VOTE, K.PRE_VOTE])
def test_5_1_request_of_an_old_term_is_refused_with_the_present_one(kind: MessageKind) -> None:
    core = make(term=7)
    core.step(Message(kind, 1, 2, 3, log_index=1, log_term=1))
    answers = take(core)
    assert [(answer.term, answer.reject) for answer in answers] == [(7, True)]
    assert (core.term, core.leader) == (7, 0)


@pytest.mark.parametrize(
    "kind",
    [K.APPEND_RESPONSE, K.HEARTBEAT_RESPONSE, K.VOTE_RESPONSE, K.READ_RESPONSE, K.TIMEOUT_NOW],
)
def test_5_1_answer_of_an_old_term_is_dropped(kind: MessageKind) -> None:
    core = make()
    lead(core, 2)
    core.step(Message(kind, 1, 2, 1, log_index=2))
    assert (core.commit, core.role, take(core)) == (0, Role.LEADER, [])


# §5.2 Leader election


def test_5_2_member_starts_as_follower_and_stays_one_while_it_hears_its_leader() -> None:
    core = make()
    assert core.role is Role.FOLLOWER
    for _ in range(100):
        core.tick()
        core.step(Message(K.HEARTBEAT, 1, 2, 1, context=1))
    assert (core.role, core.leader) == (Role.FOLLOWER, 2)


def test_5_2_silent_leader_is_replaced_after_a_timeout_between_one_and_two_election_ticks() -> None:
    waits: Counter[int] = Counter()
    for seed in range(300):
        core = make()
        core._state.rng.seed(seed)
        core.step(Message(K.HEARTBEAT, 1, 2, 2, context=1))
        ticks = 0
        while core.role is Role.FOLLOWER:
            core.tick()
            ticks += 1
        waits[ticks] += 1
    assert set(waits) == set(range(10, 20)), "every timeout in [n, 2n) occurs"


def test_5_2_candidate_votes_for_itself_in_a_new_term_and_asks_all_others() -> None:
    core = make(size=5)
    core.campaign()
    take(core)
    for voter in (2, 3):
        core.step(Message(K.PRE_VOTE_RESPONSE, 1, voter, 2))
    requests = take(core)
    assert (core.role, core.term) == (Role.CANDIDATE, 2)
    assert {(m.kind, m.to, m.term) for m in requests} == {(K.VOTE, to, 2) for to in (2, 3, 4, 5)}
    assert core.status().vote == 1


@pytest.mark.parametrize(
    ("size", "granted", "refused", "role"),
    [
        (3, 1, 0, Role.LEADER),
        (3, 0, 1, Role.CANDIDATE),
        (3, 0, 2, Role.FOLLOWER),
        (5, 1, 2, Role.CANDIDATE),
        (5, 2, 2, Role.LEADER),
        (5, 1, 3, Role.FOLLOWER),
        (4, 1, 0, Role.CANDIDATE),
        (4, 2, 0, Role.LEADER),
        (9, 4, 4, Role.LEADER),
    ],
)
def test_5_2_majority_of_votes_decides(size: int, granted: int, refused: int, role: Role) -> None:
    core = make(size=size)
    core.campaign()
    for voter in range(2, size + 1):
        core.step(Message(K.PRE_VOTE_RESPONSE, 1, voter, 2))
    take(core)
    for position, voter in enumerate(range(2, 2 + granted + refused)):
        core.step(Message(K.VOTE_RESPONSE, 1, voter, 2, reject=position >= granted))
        core.step(Message(K.VOTE_RESPONSE, 1, voter, 2, reject=position >= granted))
    assert core.role is role


def test_5_2_one_vote_a_term_first_come_first_served() -> None:
    core = make()
    for candidate in (2, 3, 2):
        core.step(Message(K.VOTE, 1, candidate, 2, log_index=1, log_term=1))
    answers = {(m.to, m.reject) for m in take(core)}
    assert answers == {(2, False), (3, True)}


def test_5_2_vote_in_a_term_that_is_saved_already_is_saved_before_it_leaves() -> None:
    core = make()
    core.step(Message(K.VOTE, 1, 3, 2))
    assert [m.reject for m in take(core)] == [True], "the log of 3 is too short"
    core.step(Message(K.VOTE, 1, 2, 2, log_index=1, log_term=1))
    bundle = core.ready()
    assert isinstance(bundle, Bundle)
    assert bundle.hard_state == HardState(2, 2)
    assert (bundle.must_sync, bundle.messages) == (True, [])
    core.stored(bundle.number)
    assert [(m.to, m.reject) for m in take(core)] == [(2, False)]


def test_5_2_vote_of_an_earlier_term_does_not_count() -> None:
    core = make(size=5)
    core.campaign()
    take(core)
    for voter in (2, 3):
        core.step(Message(K.PRE_VOTE_RESPONSE, 1, voter, 2))
    take(core)
    for voter in (2, 3, 4):
        core.step(Message(K.VOTE_RESPONSE, 1, voter, 1))
    assert (core.role, core.term) == (Role.CANDIDATE, 2)
    for voter in (2, 3):
        core.step(Message(K.VOTE_RESPONSE, 1, voter, 2))
    assert core.role is Role.LEADER


def test_5_2_candidate_follows_a_leader_of_its_term() -> None:
    core = make()
    core.campaign()
    core.step(Message(K.PRE_VOTE_RESPONSE, 1, 2, 2))
    assert core.role is Role.CANDIDATE
    core.step(Message(K.APPEND, 1, 3, 2, log_index=1, log_term=1))
    assert (core.role, core.leader, core.status().vote) == (Role.FOLLOWER, 3, 1)


def test_5_2_split_vote_is_tried_again_in_a_later_term() -> None:
    cluster = Cluster(voters(1, 2, 3, 4))
    for member in (1, 4):
        cluster[member].campaign()
    while {cluster[1].role, cluster[4].role} != {Role.CANDIDATE}:
        cluster.collect()
        wire, cluster.wire = cluster.wire, []
        for message in wire:
            cluster.deliver(message)
    # Both have the pre-votes of all. Of the votes each gets its neighbour's and its own.
    cluster.isolate(3, 4)
    cluster.settle()
    assert cluster.leader == 0
    votes = {member: cluster[member].status().vote for member in (1, 2, 3, 4)}
    assert votes == {1: 1, 2: 1, 3: 4, 4: 4}
    assert {cluster[member].term for member in (1, 2, 3, 4)} == {2}
    cluster.heal()
    cluster.tick(60)
    assert cluster.leader
    assert cluster[cluster.leader].term > 2
    assert cluster[cluster.leader].commit > 0


# §5.3 Log replication


def test_5_3_leader_sends_entries_with_the_place_before_them() -> None:
    core = make()
    lead(core, 2)
    acknowledge(core, 2, 2, 3)
    take(core)
    core.propose([b"a", b"b"])
    sent = [m for m in take(core) if m.kind is K.APPEND]
    assert {(m.to, m.log_index, m.log_term, len(m.entries)) for m in sent} == {
        (2, 2, 2, 2),
        (3, 2, 2, 2),
    }


def test_5_3_entry_is_committed_once_a_majority_holds_it_and_all_before_it_with_it() -> None:
    core = make(size=5)
    lead(core, 2, 3)
    core.propose([b"a"])
    core.propose([b"b"])
    take(core)
    acknowledge(core, 4, 2)
    assert core.commit == 0
    acknowledge(core, 3, 3)
    assert core.commit == 3
    acknowledge(core, 4, 3)
    assert core.commit == 4


def test_5_3_followers_learn_the_commit_index_and_apply_in_order() -> None:
    core = make()
    entries = [Entry(2, index, EntryKind.COMMAND, b"%d" % index) for index in (2, 3, 4)]
    core.step(Message(K.APPEND, 1, 2, 2, log_index=1, log_term=1, entries=entries, commit=1))
    take(core)
    applied: list[int] = []
    for commit in (2, 4, 3):
        core.step(Message(K.HEARTBEAT, 1, 2, 2, commit=commit))
        while (bundle := core.ready()) is not None:
            applied += [entry.index for entry in bundle.committed]
    assert applied == [2, 3, 4]


def test_5_3_commit_of_an_append_counts_only_up_to_the_last_new_entry() -> None:
    core = make(terms=(1, 1, 1))
    core.step(Message(K.APPEND, 1, 2, 2, log_index=2, log_term=1, commit=4))
    assert core.commit == 2, "entries 3 and 4 may be others than the leader's"


@pytest.mark.parametrize(
    ("terms", "before", "reject", "hint"),
    [
        ((1, 2, 3), (4, 3), False, 0),
        ((1, 2), (4, 3), True, 3),
        ((1, 2, 2), (4, 3), True, 4),
        ((1, 2, 5), (4, 3), True, 3),
        ((1, 4, 4), (4, 3), True, 2),
    ],
)
def test_5_3_append_is_refused_unless_the_entry_before_is_equal(
    terms: tuple[int, ...], before: tuple[int, int], reject: bool, hint: int
) -> None:
    core = make(terms=terms)
    core.step(Message(K.APPEND, 1, 2, 6, log_index=before[0], log_term=before[1]))
    (answer,) = [m for m in take(core) if m.kind is K.APPEND_RESPONSE]
    assert (answer.reject, answer.hint_index) == (reject, hint)
    assert answer.log_index == before[0]


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        # Figure 7, shortened: (a) missing entries, (b) missing many, (c) one too many,
        # (d) several of a later term too many, (e) missing and too many, (f) both for long.
        ((1, 1, 1, 4, 4, 5, 5, 6, 6), (1, 1, 1, 4, 4, 5, 5, 6, 6, 6)),
        ((1, 1, 1, 4), (1, 1, 1, 4, 4, 5, 5, 6, 6, 6)),
        ((1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6), (1, 1, 1, 4, 4, 5, 5, 6, 6, 6)),
        ((1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7), (1, 1, 1, 4, 4, 5, 5, 6, 6, 6)),
        ((1, 1, 1, 4, 4, 4, 4), (1, 1, 1, 4, 4, 5, 5, 6, 6, 6)),
        ((1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3), (1, 1, 1, 4, 4, 5, 5, 6, 6, 6)),
    ],
)
def test_5_3_leader_makes_any_follower_log_its_own(
    mine: tuple[int, ...], theirs: tuple[int, ...]
) -> None:
    leader, follower = make(1, terms=theirs, term=8), make(2, terms=mine, term=7)
    other = make(3, terms=theirs, term=8)
    messages = lead(leader, 3)
    refusals = 0
    for _ in range(30):
        for message in messages:
            {2: follower, 3: other}[message.to].step(message)
        answers = take(follower) + take(other)
        refusals += sum(answer.reject for answer in answers)
        for answer in answers:
            if answer.to == 1:
                leader.step(answer)
        messages = take(leader)
        if not messages:
            break
    assert follower._state.log.entries == leader._state.log.entries
    assert refusals <= 3, "a refusal steps back over a whole term"


def test_5_3_doubled_and_old_appends_never_shorten_the_log() -> None:
    core = make()
    entries = [Entry(2, index, EntryKind.COMMAND, b"") for index in (2, 3, 4)]
    whole = Message(K.APPEND, 1, 2, 2, log_index=1, log_term=1, entries=entries)
    part = Message(K.APPEND, 1, 2, 2, log_index=1, log_term=1, entries=entries[:1])
    for message in (whole, part, whole, part):
        core.step(message)
        take(core)
    assert core.status().last_index == 4


# §5.4 Safety


@pytest.mark.parametrize(
    ("index", "term", "granted"),
    [(4, 2, True), (5, 2, True), (3, 2, False), (1, 3, True), (9, 1, False)],
)
def test_5_4_1_vote_goes_only_to_a_log_at_least_as_up_to_date(
    index: int, term: int, granted: bool
) -> None:
    core = make(terms=(1, 2, 2))
    core.step(Message(K.VOTE, 1, 2, 5, log_index=index, log_term=term))
    (answer,) = take(core)
    assert answer.reject is not granted
    assert core.status().vote == (2 if granted else 0)


def test_5_4_2_entry_of_an_earlier_term_is_committed_only_through_one_of_the_own() -> None:
    core = make(terms=(2,), term=2)
    lead(core, 2)
    assert core.term == 3
    acknowledge(core, 2, 2, 3)
    assert core.commit == 0, "everybody has entry 2, but it is of term 2 (figure 8)"
    acknowledge(core, 3, 2)
    assert core.commit == 3


# §5.5, §6, §8


def test_5_5_followers_that_crashed_are_tried_again() -> None:
    core = make()
    lead(core, 2)
    core.propose([b"a"])
    take(core)
    core.tick()
    assert {m.to for m in take(core) if m.kind is K.HEARTBEAT} == {2, 3}
    core.step(Message(K.HEARTBEAT_RESPONSE, 1, 3, core.term, context=1))
    assert [m.to for m in take(core) if m.kind is K.APPEND] == [3]


def test_6_member_that_hears_its_leader_ignores_votes_of_higher_terms() -> None:
    core = make()
    core.step(Message(K.HEARTBEAT, 1, 2, 1, context=1))
    take(core)
    core.step(Message(K.VOTE, 1, 3, 9, log_index=9, log_term=9))
    core.step(Message(K.PRE_VOTE, 1, 3, 9, log_index=9, log_term=9))
    assert (core.term, core.leader, take(core)) == (1, 2, [])
    for _ in range(9):
        core.tick()
    core.step(Message(K.VOTE, 1, 3, 9, log_index=9, log_term=9))
    assert core.term == 1
    core.tick()
    core.step(Message(K.VOTE, 1, 3, 9, log_index=9, log_term=9))
    assert (core.term, core.status().vote) == (9, 3)


def test_6_vote_asked_for_on_the_leaders_wish_is_given_all_the_same() -> None:
    core = make()
    core.step(Message(K.HEARTBEAT, 1, 2, 1, context=1))
    core.step(Message(K.VOTE, 1, 3, 2, log_index=9, log_term=1, forced=True))
    assert (core.term, core.status().vote) == (2, 3)


def test_7_snapshot_replaces_the_log_unless_its_last_entry_is_there() -> None:
    membership = Membership(frozenset({1, 2, 3}))
    core = make(terms=(1, 1))
    known = Message(K.SNAPSHOT, 1, 2, 1, snapshot=SnapshotMeta(2, 1, membership))
    core.step(known)
    assert (core.commit, core.status().last_index) == (2, 3), "entries after it are kept"
    larger = Membership(frozenset({1, 2, 3, 4}))
    ahead = Message(K.SNAPSHOT, 1, 2, 1, snapshot=SnapshotMeta(8, 1, larger))
    core.step(ahead)
    bundle = core.ready()
    assert isinstance(bundle, Bundle)
    assert bundle.snapshot == SnapshotMeta(8, 1, larger)
    assert (core.commit, core.status().first_index, core.status().last_index) == (8, 9, 8)
    assert core.membership == larger


def test_7_old_snapshot_is_answered_and_ignored() -> None:
    core = make(terms=(1, 1))
    core.step(Message(K.HEARTBEAT, 1, 2, 1, commit=3))
    take(core)
    core.step(Message(K.SNAPSHOT, 1, 2, 1, snapshot=SnapshotMeta(2, 1, Membership())))
    (answer,) = take(core)
    assert (answer.kind, answer.log_index, core.status().last_index) == (K.APPEND_RESPONSE, 3, 3)


def test_7_snapshot_carries_the_configuration_of_its_index_not_a_newer_one() -> None:
    core = make()
    lead(core, 2)
    acknowledge(core, 2, 2)
    take(core)
    changed = Membership(frozenset({1, 2, 3}), learners=frozenset({4}))
    core.propose_membership(changed)
    take(core)
    assert core.membership == changed
    assert core.snapshot_meta(2) == SnapshotMeta(2, 2, Membership(frozenset({1, 2, 3})))


def test_8_new_leader_commits_an_empty_entry_first() -> None:
    core = make()
    sent = lead(core, 2)
    assert {m.entries[-1].kind for m in sent if m.kind is K.APPEND} == {EntryKind.EMPTY}


def test_8_only_the_leader_takes_commands_and_others_name_it() -> None:
    core = make()
    core.step(Message(K.HEARTBEAT, 1, 3, 1, context=1))
    with pytest.raises(NotLeaderError) as caught:
        core.propose([b"a"])
    assert caught.value.leader == 3
