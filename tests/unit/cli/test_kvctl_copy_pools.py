"""``kvctl copy`` between a group and a pool, both in memory."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any

import click
import pytest

from kvstore.beyond.rados.layout import HEAD_KEY
from kvstore.beyond.rados.walking import Found
from kvstore.cli.interface.connection import Settings
from kvstore.cli.kvctl import exit_code_of
from kvstore.cli.transfer import following, pool_side, pools, silence
from kvstore.cli.transfer.comparing import Sum
from kvstore.cli.transfer.export import newest_revision
from kvstore.cli.transfer.following import Copied
from kvstore.cli.transfer.passes import PASSES_MAX
from kvstore.cli.transfer.plan import Plan, There
from kvstore.cli.transfer.pool_side import PoolSide
from kvstore.cli.transfer.pools import from_pool, to_pool
from kvstore.cli.transfer.sides import GroupSide
from kvstore.client import Client, Watch
from kvstore.errors import DeadlineExceededError, NoSpaceError, StorageError, UnavailableError
from kvstore.service.operations import Result
from kvstore.testing import MemoryClient
from tests.unit.beyond.live_pool import live_pool
from tests.unit.beyond.memory_pool import MemoryOperation, MemoryPool

ALL = {b"k%03d" % n: b"value %d" % n for n in range(120)}
ALL |= {b"large%d" % n: bytes(5000 + n) for n in range(5)}
ALL |= {b"\0\1odd": b"", b"p/a": b"1", b"p/b": b"2"}
REFUSE = Plan()
MERGE = Plan(there=There.MERGED)
MIRROR = Plan(there=There.MIRRORED)


class Copying:
    """A group, a pool, and what is said of a copy from one to the other."""

    def __init__(self, group: MemoryClient, capsys: pytest.CaptureFixture[str]) -> None:
        self.group = group
        self.memory = MemoryPool()
        self.pool = live_pool(self.memory)
        self.side = PoolSide(self.pool)
        self.said = ""
        self._capsys = capsys

    def to_pool(self, plan: Plan = REFUSE) -> tuple[int, dict[str, Any]]:
        return self._told(lambda context: to_pool(context, self.group, self.side, plan))

    def from_pool(self, plan: Plan = REFUSE) -> tuple[int, dict[str, Any]]:
        return self._told(lambda context: from_pool(context, self.side, self.group, plan))

    def _told(self, copy: Callable[[click.Context], int]) -> tuple[int, dict[str, Any]]:
        context = click.Context(click.Command("copy"), obj=Settings(output="json"))
        try:
            status = copy(context)
        finally:
            told = self._capsys.readouterr()
            self.said = told.err
        return status, json.loads(told.out)

    def told(self) -> str:
        """In words."""
        return self._capsys.readouterr().out

    def in_pool(self) -> dict[bytes, bytes]:
        return dict(pair for page in self.side.pages(b"") for pair in page.pairs)

    def in_group(self) -> dict[bytes, bytes]:
        return {entry.key: entry.value for entry in self.group.range()}

    def fill_pool(self, pairs: dict[bytes, bytes] = ALL) -> None:
        assert self.pool.put(list(pairs.items())) == [False] * len(pairs)

    def once_at(self, kind: str, then: Callable[[], object], prefix: bytes = b"b.") -> None:
        """Before the first such operation on an object that is called so."""

        def trouble(operation: MemoryOperation) -> int | None:
            if operation.kind == kind and operation.name.startswith(prefix):
                self.memory.trouble = lambda operation: None
                then()
            return None

        self.memory.trouble = trouble

    def before_walk(self, number: int, then: Callable[[], object]) -> None:
        """Before the pool is walked over for that time, from 1 on."""
        walk, walks = self.side.pages, count(1)

        def pages(prefix: bytes) -> Iterator[Found]:
            if next(walks) == number:
                then()
            yield from walk(prefix)

        self.side.pages = pages  # type: ignore[method-assign]

    def damage(self, key: bytes) -> None:
        """Flip a bit of an entry."""
        for thing in self.memory.things.values():
            if b"k" + key in thing.pairs:
                data = bytearray(thing.pairs[b"k" + key])
                data[-1] ^= 1
                thing.pairs[b"k" + key] = bytes(data)


@pytest.fixture
def copying(capsys: pytest.CaptureFixture[str]) -> Iterator[Copying]:
    with MemoryClient() as group:
        made = Copying(group, capsys)
        with made.pool:
            yield made


@pytest.fixture
def filled(copying: Copying) -> Copying:
    copying.group.put_many(ALL)
    return copying


# To a pool.


def test_all_that_a_group_has_is_in_the_pool_and_compared(filled: Copying) -> None:
    status, told = filled.to_pool()
    assert status == 0
    assert filled.in_pool() == ALL
    assert (told["copied"], told["keys"], told["changes"]) == (len(ALL), len(ALL), 0)
    assert told["equal"]
    assert told["safe"]
    expected = Sum()
    expected.add(reversed(ALL.items()))
    assert told["sha256_sum"] == expected.hexdigest()


def test_what_changes_meanwhile_is_copied_too(filled: Copying) -> None:
    def change() -> None:
        filled.group.put(b"k000", b"changed")
        filled.group.put(b"new", b"came")
        filled.group.delete(b"k001")
        filled.group.delete(b"new")
        filled.group.put(b"new", b"came again")

    filled.once_at("write", change)
    status, told = filled.to_pool()
    assert (status, told["changes"], told["safe"]) == (0, 5, True)
    assert filled.in_pool() == filled.in_group()
    assert filled.in_pool()[b"new"] == b"came again"


def test_writers_that_never_rest_end_it_after_some_rounds(
    filled: Copying, monkeypatch: pytest.MonkeyPatch
) -> None:
    def newest(client: MemoryClient) -> int:
        client.put(b"busy", b"")
        return newest_revision(client)

    monkeypatch.setattr(following, "newest_revision", newest)
    status, told = filled.to_pool()
    assert (status, told["equal"], told["safe"]) == (1, True, False)
    assert filled.said.count("revisions came meanwhile") == 2 * following.ROUNDS_MAX


def test_writers_of_other_keys_are_not_waited_for(
    filled: Copying, monkeypatch: pytest.MonkeyPatch
) -> None:
    def newest(client: MemoryClient) -> int:
        client.put(b"other", b"")
        return newest_revision(client)

    monkeypatch.setattr(following, "newest_revision", newest)
    status, told = filled.to_pool(Plan(b"p/", b"p/", quiet_s=0.01))
    assert (status, told["keys"], told["safe"]) == (0, 2, True)


def test_a_source_that_dies_while_it_is_followed_ends_it(
    filled: Copying, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(client: Client) -> int:
        raise UnavailableError("nobody is there")

    monkeypatch.setattr(silence, "newest_revision", gone)
    monkeypatch.setattr(Watch, "ask_progress", lambda watch: None)
    filled.once_at("write", lambda: filled.group.put(b"other", b""))
    with pytest.raises(UnavailableError, match="nobody"):
        filled.to_pool(Plan(b"p/", b"p/", patience_s=0.05))


def test_a_watch_whose_member_has_ended_is_asked_again(
    filled: Copying, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask, asked = Watch.ask_progress, count()

    def forgets_the_first(watch: Watch) -> None:
        if next(asked):
            ask(watch)

    monkeypatch.setattr(Watch, "ask_progress", forgets_the_first)
    filled.once_at("write", lambda: filled.group.put(b"other", b""))
    status, _ = filled.to_pool(Plan(b"p/", b"p/", patience_s=0.05))
    assert status == 0


@pytest.mark.parametrize(("quiet_s", "safe"), [(None, False), (0.05, True)])
def test_until_quiet_goes_on_until_nothing_changed_while_it_was_compared(
    filled: Copying, quiet_s: float | None, safe: bool
) -> None:
    """Without it, that more came is told."""
    # A walk whether there is something comes first: it lists no bucket of an empty pool.
    filled.once_at("list_pairs", lambda: filled.group.put(b"k000", b"late"))
    status, told = filled.to_pool(Plan(quiet_s=quiet_s))
    assert (status, told["equal"], told["safe"]) == (0 if safe else 1, True, safe)
    assert told["changes"] == 1
    assert filled.in_pool()[b"k000"] == b"late"


def test_changes_are_gathered_and_of_a_key_the_last_one_counts(
    filled: Copying, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A round trip of the pool for each change would never catch up."""
    monkeypatch.setattr(following, "GATHERED_KEYS", 10)

    def change() -> None:
        for n in range(100):
            filled.group.put(b"c%02d" % (n % 25), b"%d" % n)

    filled.once_at("write", change)
    status, told = filled.to_pool()
    assert (status, told["changes"], told["equal"]) == (0, 100, True)
    assert filled.in_pool()[b"c24"] == b"99"


def test_a_pool_that_has_such_keys_is_refused_merged_or_mirrored(filled: Copying) -> None:
    filled.fill_pool({b"theirs": b"1", b"k000": b"other"})
    with pytest.raises(click.ClickException, match="already"):
        filled.to_pool()
    assert len(filled.in_pool()) == 2
    status, told = filled.to_pool(MERGE)
    assert (status, told["equal"], told["copied"]) == (0, True, len(ALL))
    assert filled.in_pool() == ALL | {b"theirs": b"1"}
    status, told = filled.to_pool(MIRROR)
    assert (status, told["equal"], told["copied"], told["removed"]) == (0, True, 0, 1)
    assert filled.in_pool() == ALL


def test_keys_come_under_another_prefix_beside_others(filled: Copying) -> None:
    filled.fill_pool({b"theirs": b"1", b"q/gone": b"2"})
    plan = Plan(b"p/", b"q/", There.MIRRORED)
    status, told = filled.to_pool(plan)
    assert (status, told["keys"], told["removed"]) == (0, 2, 1)
    assert filled.in_pool() == {b"theirs": b"1", b"q/a": b"1", b"q/b": b"2"}


def test_keys_with_leases_are_refused_unless_they_are_to_stay(filled: Copying) -> None:
    with filled.group.lease(60) as lease:
        filled.group.put(b"leased", b"v", lease=lease)
        with pytest.raises(click.ClickException, match="1 keys have leases, leased is the first"):
            filled.to_pool()
        assert filled.in_pool() == {}
        status, told = filled.to_pool(Plan(leased=True))
    assert (status, told["equal"]) == (0, True)
    assert filled.in_pool()[b"leased"] == b"v"


def test_a_lease_that_comes_meanwhile_is_told(filled: Copying) -> None:
    with filled.group.lease(60) as lease:
        filled.once_at("write", lambda: filled.group.put(b"leased", b"v", lease=lease))
        status, told = filled.to_pool()
    assert (status, told["leased"], told["equal"], told["safe"]) == (1, 1, True, False)


def test_a_lease_that_comes_just_after_the_look_for_them_is_told(
    filled: Copying, monkeypatch: pytest.MonkeyPatch
) -> None:
    with filled.group.lease(60) as lease:

        def late(old: GroupSide, new: PoolSide, plan: Plan, done: Copied) -> None:
            filled.group.put(b"leased", b"v", lease=lease)
            following.copy_all(old, new, plan, done)

        monkeypatch.setattr(pools, "copy_all", late)
        status, told = filled.to_pool()
    assert (status, told["leased"], told["safe"]) == (1, 1, False)


@pytest.mark.parametrize("ends", ["gone", "written anew"])
def test_a_lease_that_is_gone_again_is_no_alarm(
    filled: Copying, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    """As locks come and go, also in another turn than they came."""
    monkeypatch.setattr(following, "GATHERED_KEYS", 1)

    def change() -> None:
        with filled.group.lease(60) as lease:
            filled.group.put(b"lock", b"v", lease=lease)
            if ends == "written anew":
                filled.group.put(b"lock", b"v")

    filled.once_at("write", change)
    status, told = filled.to_pool()
    assert (status, told["leased"], told["safe"]) == (0, 0, True)
    assert filled.in_pool() == filled.in_group()


def test_keys_that_differ_are_named(filled: Copying) -> None:
    def hurt() -> None:
        filled.damage(b"k002")
        for thing in filled.memory.things.values():
            thing.pairs.pop(b"kk001", None)
        filled.group.put(b"z", b"for the pool")

    filled.once_at("list_pairs", hurt)
    status, told = filled.to_pool()
    assert status == 5
    assert (told["missing"], told["damaged"], told["different"]) == (1, 1, 0)
    assert not told["equal"]
    assert not told["safe"]
    assert "kvctl: missing: k001\n" in filled.said
    assert "kvctl: damaged: k002 (" in filled.said
    status, told = filled.to_pool(MIRROR)
    assert (status, told["copied"], told["equal"]) == (0, 2, True)


def test_what_somebody_else_writes_to_the_pool_is_named(filled: Copying) -> None:
    filled.to_pool()
    # Once those of others are gone, and before it is compared.
    filled.before_walk(1, lambda: filled.pool.put([(b"foreign", b"v"), (b"k000", b"other")]))
    status, told = filled.to_pool(MIRROR)
    assert (status, told["extra"], told["different"]) == (1, 1, 1)
    assert "kvctl: extra: foreign\n" in filled.said
    assert "kvctl: different: k000\n" in filled.said


@pytest.mark.parametrize("plan", [REFUSE, MIRROR, MERGE])
def test_a_bucket_of_the_target_that_cannot_be_read_is_named(filled: Copying, plan: Plan) -> None:
    """It may hold keys of others, and is no empty one."""
    filled.fill_pool({b"k000": b"1"})
    (lost,) = [name for name, thing in filled.memory.things.items() if b"kk000" in thing.pairs]
    filled.memory.trouble = lambda it: -errno.EIO if it.name == lost else None
    with pytest.raises(StorageError) as failed:
        filled.to_pool(plan)
    assert exit_code_of(failed.value) == 5
    if plan is REFUSE:
        assert f"kvctl: bucket {lost.decode()} can't be read:" in filled.said
    else:
        assert "kvctl: at key k000:" in filled.said


def test_a_bucket_that_cannot_be_read_any_more_once_it_is_compared_is_named(
    filled: Copying,
) -> None:
    filled.fill_pool({b"theirs": b"1"})
    (lost,) = [name for name, thing in filled.memory.things.items() if b"ktheirs" in thing.pairs]

    def lose() -> None:
        filled.memory.trouble = lambda it: -errno.EIO if it.name == lost else None

    filled.before_walk(1, lose)
    status, told = filled.to_pool(MIRROR)
    assert (status, told["equal"], told["damaged"]) == (5, False, 1)
    assert f"kvctl: damaged: {lost.decode()} (" in filled.said


@pytest.mark.parametrize(
    ("plan", "words"),
    [(REFUSE, "the same command with --mirror goes on"), (MERGE, "the same command goes on")],
)
def test_how_it_goes_on_takes_nothing_of_others(filled: Copying, plan: Plan, words: str) -> None:
    """After --merge a --mirror would remove what was there before."""
    if plan is MERGE:
        filled.fill_pool({b"theirs": b"1"})
    filled.memory.trouble = lambda it: -errno.ENOSPC if it.kind == "write" else None
    with pytest.raises(NoSpaceError):
        filled.to_pool(plan)
    assert words in filled.said


def test_no_word_of_a_mirror_comes_after_a_merge(copying: Copying) -> None:
    copying.fill_pool({b"a": b"1"})
    copying.group.put(b"theirs", b"1")
    context = click.Context(click.Command("copy"), obj=Settings(output="text"))
    assert from_pool(context, copying.side, copying.group, MERGE) == 0
    assert "--mirror" not in copying.told()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_pool_ends_it_and_with_room_it_goes_on(filled: Copying, code: int) -> None:
    def fills(operation: MemoryOperation) -> int | None:
        written = sum(line.startswith("write b.") for line in filled.memory.log)
        return -code if operation.kind == "write" and written > 50 else None

    filled.memory.trouble = fills
    with pytest.raises(NoSpaceError) as failed:
        filled.to_pool()
    assert exit_code_of(failed.value) == 1
    assert "kvctl: at key " in filled.said
    assert "--mirror" in filled.said
    filled.memory.trouble = lambda operation: None
    status, told = filled.to_pool(MIRROR)
    assert (status, told["equal"], told["copied"]) == (0, True, len(ALL) - 51)


def test_a_pool_that_goes_away_ends_it_by_its_time(filled: Copying) -> None:
    with live_pool(filled.memory, timeout_s=0.3) as pool:
        filled.side = PoolSide(pool)
        filled.memory.trouble = lambda operation: 0 if operation.kind == "write" else None
        with pytest.raises(DeadlineExceededError) as failed:
            filled.to_pool()
        assert exit_code_of(failed.value) == 4
        filled.memory.trouble = lambda operation: None
        assert filled.to_pool(MIRROR)[0] == 0
    assert filled.in_group() == ALL


# From a pool.


@pytest.mark.parametrize("plan", [MERGE, MIRROR])
def test_what_the_group_has_with_a_lease_is_written_without(copying: Copying, plan: Plan) -> None:
    """Otherwise it would be gone with the lease, after both were told to have it."""
    copying.fill_pool({b"a": b"1", b"b": b"2"})
    with copying.group.lease(60) as lease:
        copying.group.put(b"a", b"1", lease=lease)
        status, told = copying.from_pool(plan)
    assert (status, told["copied"], told["equal"]) == (0, 2, True)
    assert copying.in_group() == {b"a": b"1", b"b": b"2"}


def test_a_lease_that_comes_to_the_group_in_the_end_is_a_difference(copying: Copying) -> None:
    copying.fill_pool({b"a": b"1"})
    with copying.group.lease(60) as lease:
        copying.before_walk(2, lambda: copying.group.put(b"a", b"1", lease=lease))
        status, told = copying.from_pool(MIRROR)
    assert (status, told["equal"]) == (1, False)


def test_all_that_a_pool_has_is_in_the_group(copying: Copying) -> None:
    copying.fill_pool()
    status, told = copying.from_pool()
    assert (status, told["equal"], told["passes"], told["copied"]) == (0, True, 2, len(ALL))
    assert copying.in_group() == ALL
    expected = Sum()
    expected.add(ALL.items())
    assert (told["keys"], told["sha256_sum"]) == (len(ALL), expected.hexdigest())


def test_passes_follow_what_changes_in_the_pool(copying: Copying) -> None:
    copying.fill_pool()

    def change() -> None:
        copying.pool.put([(b"k%03d" % n, b"changed") for n in range(120)])
        copying.pool.delete([b"p/a", b"p/b"])

    copying.before_walk(2, change)
    status, told = copying.from_pool()
    assert (status, told["equal"], told["removed"]) == (0, True, 2)
    assert told["passes"] > 2
    assert copying.in_group() == copying.in_pool()


def test_a_writer_that_never_rests_is_told(copying: Copying) -> None:
    copying.fill_pool({b"a": b"0"})
    walk, walks = copying.side.pages, count()

    def pages(prefix: bytes) -> Iterator[Found]:
        copying.pool.put([(b"a", b"%d" % next(walks))])
        yield from walk(prefix)

    copying.side.pages = pages  # type: ignore[method-assign]
    status, told = copying.from_pool()
    assert (status, told["equal"], told["passes"]) == (1, False, PASSES_MAX)
    assert f"pass {PASSES_MAX} saw 1 keys" in copying.said


def test_a_group_that_has_such_keys_is_refused_merged_or_mirrored(copying: Copying) -> None:
    copying.fill_pool()
    copying.group.put_many({b"theirs": b"1", b"k000": b"other"})
    with pytest.raises(click.ClickException, match="already"):
        copying.from_pool()
    assert len(copying.in_group()) == 2
    status, told = copying.from_pool(MERGE)
    assert (status, told["equal"], told["copied"]) == (0, True, len(ALL))
    assert copying.in_group() == ALL | {b"theirs": b"1"}
    status, told = copying.from_pool(MIRROR)
    assert (status, told["equal"], told["copied"], told["removed"]) == (0, True, 0, 1)
    assert copying.in_group() == ALL


def test_keys_of_a_pool_come_under_another_prefix(copying: Copying) -> None:
    copying.fill_pool()
    copying.group.put_many({b"theirs": b"1", b"q/gone": b"2"})
    status, told = copying.from_pool(Plan(b"p/", b"q/", There.MIRRORED))
    assert (status, told["keys"], told["removed"]) == (0, 2, 1)
    assert copying.in_group() == {b"theirs": b"1", b"q/a": b"1", b"q/b": b"2"}


def test_damaged_keys_of_a_pool_are_named_and_a_copy_of_before_stays(copying: Copying) -> None:
    copying.fill_pool()
    copying.damage(b"k000")
    copying.damage(b"k001")
    copying.group.put(b"k000", b"of an earlier copy")
    status, told = copying.from_pool(MIRROR)
    assert (status, told["damaged"], told["unread_buckets"], told["equal"]) == (5, 2, 0, False)
    assert "kvctl: damaged: k000 (" in copying.said
    assert "kvctl: damaged: k001 (" in copying.said
    expected = ALL | {b"k000": b"of an earlier copy"}
    del expected[b"k001"]
    assert copying.in_group() == expected


def test_a_copy_of_a_key_whose_entry_lies_in_another_bucket_stays(copying: Copying) -> None:
    """A get finds nothing where it should be."""
    copying.fill_pool({b"moved": b"1", b"sound": b"2"})
    things = copying.memory.things.values()
    (place,) = [thing for thing in things if b"kmoved" in thing.pairs]
    (other,) = [thing for thing in things if b"ksound" in thing.pairs]
    other.pairs[b"kmoved"] = place.pairs.pop(b"kmoved")
    copying.group.put(b"moved", b"1")
    status, told = copying.from_pool(MIRROR)
    assert (status, told["damaged"]) == (5, 1)
    assert copying.in_group() == {b"moved": b"1", b"sound": b"2"}


def test_a_mirror_of_an_empty_pool_is_refused_unless_it_is_meant(copying: Copying) -> None:
    copying.group.put(b"a", b"1")
    with pytest.raises(click.ClickException, match="no such keys"):
        copying.from_pool(MIRROR)
    assert copying.in_group() == {b"a": b"1"}
    status, told = copying.from_pool(Plan(there=There.MIRRORED, empties=True))
    assert (status, told["removed"], copying.in_group()) == (0, 1, {})


def test_a_mirror_of_an_empty_group_is_refused_unless_it_is_meant(copying: Copying) -> None:
    copying.fill_pool({b"a": b"1"})
    with pytest.raises(click.ClickException, match="no such keys"):
        copying.to_pool(MIRROR)
    assert copying.in_pool() == {b"a": b"1"}


def test_large_values_are_looked_up_a_few_at_a_time(
    copying: Copying, monkeypatch: pytest.MonkeyPatch
) -> None:
    copying.fill_pool()
    asked: list[int] = []
    get = copying.pool.get

    def noted(keys: Sequence[bytes]) -> list[Result]:
        asked.append(len(keys))
        return get(keys)

    monkeypatch.setattr(copying.pool, "get", noted)
    monkeypatch.setattr(pool_side, "GET_BYTES", 100_000)
    keys = sorted(ALL, key=lambda key: -len(ALL[key]))
    assert list(copying.side.get(keys)) == [ALL[key] for key in keys]
    assert asked[:3] == [16, 19, 93]


def test_keys_are_named_without_a_look_at_large_values(copying: Copying) -> None:
    copying.fill_pool()
    copying.memory.log.clear()
    keys = [key for page in copying.side.keys(b"") for key in page]
    assert sorted(keys) == sorted(ALL)
    assert not any(line.startswith("read_data") for line in copying.memory.log)


def test_a_bucket_that_cannot_be_read_is_named(copying: Copying) -> None:
    copying.fill_pool({b"a": b"1", b"b": b"2"})
    (lost,) = [name for name, thing in copying.memory.things.items() if b"ka" in thing.pairs]
    copying.memory.trouble = lambda operation: -errno.EIO if operation.name == lost else None
    status, told = copying.from_pool()
    assert (status, told["damaged"], told["unread_buckets"]) == (5, 0, 1)
    assert f"kvctl: damaged: {lost.decode()} (" in copying.said
    assert copying.in_group() == {b"b": b"2"}


def test_a_copy_that_broke_off_goes_on(copying: Copying) -> None:
    copying.fill_pool()
    listed: list[int] = []

    def breaks(operation: MemoryOperation) -> int | None:
        listed.append(1)
        if len(listed) > 50:
            raise KeyboardInterrupt
        return None

    copying.memory.trouble = breaks
    with pytest.raises(KeyboardInterrupt):
        copying.from_pool()
    assert "--mirror" in copying.said
    copying.memory.trouble = lambda operation: None
    status, told = copying.from_pool(MIRROR)
    assert (status, told["equal"]) == (0, True)
    assert copying.in_group() == ALL


def test_a_head_that_is_damaged_ends_a_copy_to_the_pool(filled: Copying) -> None:
    """A gateway couldn't write there, either."""
    filled.to_pool()
    (name,) = [name for name, thing in filled.memory.things.items() if b"kk000" in thing.pairs]
    filled.memory.things[name].pairs[HEAD_KEY] = b"nothing"
    filled.group.put(b"k000", b"changed")
    with pytest.raises(OSError) as failed:
        filled.to_pool(MIRROR)
    assert "kvctl: at key k000:" in filled.said
    assert exit_code_of(failed.value) == 5  # type: ignore[arg-type]
