"""Three members of a cluster, all of whose disks are found as after a crash at one moment."""

from __future__ import annotations

import random
from typing import NamedTuple

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.errors import Error, UnavailableError
from kvstore.raft import Membership
from kvstore.state import Command, encode_commands
from tests.crash.states.library import Content, fingerprint
from tests.crash.states.moments import Case, Moments, Taken, Tally
from tests.unit.replica.driven_group import DrivenGroup, delete_of, into, put_of

__all__ = ["MemberStates"]

MEMBERS = frozenset((1, 2, 3))
KEYS = 20
VALUE_BYTES = 1500
TRIES = 500


class Promise(NamedTuple):
    """``contents``: fingerprints of what may be there. ``votes``: each member's term and vote that
    others may have been told of, by member."""

    contents: frozenset[bytes]
    votes: dict[int, tuple[int, int]]


class MemberStates:
    """Puts and deletes, flushes, compactions and new segments on their way, changes of leader and
    of members, entries that are overwritten, a snapshot that is installed, restarts.

    All three start again from what is left: what was acknowledged has a majority of disks, each of
    which lost what it may lose.
    """

    def __init__(self, seed: int, ways: int, tally: Tally, only: Case | None = None) -> None:
        self.seed = seed
        self.chance = random.Random(seed)
        self.disk = MemoryFileSystem()
        self.disk.make_directories("/data")
        self.content: Content = {}
        self.contents = frozenset((fingerprint({}),))
        self.votes: dict[int, tuple[int, int]] = {}
        self.asked = 0
        self.openings = 0
        self.moments = Moments(self.disk, seed, ways, self._promised, self._check, tally, only)
        self.driven = self._opened()

    def run(self) -> None:
        """Raises AssertionError that tells the case."""
        self._write(25)
        self._overwrite()
        self._write(10)
        self._change_members()
        self._fall_behind()
        self._write(10)
        self._restart()
        self._transfer()
        self._write(25)
        self.driven.group.close()
        self.moments.check()
        self.moments.stop()

    # --- the workload ----------------------------------------------------------------------------

    def _opened(self) -> DrivenGroup:
        self.openings += 1
        return DrivenGroup(self.disk, seed=self.openings)

    def _command(self) -> tuple[Command, Content]:
        """One more write, and what is there once it is applied."""
        self.asked += 1
        key = b"%02d" % self.chance.randrange(KEYS)
        after = dict(self.content)
        if self.chance.random() < 0.15:
            after.pop(key, None)
            return delete_of(f"r{self.asked}", key), after
        after[key] = self.chance.randbytes(VALUE_BYTES)
        return put_of(f"r{self.asked}", key, after[key]), after

    def _write(self, count: int) -> None:
        for _ in range(count):
            command, after = self._command()
            self.contents |= {fingerprint(after)}
            self._ask(command)
            self.content, self.contents = after, frozenset((fingerprint(after),))

    def _ask(self, command: Command) -> None:
        answers: list[object] = []
        for _ in range(TRIES):
            answers.clear()
            leader = self.driven.group.leader_replica()
            if leader is not None:
                leader.propose(encode_commands([command]), into(answers))
                self._step(until_answered=answers)
                if answers and not isinstance(answers[0], Error):
                    return
            self._step()
        raise AssertionError(f"no answer but {answers}; failures: {self.driven.failed}")

    def _step(self, until_answered: list[object] | None = None) -> None:
        for _ in range(1 if until_answered is None else TRIES):
            if until_answered:
                return
            self._note_votes()
            self.driven.step()
            self.moments.check()

    def _note_votes(self) -> None:
        for member, replica in self.driven.group.replicas.items():
            if not replica.storage_busy:
                raft = replica.status().raft
                self.votes[member] = raft.term, raft.vote

    def _overwrite(self) -> None:
        """A leader that is cut off appends what another one's entries then take the place of."""
        old = self.driven.leader()
        self.driven.group.network.isolate(old.member, [m for m in MEMBERS if m != old.member])
        command, after = self._command()
        self.contents |= {fingerprint(after)}
        old.propose(encode_commands([command]), lambda outcome: None)
        replicas = self.driven.group.replicas
        for _ in range(TRIES):
            if any(one.is_leader and one.term > old.term for one in replicas.values()):
                break
            self._step()
        # It may come back with the old leader until another one's entry has taken its place.
        maybe = fingerprint(after)
        later, after_that = self._command()
        self.contents |= {fingerprint(after_that), self._with(after, after_that)}
        new = next(one for one in replicas.values() if one.is_leader and one.term > old.term)
        answers: list[object] = []
        new.propose(encode_commands([later]), into(answers))
        self._step(until_answered=answers)
        assert not isinstance(answers[0], Error), (answers, maybe)
        self.content, self.contents = after_that, frozenset((fingerprint(after_that),))
        self.driven.group.network.heal()
        self._settle()

    def _with(self, first: Content, second: Content) -> bytes:
        """What is there if both writes are, one after the other."""
        both = dict(first)
        for key in {*self.content, *second}:
            if self.content.get(key) != second.get(key):
                both.pop(key, None)
                if key in second:
                    both[key] = second[key]
        return fingerprint(both)

    def _settle(self) -> None:
        for _ in range(TRIES):
            leader = self.driven.group.leader_replica()
            applied = {one.status().applied for one in self.driven.group.replicas.values()}
            if leader is not None and applied == {leader.status().raft.last_index}:
                return
            self._step()
        raise AssertionError("the members don't come together")

    def _change_members(self) -> None:
        for target in (
            Membership(voters=frozenset((1, 2)), learners=frozenset((3,))),
            Membership(voters=MEMBERS),
        ):
            for _ in range(TRIES):
                leader = self.driven.group.leader_replica()
                if leader is not None:
                    try:
                        proposed = leader.propose_membership(target)
                        break
                    except UnavailableError:
                        pass
                self._step()
            for _ in range(TRIES):
                if leader.change_is_done(proposed):
                    break
                self._step()
            self._settle()

    def _fall_behind(self) -> None:
        """One misses more than the others' logs keep: it installs their state."""
        cut_off = next(m for m in MEMBERS if m != self.driven.leader().member)
        self.driven.group.network.isolate(cut_off, [m for m in MEMBERS if m != cut_off])
        last = self.driven.group.replicas[cut_off].status().raft.last_index
        for _ in range(200):
            if self.driven.leader().status().raft.first_index > last + 1:
                break
            self._write(1)
        else:
            raise AssertionError("the others keep their logs")
        self.driven.group.network.heal()
        self._settle()

    def _transfer(self) -> None:
        leader = self.driven.leader()
        leader.transfer_leadership(next(m for m in MEMBERS if m != leader.member))
        for _ in range(20):
            self._step()
        self._settle()

    def _restart(self) -> None:
        self.driven.group.close()
        self.moments.check()
        self.driven = self._opened()
        self._settle()

    # --- what is left ----------------------------------------------------------------------------

    def _promised(self) -> Promise:
        return Promise(self.contents, dict(self.votes))

    def _check(self, taken: Taken[Promise]) -> None:
        try:
            self._check_one(taken)
        except Exception as error:
            raise AssertionError(
                f"python -m tests.crash.states member --seed {self.seed} "
                f"--case {taken.case.moment}:{taken.case.way}"
            ) from error

    @staticmethod
    def _check_one(taken: Taken[Promise]) -> None:
        contents, votes = taken.promise
        with DrivenGroup(taken.disk, seed=taken.case.way) as driven:
            for member, (term, vote) in votes.items():
                raft = driven.group.replicas[member].status().raft
                assert not raft.damaged, f"member {member} counts as damaged"
                assert raft.term >= term, f"member {member} forgot term {term}: {raft.term}"
                assert raft.term > term or raft.vote == vote or not vote, (
                    f"member {member} forgot its vote for {vote} in term {term}"
                )
            assert driven.put(b"after", b"it") == [False]
            driven.settle()
            assert len(driven.hashes()) == 1
            assert not driven.failed
            machine = driven.leader().machine
            found = {
                key: value
                for key in (b"%02d" % number for number in range(KEYS))
                if (value := machine.get(key)) is not None
            }
            assert fingerprint(found) in contents, f"none of the {len(contents)} that may be there"
