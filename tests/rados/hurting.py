"""What is done to a RADOS cluster and to gateways while clients call them, one function each.

Like tests/chaos/faults.py: before its ``yield`` a function hurts, behind it it heals. What it
yields says when calls come back: ``SERVES`` (all along, once the cluster or the client has found
another way), ``REFUSES`` (once it is healed; a write that is acknowledged before is a violation) or
``MAY_REFUSE`` (once it is healed, at the latest).
"""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kvstore.beyond.rados.layout import bucket_name, bucket_of
from tests.integration.process import Kvd
from tools.rados_cluster import POOL, RadosCluster

__all__ = ["FAULTS", "MAY_REFUSE", "REFUSES", "SERVES", "GatewayProcess", "Scene"]

SERVES, REFUSES, MAY_REFUSE = "serves", "refuses", "may refuse"
Play = Iterator[str]

STOPPED_S, RUNNING_S = 0.3, 0.05
"""A slow OSD: it stands still for so long, then runs, again and again; heartbeats come through."""


class GatewayProcess:
    """A kvd that is killed and comes back where it was."""

    def __init__(self, name: Path, config: Path) -> None:
        self._name = name
        self._config = config
        self.kvd = Kvd(name, rados=config)
        self.address = self.kvd.address

    def start(self) -> None:
        """Again, if it was killed."""
        if self.kvd.has_ended:
            self.kvd = Kvd(self._name, rados=self._config, listen=self.address)

    def close(self) -> None:
        if not self.kvd.has_ended:
            self.kvd.signal(signal.SIGCONT)
            self.kvd.kill()


@dataclass
class Scene:
    """What can be hurt. ``salt``: of the namespace; ``keys``: that are written meanwhile."""

    cluster: RadosCluster
    gateways: list[GatewayProcess]
    namespace: str
    salt: bytes
    rng: random.Random
    keys: list[bytes]

    def primary(self) -> int:
        """The OSD that answers for one of the keys."""
        return self._placed()[0]

    def replica(self) -> int:
        """One that has a copy of it."""
        return self._placed()[1]

    def two(self) -> list[int]:
        """So many that what is left is below the pool's min_size."""
        return self.rng.sample(range(self.cluster.osds), 2)

    def gateway(self) -> GatewayProcess:
        return self.rng.choice(self.gateways)

    def _placed(self) -> list[int]:
        name = bucket_name(bucket_of(self.rng.choice(self.keys), self.salt)).decode()
        said = self.cluster.ask("osd", "map", POOL, name, self.namespace)
        others = [number for number in said["acting"] if number != said["acting_primary"]]
        return [said["acting_primary"], *others]

    def kill(self, *osds: int) -> None:
        for number in osds:
            self.cluster.kill(f"osd.{number}")

    def stop(self, *osds: int) -> None:
        for number in osds:
            self.cluster.signal(f"osd.{number}", signal.SIGSTOP)


def _killed(choose: Callable[[Scene], list[int]], promise: str) -> Callable[[Scene], Play]:
    def play(scene: Scene) -> Play:
        scene.kill(*choose(scene))
        yield promise
        scene.cluster.mend()

    return play


def _stopped(choose: Callable[[Scene], list[int]], promise: str) -> Callable[[Scene], Play]:
    def play(scene: Scene) -> Play:
        scene.stop(*choose(scene))
        yield promise
        scene.cluster.mend()

    return play


def slow_osd(scene: Scene) -> Play:
    """It works one seventh of the time, and never stands still for long enough to be given up."""
    name = f"osd.{scene.primary()}"
    over = threading.Event()

    def pulse() -> None:
        while not over.wait(RUNNING_S):
            scene.cluster.signal(name, signal.SIGSTOP)
            over.wait(STOPPED_S)
            scene.cluster.signal(name, signal.SIGCONT)

    pulsing = threading.Thread(target=pulse)
    pulsing.start()
    try:
        yield SERVES
    finally:
        over.set()
        pulsing.join()


def kill_monitor(scene: Scene) -> Play:
    scene.cluster.kill("mon.a")
    yield SERVES
    scene.cluster.mend()


def stop_monitor(scene: Scene) -> Play:
    scene.cluster.signal("mon.a", signal.SIGSTOP)
    yield SERVES
    scene.cluster.mend()


def kill_monitor_and_primary(scene: Scene) -> Play:
    """Nobody is there to say that another OSD is to answer instead."""
    primary = scene.primary()
    scene.cluster.kill("mon.a")
    scene.kill(primary)
    yield MAY_REFUSE
    scene.cluster.mend()


def kill_gateway(scene: Scene) -> Play:
    gateway = scene.gateway()
    gateway.kvd.kill()
    yield SERVES
    gateway.start()


def stop_gateway(scene: Scene) -> Play:
    gateway = scene.gateway()
    gateway.kvd.signal(signal.SIGSTOP)
    yield SERVES
    gateway.kvd.signal(signal.SIGCONT)


def kill_both_gateways(scene: Scene) -> Play:
    for gateway in scene.gateways:
        gateway.kvd.kill()
    yield REFUSES
    for gateway in scene.gateways:
        gateway.start()


def kill_gateway_and_primary(scene: Scene) -> Play:
    gateway = scene.gateway()
    scene.kill(scene.primary())
    gateway.kvd.kill()
    yield SERVES
    scene.cluster.mend()
    gateway.start()


FAULTS: dict[str, Callable[[Scene], Play]] = {
    "primary killed": _killed(lambda scene: [scene.primary()], SERVES),
    "replica killed": _killed(lambda scene: [scene.replica()], SERVES),
    "two OSDs killed": _killed(Scene.two, REFUSES),
    "primary stopped": _stopped(lambda scene: [scene.primary()], SERVES),
    "replica stopped": _stopped(lambda scene: [scene.replica()], SERVES),
    "two OSDs stopped": _stopped(Scene.two, REFUSES),
    "all OSDs stopped": _stopped(lambda scene: list(range(scene.cluster.osds)), REFUSES),
    "slow primary": slow_osd,
    "monitor killed": kill_monitor,
    "monitor stopped": stop_monitor,
    "monitor and primary killed": kill_monitor_and_primary,
    "gateway killed": kill_gateway,
    "gateway stopped": stop_gateway,
    "both gateways killed": kill_both_gateways,
    "gateway and primary killed": kill_gateway_and_primary,
}
