"""The faults, one function each. A fault yields between what it does and what undoes it.

Before the first ``yield`` it hurts the cluster; after it, it heals what it hurt. What it yields
says from when on calls should come back: ``SERVES`` (from the injection on, but for an election),
``FAILS_NONE`` (so too, and each call of a client that tries again comes back well),
``REFUSES`` (only once it is healed, and writes that come back before are a violation), or
``MAY_REFUSE`` (only once it is healed).
"""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from kvstore.errors import DeadlineExceededError, NotLeaderError, UnavailableError
from tests.chaos.flips import KINDS, flip_some, make_tables, repair
from tests.chaos.links import between
from tests.chaos.members import ChaosCluster, NamespaceCluster, ProxiedCluster, command
from tests.integration.disk_trouble import DiskTrouble
from tests.integration.process import run

SERVES, REFUSES, MAY_REFUSE = "serves", "refuses", "may refuse"
FAILS_NONE = "fails none"
Play = Iterator[str]

SYNC_MS = 150
SYNC_TOO_SLOW_MS = 3000
SMALL_DISK_ROOM = 320 << 20
"""Two segments of the log, and what the state grows by until it is full."""
LARGE_VALUES_MAX = 1000
CLOCK_SHIFT = "40m"
LAG_VALUE_BYTES = 200_000
LAG_VALUES = 900


# --- processes ------------------------------------------------------------------------------------


def kill_leader(cluster: ChaosCluster) -> Play:
    cluster.kill(cluster.leader())
    yield SERVES
    cluster.start_missing()


def kill_follower(cluster: ChaosCluster) -> Play:
    cluster.kill(random.choice(cluster.followers()))
    yield SERVES
    cluster.start_missing()


def kill_majority(cluster: ChaosCluster) -> Play:
    leader = cluster.leader()
    cluster.kill(leader, *cluster.followers()[: len(cluster.members) // 2])
    yield REFUSES
    cluster.start_missing()


def kill_all(cluster: ChaosCluster) -> Play:
    cluster.kill()
    yield REFUSES
    cluster.start_missing()


def stop_leader(cluster: ChaosCluster) -> Play:
    cluster.running[cluster.leader()].signal(signal.SIGSTOP)
    yield SERVES
    cluster.start_missing()


def stop_majority(cluster: ChaosCluster) -> Play:
    for member in cluster.followers()[: len(cluster.members) // 2 + 1]:
        cluster.running[member].signal(signal.SIGSTOP)
    yield REFUSES
    cluster.start_missing()


def rolling_restart(cluster: ChaosCluster) -> Play:
    for member in cluster.members:
        assert cluster.running.pop(member).terminate() == 0
        cluster.start(member)
    yield SERVES


# --- links ----------------------------------------------------------------------------------------


def cut_off_leader(cluster: ProxiedCluster) -> Play:
    leader = cluster.leader()
    cluster.links.stall(between([leader], cluster.followers()))
    yield SERVES
    cluster.links.heal()


def split_off_minority(cluster: ProxiedCluster) -> Play:
    leader, followers = cluster.leader(), cluster.followers()
    half = len(cluster.members) // 2
    cluster.links.stall(between([leader, *followers[: half - 1]], followers[half - 1 :]))
    yield SERVES
    cluster.links.heal()


def leader_is_not_heard(cluster: ProxiedCluster) -> Play:
    leader = cluster.leader()
    cluster.links.stall((leader, member) for member in cluster.followers())
    yield SERVES
    cluster.links.heal()


def leader_hears_nobody(cluster: ProxiedCluster) -> Play:
    leader = cluster.leader()
    cluster.links.stall((member, leader) for member in cluster.followers())
    yield SERVES
    cluster.links.heal()


def bridge(cluster: ProxiedCluster) -> Play:
    """Two halves that only one follower reaches both of."""
    leader, followers = cluster.leader(), cluster.followers()
    middle, rest = followers[0], followers[1:]
    half = len(rest) // 2
    cluster.links.stall(between([leader, *rest[:half]], rest[half:]))
    assert middle not in rest
    yield SERVES
    cluster.links.heal()


def slow_links(cluster: ProxiedCluster) -> Play:
    """20 ms each way, 2 MB/s."""
    cluster.links.slow(between(cluster.members, cluster.members), 0.02, 2e6)
    yield SERVES
    cluster.links.heal()


def lose_one_way(cluster: NamespaceCluster) -> Play:
    """Nothing that the leader sends arrives at half of the others, whatever they send it does."""
    leader, followers = cluster.leader(), cluster.followers()
    cluster.lose([(leader, member) for member in followers[: len(followers) // 2 + 1]])
    yield SERVES
    cluster.heal()


def lose_some(cluster: NamespaceCluster) -> Play:
    """A tenth of all packets between members."""
    cluster.lose(between(cluster.members, cluster.members), 0.1)
    yield SERVES
    cluster.heal()


def part_namespaces(cluster: NamespaceCluster) -> Play:
    """The leader and one more on one side, the others on the other one; packets are dropped."""
    leader, followers = cluster.leader(), cluster.followers()
    half = len(cluster.members) // 2
    cluster.lose(between([leader, *followers[: half - 1]], followers[half - 1 :]))
    yield SERVES
    cluster.heal()


# --- disks and clocks -----------------------------------------------------------------------------


def fill_leaders_disk(cluster: ChaosCluster) -> Play:
    """It hands over; with room again it goes on by itself."""
    leader = cluster.leader()
    filler = _move_to_small_disk(cluster, leader)
    _lead(cluster, leader)
    _fill(filler)
    _write_until(cluster, lambda: cluster.leader() != leader)
    yield SERVES
    _make_room(cluster, leader, filler)
    cluster.running[leader].wait_serving()
    _move_back(cluster, leader)


def fill_followers_disk(cluster: ChaosCluster) -> Play:
    """The others go on; with room again it catches up by itself."""
    member = random.choice(cluster.followers())
    filler = _move_to_small_disk(cluster, member)
    _fill(filler)
    kvd = cluster.running[member]
    _write_until(cluster, lambda: "storage takes no writes" in kvd.stderr)
    yield SERVES
    _make_room(cluster, member, filler)
    kvd.wait_serving()
    _move_back(cluster, member)


def fill_all_disks(cluster: ChaosCluster) -> Play:
    """Nothing is written until there is room, and nobody has to be started for it."""
    fillers = {member: _move_to_small_disk(cluster, member) for member in cluster.members}
    for filler in fillers.values():
        _fill(filler)
    _write_until(cluster, lambda: False)
    yield MAY_REFUSE
    for member, filler in fillers.items():
        _make_room(cluster, member, filler)
    for member in fillers:
        cluster.running[member].wait_serving()
    for member in fillers:
        _move_back(cluster, member)


def _move_to_small_disk(cluster: ChaosCluster, member: int) -> Path:
    """A member's data comes onto a tmpfs with little room; returns the file to fill it with."""
    data = cluster.data(member)
    cluster.running.pop(member).terminate()
    kept = _kept(cluster, member)
    data.rename(kept)
    data.mkdir()
    size = _size(kept) + SMALL_DISK_ROOM
    command("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(data))
    shutil.copytree(kept, data, dirs_exist_ok=True)
    cluster.start(member)
    return data / "filler"


def _make_room(cluster: ChaosCluster, member: int, filler: Path) -> None:
    """Enough for all that it may need: also a snapshot, beside the state that it has.

    The cluster keeps no tail of its log for who was away.
    """
    filler.unlink()
    data = cluster.data(member)
    state = max(_size(cluster.data(other)) for other in cluster.members)
    size = _size(data) + state + SMALL_DISK_ROOM
    command("mount", "-o", f"remount,size={size}", str(data))


def _size(directory: Path) -> int:
    """What is in a directory that others change meanwhile."""
    size = 0
    for file in directory.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            size += file.stat().st_size if file.is_file() else 0
    return size


def _move_back(cluster: ChaosCluster, member: int) -> None:
    """The contrary, with what it has by now."""
    data, kept = cluster.data(member), _kept(cluster, member)
    cluster.running.pop(member).terminate()
    shutil.rmtree(kept)
    shutil.copytree(data, kept)
    command("umount", str(data))
    data.rmdir()
    kept.rename(data)
    cluster.start(member)


def _kept(cluster: ChaosCluster, member: int) -> Path:
    data = cluster.data(member)
    return data.with_name(f"{data.name}.kept")


def _fill(filler: Path) -> None:
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(1 << 20)):
            pass


def _write_until(cluster: ChaosCluster, condition: Callable[[], bool]) -> None:
    """Put large values until it is so, or they are refused."""
    with cluster.client(timeout=5) as client:
        for number in range(LARGE_VALUES_MAX):
            try:
                client.put(b"large/%d" % (number % 8), random.randbytes(1 << 20))
            except (UnavailableError, DeadlineExceededError, NotLeaderError):
                return
            if condition():
                return
    raise AssertionError(f"{LARGE_VALUES_MAX} MiB were written to a full disk")


def _lead(cluster: ChaosCluster, member: int) -> None:
    if cluster.leader() != member:
        _kvctl(cluster, "leader", "transfer", str(member))


def slow_disks(cluster: ChaosCluster) -> Play:
    """Each sync of the leader and one more takes 150 ms longer."""
    yield from _sync_trouble(cluster, f"slow {SYNC_MS}", also_follower=True)


def slow_leaders_disk(cluster: ChaosCluster) -> Play:
    """Each sync of the leader takes longer than it may lead with."""
    yield from _sync_trouble(cluster, f"slow {SYNC_TOO_SLOW_MS}")


def hang_leaders_disk(cluster: ChaosCluster) -> Play:
    """No sync of the leader ends."""
    yield from _sync_trouble(cluster, "hang")


def _sync_trouble(cluster: ChaosCluster, words: str, *, also_follower: bool = False) -> Play:
    leader = cluster.leader()
    hurt = [leader, *cluster.followers()[: 1 if also_follower else 0]]
    with tempfile.TemporaryDirectory() as name:
        disks = DiskTrouble(Path(name))
        for member in hurt:
            _restart(cluster, [member], disks.environment(member))
        _lead(cluster, leader)
        for member in hurt:
            disks.say(member, words)
        yield SERVES
        for member in hurt:
            disks.say(member, "well")
            cluster.running[member].wait_serving()
        _restart(cluster, hurt, {})


def move_clock(cluster: ChaosCluster) -> Play:
    """The leader's wall clock is 40 minutes ahead, another one's behind (libfaketime)."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        raise RuntimeError("libfaketime is not installed: apt-get install libfaketime")
    leader, other = cluster.leader(), cluster.followers()[0]
    for member, sign in ((leader, "+"), (other, "-")):
        env = {
            "LD_PRELOAD": str(library),
            "FAKETIME": f"{sign}{CLOCK_SHIFT}",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        _restart(cluster, [member], env)
    yield SERVES
    _restart(cluster, [leader, other], {})


def _restart(cluster: ChaosCluster, members: list[int], env: dict[str, str]) -> None:
    for member in members:
        cluster.running.pop(member).terminate()
        cluster.environments[member] = env
        cluster.start(member)


# --- members and certificates ---------------------------------------------------------------------


def replace_member(cluster: ChaosCluster) -> Play:
    """A follower's disk is gone: it is removed, and added again under a new id."""
    gone = random.choice(cluster.followers())
    new = max(cluster.members) + 1
    cluster.kill(gone)
    _kvctl(cluster, "member", "remove", str(gone))
    shutil.rmtree(cluster.data(gone))
    cluster.rename(gone, new)
    client, peer = f"--client-addr={cluster.clients[new]}", f"--peer-addr={cluster.peers[new]}"
    _kvctl(cluster, "member", "add", str(new), client, peer)
    cluster.write_config(new, settings="join = true")
    cluster.start(new)
    cluster.wait_equal()
    _kvctl(cluster, "member", "promote", str(new))
    yield SERVES


def rotate_certificates(cluster: ChaosCluster) -> Play:
    """New certificates for every member, while all serve."""
    pki = f"--dir={cluster.directory / 'pki'}"
    made = run("kvctl", "pki", "renew", pki, "--all")
    assert made.returncode == 0, made.stderr
    # Connections that begin now use the new ones.
    cluster.kill(cluster.leader())
    yield SERVES
    cluster.start_missing()


def _kvctl(cluster: ChaosCluster, *words: str) -> None:
    """As an operator on the machine of one member, whoever leads."""
    done = run("kvctl", f"--dir={cluster.data(next(iter(cluster.running)))}", *words)
    assert done.returncode == 0, done.stderr


def lag_behind(cluster: ChaosCluster) -> Play:
    """A follower misses more than the log keeps: it needs a snapshot, which is cut midway."""
    member = random.choice(cluster.followers())
    cluster.kill(member)
    with cluster.client(timeout=60) as client:
        for number in range(LAG_VALUES):
            client.put(b"lag/%d" % number, random.randbytes(LAG_VALUE_BYTES))
    leader = cluster.running[cluster.leader()]
    said = len(leader.stderr)
    kvd = cluster.launch(member)
    end = time.monotonic() + 60
    while "snapshot sent" not in leader.stderr[said:] and time.monotonic() < end:
        time.sleep(0.01)
    kvd.kill()
    assert "snapshot sent" in leader.stderr[said:], "no snapshot was sent"
    yield SERVES
    cluster.start_missing()


def flip_bits(cluster: ChaosCluster) -> Play:
    """In a table, a segment of the log, the manifest or a small file of one member that runs; it is
    told to check itself, and whole again without having been started anew."""
    member = cluster.leader() if random.random() < 0.5 else random.choice(cluster.followers())
    data, process = cluster.data(member), cluster.running[member].pid
    make_tables(data)
    kinds = tuple(random.sample(KINDS, random.randint(1, len(KINDS))))
    flips = flip_some(data / f"node{member}", random.Random(random.getrandbits(64)), kinds)
    assert flips, "there was nothing to damage"
    yield FAILS_NONE
    told = f"{', '.join(map(str, flips))}: {repair(data)}"
    again = repair(data)
    assert again.endswith("repairs done meanwhile: 0"), f"{told} and then {again}"
    assert cluster.running[member].pid == process, "it was started anew"


LOOPBACK: dict[str, Callable[[ProxiedCluster], Play]] = {
    "kill the leader": kill_leader,
    "kill a follower": kill_follower,
    "kill a majority": kill_majority,
    "kill all": kill_all,
    "stop the leader (SIGSTOP)": stop_leader,
    "stop a majority (SIGSTOP)": stop_majority,
    "restart one after the other": rolling_restart,
    "cut the leader off": cut_off_leader,
    "split the leader's minority off": split_off_minority,
    "nobody hears the leader": leader_is_not_heard,
    "the leader hears nobody": leader_hears_nobody,
    "bridge": bridge,
    "slow links": slow_links,
    "full disk and room again: the leader": fill_leaders_disk,
    "full disk and room again: a follower": fill_followers_disk,
    "full disk and room again: all": fill_all_disks,
    "hanging disk of the leader": hang_leaders_disk,
    "slow disk of the leader": slow_leaders_disk,
    "slow disks": slow_disks,
    "wall clocks moved": move_clock,
    "follower far behind, cut midway": lag_behind,
    "bits flipped in files of a running member": flip_bits,
    "replace a member": replace_member,
    "rotate certificates": rotate_certificates,
}
NAMESPACES: dict[str, Callable[[NamespaceCluster], Play]] = {
    "namespaces: leader killed": kill_leader,
    "namespaces: partition": part_namespaces,
    "namespaces: one-way loss": lose_one_way,
    "namespaces: a tenth is lost": lose_some,
}
