"""kvd's own small files (KVSTORE, LOCK, MEMBER, PEERS, HISTORY), and real kvd processes."""

from __future__ import annotations

import functools
import importlib
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from kvstore.errors import ConfigurationError, StorageError
from tests.integrity.sources import Source
from tests.integrity.trees import Tree, write_out
from tests.integrity.verdicts import Outcome, Verdict, refused

__all__ = ["judge", "judge_running", "sources"]

DIRECTORY = "tests.integrity.kvd_directory"
RUNNING = "tests.integrity.kvd_running"
CLUSTER = "tests.integrity.kvd_cluster"
RUNS = 12
CLUSTER_RUNS = 24


def sources() -> list[Source]:
    """A member that has run for a while."""
    files = _made("a-cluster", 2, 7)
    third = _made("a-cluster", 3, 9, "embedded")
    foreign = dict(_made("another", 2, 7))
    foreign |= {f"/third{path}": content for path, content in third.items()}
    older = _made("a-cluster", 2, 5)
    running = _made_by(RUNNING)
    return [
        Source("kvd-files", "kvd-files", files, older, foreign, None),
        Source(
            "kvd-embedded",
            "kvd",
            running,
            {},
            _made_by(RUNNING),
            None,
            every_byte=False,
            at_most=RUNS,
            seconds_max=120.0,
        ),
        _cluster(),
    ]


def _cluster() -> Source:
    """Of three members, the directory of one that was stopped; ``truth``: all else there is."""
    made = _made_by(CLUSTER)
    mine = _below(made, "/now/data3")
    # Another member's, by the names that they would have here.
    theirs = {
        path.replace("/node1/", "/node3/"): content
        for path, content in _below(made, "/now/data1").items()
    }
    rest = {path: made[path] for path in made if path.startswith(("/now/data1/", "/now/data2/"))}
    return Source(
        "kvd-cluster",
        "cluster",
        mine,
        _below(made, "/older"),
        theirs,
        (rest, made["/now/addresses.json"]),
        tuple(
            (kind, path, path) if kind != "gone" else (kind, path)
            for path in ("/node3", "/node3/log", _rooms(mine)[0])
            for kind in ("gone", "older", "foreign")
        ),
        every_byte=False,
        at_most=CLUSTER_RUNS,
        seconds_max=240.0,
    )


def _rooms(tree: Tree) -> list[str]:
    """Directories of states."""
    return sorted({"/".join(path.split("/")[:3]) for path in tree if "/state-" in path})


def _below(tree: Tree, directory: str) -> Tree:
    return {
        path.removeprefix(directory): content
        for path, content in tree.items()
        if path.startswith(directory + "/")
    }


def _made(cluster: str, member: int, starts: int, mode: str = "cluster-node") -> Tree:
    return _made_by(DIRECTORY, cluster, str(member), str(starts), mode)


def _made_by(module: str, *words: str) -> Tree:
    with tempfile.TemporaryDirectory(prefix="kvstore-integrity-") as name:
        directory = Path(name) / "data"
        subprocess.run([sys.executable, "-m", module, directory, *words], check=True)
        return {
            f"/{path.relative_to(directory)}": path.read_bytes()
            for path in sorted(directory.rglob("*"))
            if path.is_file()
        }


@functools.cache
def _kvd(module: str) -> Any:
    """kvd's code, in a worker: see there."""
    return importlib.import_module(module)


def _read(tree: Tree) -> Any:
    with tempfile.TemporaryDirectory(prefix="kvstore-integrity-") as name:
        write_out(tree, Path(name))
        return _kvd(DIRECTORY).read(Path(name))


def judge(source: Source, tree: Tree) -> Verdict:
    """Read them as kvd does; what they say must be what they said before."""
    told = _read(source.files)
    try:
        said = _read(tree)
    except StorageError as error:
        return refused(error)
    except ConfigurationError as error:
        return Verdict(Outcome.DETECTED, "", f"refused: {error}")
    if said.identity != told.identity:
        reason = _kvd(DIRECTORY).refused_by_peers(told, said)
        if reason:
            return Verdict(Outcome.DETECTED, "", f"refused by its peers: {reason}")
    if said.warned:
        return Verdict(Outcome.DETECTED, "", f"reported: {said.warned}")
    if (said.identity, said.known) != (told.identity, told.known):
        return Verdict(Outcome.WRONG, "", f"it says {said}")
    # Marks of an earlier moment are as true as ever; without them history is kept for longer.
    if said.marks not in (told.marks, [], _read(source.older).marks):
        return Verdict(Outcome.WRONG, "", f"it says {said}")
    return Verdict(Outcome.NO_EFFECT)


def judge_running(source: Source, tree: Tree) -> Verdict:
    """Start a real kvd on it: its exit status and what it says, or what it serves."""
    with tempfile.TemporaryDirectory(prefix="kvstore-integrity-") as name:
        directory = Path(name) / "data"
        directory.mkdir(mode=0o700)
        write_out(tree, directory)
        verdict: Verdict = _kvd(RUNNING).judge(directory)
        return verdict


def judge_cluster(source: Source, tree: Tree) -> Verdict:
    """Start real kvds as a cluster: what became of the damaged member, and of what is served."""
    others, addresses = source.truth
    with tempfile.TemporaryDirectory(prefix="kvstore-integrity-") as name:
        directory = Path(name)
        write_out(_below(others, "/now"), directory)
        (directory / "data3").mkdir(exist_ok=True)
        for member in directory.iterdir():
            member.chmod(0o700)
        write_out(tree, directory / "data3")
        verdict: Verdict = _kvd(CLUSTER).judge(directory, addresses)
        return verdict
