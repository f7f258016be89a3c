"""Whether a cluster of three holds while much is asked of it at once, and what puts notice of it.

    python -m benchmarks.holding [--scenes all-at-once behind] [--gib 4] [--behind-gib 10]
        [--write-mb-s 60] [--share 0.5] [--json FILE] [--directory DIR] [-- KVD_FLAGS]

``all-at-once``
    Memtables of 64 MiB are filled at 60 MB/s, a follower that lacks everything is caught up, the
    leader verifies its whole state (the beginning of a backup), and 1,000 reads a second of tables
    that are in no cache go to it.
``behind``
    A follower comes back ``--behind-gib`` behind while 20 MB/s are written; then a member is lost,
    removed, and replaced by a new one on an empty directory, under the same load.

Puts are due at their times and their latency counts from then. Where the machine can't write as
fast, the rate is lower, and said. Prints tables, and with ``--json`` writes all figures there.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.load import Generating, Load, Measured, measure, start
from benchmarks.measuring.goals import Goal, goal_table
from benchmarks.measuring.watching import metrics_of, watching
from benchmarks.servers import KvdCluster
from kvstore.client import Client
from tests.integration.cluster import free_addresses

FOUNDERS = (1, 2, 3)
NEWCOMER = 4
GIB = 1 << 30
BEHIND_MB_S = 20.0
READS_PER_S = 1000.0
TIMES_P99_MAX = 2.0
PATIENCE_S = 3600.0
LOOK_S = 0.25


@dataclasses.dataclass(frozen=True, slots=True)
class Sizes:
    """Of one scene: what is there before it, what is written while it goes on, how long before."""

    gib: float
    write_mb_s: float
    share: float
    """At most this part of what can be written with nothing else to do is written."""
    value_bytes: int
    before_s: float

    @property
    def keys(self) -> int:
        return max(1, int(self.gib * GIB) // self.value_bytes)


class HoldingCluster(KvdCluster):
    """Three members that show metrics, and a fourth that may join."""

    def __init__(self, directory: Path, sizes: Sizes, arguments: Sequence[str]) -> None:
        # Where another member comes to lead, calls go to it all the same.
        super().__init__(directory, NEWCOMER, arguments=arguments, settings="forward = true")
        self.sizes = sizes
        self.metrics = dict(zip(self.members, free_addresses(NEWCOMER), strict=True))
        for member in FOUNDERS:
            self._write(member, nodes=FOUNDERS)

    def _write(self, member: int, nodes: Sequence[int], settings: str = "") -> None:
        address = self.metrics[member]
        self.write_config(
            member, nodes=nodes, settings=f'metrics_address = "{address}"\n{settings}'
        )

    def load(self, **changes: Any) -> Load:
        """Puts as fast as they go, unless ``changes`` say something else."""
        puts = Load(
            "put",
            in_flight=32,
            connections=4,
            seconds=PATIENCE_S,
            keys=self.sizes.keys,
            value_bytes=self.sizes.value_bytes,
        )
        return dataclasses.replace(puts, **changes)

    def fill(self) -> None:
        measure(self.target(), self.load(operation="fill"))

    def rate(self) -> float:
        """Puts a second: what was asked for, or what leaves some room here."""
        sustained = measure(self.target(), self.load(seconds=10.0, warm_up=1.0))
        asked = self.sizes.write_mb_s * 1e6 / self.sizes.value_bytes
        return min(asked, self.sizes.share * float(sustained["put"]["calls_per_s"]))

    def puts(self, rate: float) -> Generating:
        return start(self.target(), self.load(rate=rate, in_flight=256))

    def catch_up(self, leader: int, member: int, rate: float) -> None:
        """Return once ``member`` is less than a second of load behind."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            wanted, has = self.revision(leader), self.revision(member)
            if has and wanted and has >= wanted - rate:
                return
            time.sleep(LOOK_S)
        raise TimeoutError(f"member {member} doesn't catch up")

    def join(self, new: int, gone: int) -> None:
        """Take the lost member out, and start a new one with an empty directory."""
        with self.client(timeout=60.0) as client:
            client.remove_member(gone)
            client.add_member(new, self.clients[new], self.peers[new])
        others = [member for member in FOUNDERS if member != gone]
        self._write(new, nodes=[*others, new], settings="join = true")
        self.start(new)

    def promote(self, new: int) -> None:
        with self.client(timeout=60.0) as client:
            client.promote_member(new)


def outcome(
    name: str,
    cluster: HoldingCluster,
    leader: int,
    rate: float,
    before: Measured,
    during: Measured,
    **figures: Any,
) -> dict[str, Any]:
    """What a scene comes to, with what the leader's metrics say at its end."""
    at_end = metrics_of(cluster.metrics[leader])
    return {
        "scene": name,
        "gib": cluster.sizes.gib,
        "value_bytes": cluster.sizes.value_bytes,
        "asked_mb_s": cluster.sizes.write_mb_s,
        "written_mb_s": during["put"]["calls_per_s"] * cluster.sizes.value_bytes / 1e6,
        "due_mb_s": rate * cluster.sizes.value_bytes / 1e6,
        "before": before,
        "during": during,
        "snapshots_sent": at_end["raft_snapshots_sent_total"],
        "term_at_end": at_end["raft_term"],
        "loads": os.getloadavg(),
        **figures,
    }


@contextlib.contextmanager
def cold_tables(data: Path) -> Iterator[None]:
    """Have the kernel forget the tables below ``data``, again and again, while the body runs."""
    ended = threading.Event()

    def run() -> None:
        while not ended.is_set():
            for table in data.rglob("*.sst"):
                with contextlib.suppress(FileNotFoundError):
                    file = os.open(table, os.O_RDONLY)
                    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
                    os.close(file)
            ended.wait(1.0)

    thread = threading.Thread(target=run, name="cold tables")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def verify(address: str) -> float:
    """Seconds until the member has read and verified all of its state: a backup begins with it."""
    began = time.monotonic()
    with Client(address, timeout=PATIENCE_S) as client:
        pieces = client.save_snapshot()
        next(pieces)
        taken = time.monotonic() - began
        pieces.close()  # type: ignore[attr-defined]
    return taken


def all_at_once(cluster: HoldingCluster) -> list[dict[str, Any]]:
    cluster.start(*FOUNDERS)
    leader = cluster.leader()
    follower = next(member for member in FOUNDERS if member != leader)
    cluster.kill(follower)
    cluster.fill()
    rate = cluster.rate()
    before = measure(
        cluster.target(), cluster.load(rate=rate, in_flight=256, seconds=cluster.sizes.before_s)
    )
    leader = cluster.leader()
    term = metrics_of(cluster.metrics[leader])["raft_term"]
    reads = cluster.load(operation="get", rate=READS_PER_S, in_flight=256, seed=2)
    with (
        watching(cluster.metrics[leader]) as watch,
        cold_tables(cluster.data(leader)),
        ThreadPoolExecutor(1) as pool,
    ):
        puts, gets = cluster.puts(rate), start(cluster.target(), reads)
        began = time.monotonic()
        verified = pool.submit(verify, cluster.clients[leader])
        cluster.start(follower)
        cluster.catch_up(leader, follower, rate)
        caught_up = time.monotonic() - began
        verified_after = verified.result()
        left = cluster.sizes.before_s - (time.monotonic() - began)
        if left > 0:  # so that there are enough puts for a 99.9th percentile
            time.sleep(left)
        found, read = puts.stop(), gets.stop()
    told = outcome("all at once", cluster, leader, rate, before, found)
    elections = told["term_at_end"] - term
    return [
        {
            **told,
            "reads": read,
            "caught_up_after_s": caught_up,
            "verified_after_s": verified_after,
            "elections": elections,
            **watch.largest,
        }
    ]


def behind(cluster: HoldingCluster) -> list[dict[str, Any]]:
    cluster.start(*FOUNDERS)
    follower = next(member for member in FOUNDERS if member != cluster.leader())
    cluster.kill(follower)
    cluster.fill()
    rate = cluster.rate()
    scenes = []

    def scene(name: str, member: int) -> None:
        """Puts before and while ``member`` begins, or begins anew, and catches up."""
        load = cluster.load(rate=rate, in_flight=256, seconds=cluster.sizes.before_s)
        before = measure(cluster.target(), load)
        leader = cluster.leader()
        at_start = metrics_of(cluster.metrics[leader])
        with watching(cluster.metrics[leader]) as watch:
            puts, began = cluster.puts(rate), time.monotonic()
            if member == NEWCOMER:
                lost = next(one for one in FOUNDERS if one != leader)
                cluster.kill(lost)
                shutil.rmtree(cluster.data(lost))
                cluster.join(member, lost)
            else:
                cluster.start(member)
            cluster.catch_up(leader, member, rate)
            if member == NEWCOMER:
                cluster.promote(member)
            taken = time.monotonic() - began
            found = puts.stop()
        told = outcome(name, cluster, leader, rate, before, found, caught_up_after_s=taken)
        told["snapshots_sent"] -= at_start["raft_snapshots_sent_total"]
        told["elections"] = told["term_at_end"] - at_start["raft_term"]
        scenes.append({**told, **watch.largest})

    scene("behind", follower)
    scene("replaced", NEWCOMER)
    return scenes


SCENES = {"all-at-once": all_at_once, "behind": behind}


def goals_of(scene: dict[str, Any]) -> list[Goal]:
    name = scene["scene"]
    goals = [Goal(f"{name}: elections", scene["elections"], "≤", 0)]
    if name != "all at once":
        p99s = [scene[phase]["put"]["p99_ms"] for phase in ("before", "during")]
        goals += [
            Goal(f"{name}: snapshots", scene["snapshots_sent"], "≤", 1),
            Goal(f"{name}: p99 of puts, times before", p99s[1] / p99s[0], "≤", TIMES_P99_MAX),
        ]
    return goals


def table(scenes: Sequence[dict[str, Any]]) -> list[str]:
    lines = [
        "| | GiB | written, MB/s (asked) | done after, s | snapshots | elections "
        "| p50 before, during, ms | p99 | p99.9 | longest put, ms | longest turn, late tick, ms "
        "| errors |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for scene in scenes:
        before, during = scene["before"]["put"], scene["during"]["put"]
        pairs = [
            f"{before[figure]:.1f}, {during[figure]:.1f}"
            for figure in ("p50_ms", "p99_ms", "p999_ms")
        ]
        cells = [
            scene["scene"],
            f"{scene['gib']:g}",
            f"{scene['written_mb_s']:.1f} ({scene['asked_mb_s']:g})",
            f"{scene['caught_up_after_s']:.1f}",
            f"{scene['snapshots_sent']:.0f}",
            f"{scene['elections']:.0f}",
            *pairs,
            f"{during['max_ms']:.0f}",
            f"{1e3 * scene['loop_turn_seconds_max']:.0f}, "
            f"{1e3 * scene['loop_late_seconds_max']:.0f}",
            json.dumps(scene["during"]["errors"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    for scene in scenes:
        if "reads" in scene:
            got = scene["reads"]["get"]
            lines += [
                "",
                f"Cold reads meanwhile: {got['calls_per_s']:.0f} a second, p50 {got['p50_ms']:.1f} "
                f"ms, p99 {got['p99_ms']:.1f} ms; the whole state was verified after "
                f"{scene['verified_after_s']:.1f} s.",
            ]
    return lines


def refuse_small_disk(directory: Path, gib: float) -> None:
    """Three members with their logs, a checkpoint that compaction leaves behind, some spare."""
    needed, free = 5 * gib + 10, shutil.disk_usage(directory).free / GIB
    if free < needed:
        raise SystemExit(f"{gib:g} GiB need {needed:.0f} GiB of disk; {free:.0f} are free")


def main() -> None:
    parser = argparse.ArgumentParser(usage="%(prog)s [options] [-- KVD_FLAGS]")
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=list(SCENES))
    parser.add_argument("--gib", type=float, default=4.0, help="of the scene all-at-once")
    parser.add_argument("--behind-gib", type=float, default=10.0, help="of the scene behind")
    parser.add_argument("--write-mb-s", type=float, default=60.0, help="of the scene all-at-once")
    parser.add_argument("--share", type=float, default=0.5, help="of what is sustained alone")
    parser.add_argument("--value-bytes", type=int, default=16 << 10)
    parser.add_argument("--before-s", type=float, default=60.0, help="puts before each scene")
    parser.add_argument("--directory", type=Path, help="where the data lies; a temporary one")
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("kvd", nargs="*", metavar="-- KVD_FLAGS")
    asked = parser.parse_args()
    scenes: list[dict[str, Any]] = []
    for name in asked.scenes:
        at_once = name == "all-at-once"
        sizes = Sizes(
            gib=asked.gib if at_once else asked.behind_gib,
            write_mb_s=asked.write_mb_s if at_once else BEHIND_MB_S,
            share=asked.share,
            value_bytes=asked.value_bytes,
            before_s=asked.before_s,
        )
        with tempfile.TemporaryDirectory(prefix="kvstore-holding-", dir=asked.directory) as chosen:
            directory = Path(chosen)
            refuse_small_disk(directory, sizes.gib)
            print(f"{name}: {sizes.gib:g} GiB", file=sys.stderr)
            with HoldingCluster(directory, sizes, asked.kvd) as cluster:
                scenes += SCENES[name](cluster)
    if asked.json is not None:
        asked.json.write_text(json.dumps(scenes, indent=2))
    print("\n".join(table(scenes)), "", sep="\n")
    print("\n".join(goal_table([goal for scene in scenes for goal in goals_of(scene)])))


if __name__ == "__main__":
    main()
