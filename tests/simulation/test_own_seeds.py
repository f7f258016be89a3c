"""Whole clusters under trouble, of seeds that follow from the source.

``KVSTORE_SIMULATION_SEEDS`` says how many; ``make simulate SEEDS=N`` runs fresh ones.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

import kvstore
from tests.simulator import simulate

SEEDS = int(os.environ.get("KVSTORE_SIMULATION_SEEDS", "60"))


def first_of_source() -> int:
    """Other seeds for each state of the source, and for one state always the same.

    So no run of the tests fails that wouldn't fail again.
    """
    digest = hashlib.sha256()
    for path in sorted(Path(kvstore.__file__).parent.rglob("*.py*")):
        if path.suffix in (".py", ".pyx", ".pxd"):
            digest.update(path.read_bytes())
    return int.from_bytes(digest.digest()[:4], "big") >> 1


@pytest.fixture(scope="module")
def first() -> int:
    return first_of_source()


@pytest.mark.parametrize("number", range(SEEDS))
def test_a_seed_of_the_source_keeps_every_promise(first: int, number: int) -> None:
    simulate(first + number)
