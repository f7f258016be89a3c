"""The checker itself: histories known good, known bad, and small ones against brute force."""

from __future__ import annotations

import random
from itertools import permutations

import pytest

from tests.simulator.linearizability import Kind, Operation, Verdict, check

PUT, GET, DELETE = Kind.PUT, Kind.GET, Kind.DELETE


def op(
    kind: Kind,
    called: int,
    returned: int | None,
    result: bool | bytes | None = None,
    value: bytes | None = None,
    key: bytes = b"k",
) -> Operation:
    return Operation(0, kind, key, value, called, returned, result)


GOOD = {
    "nothing happened": [],
    "a key that was never written reads as absent": [op(GET, 0, 1, None)],
    "put, then get": [op(PUT, 0, 1, False, b"a"), op(GET, 2, 3, b"a")],
    "overwrite and delete say what was there": [
        op(PUT, 0, 1, False, b"a"),
        op(PUT, 2, 3, True, b"b"),
        op(DELETE, 4, 5, True),
        op(DELETE, 6, 7, False),
        op(GET, 8, 9, None),
    ],
    "a get that overlaps a put may see the old value": [
        op(PUT, 0, 1, False, b"a"),
        op(PUT, 2, 9, True, b"b"),
        op(GET, 3, 4, b"a"),
        op(GET, 10, 11, b"b"),
    ],
    "a get that overlaps a put may see the new value": [
        op(PUT, 0, 9, False, b"a"),
        op(GET, 1, 2, b"a"),
    ],
    "two puts at once, in either order": [
        op(PUT, 0, 5, True, b"a"),
        op(PUT, 0, 5, False, b"b"),
        op(GET, 6, 7, b"a"),
    ],
    "an unknown put takes effect long after": [
        op(PUT, 0, None, None, b"a"),
        op(GET, 1, 2, None),
        op(GET, 8, 9, b"a"),
    ],
    "an unknown put never takes effect": [op(PUT, 0, None, None, b"a"), op(GET, 1, 2, None)],
    "an unknown put that nobody read explains an overwrite": [
        op(PUT, 0, None, None, b"a"),
        op(PUT, 1, 2, True, b"b"),
    ],
    "an unknown delete explains a missing key": [
        op(PUT, 0, 1, False, b"a"),
        op(DELETE, 2, None),
        op(GET, 3, 4, b"a"),
        op(GET, 5, 6, None),
    ],
    "keys are apart": [
        op(PUT, 0, 1, False, b"a"),
        op(PUT, 0, 1, False, b"b", key=b"other"),
        op(GET, 2, 3, b"b", key=b"other"),
    ],
    "operations that touch at one moment overlap": [
        op(PUT, 0, 5, False, b"a"),
        op(GET, 5, 6, None),
    ],
}

BAD = {
    "a value that nobody put": [op(GET, 0, 1, b"ghost")],
    "a stale read": [
        op(PUT, 0, 1, False, b"a"),
        op(PUT, 2, 3, True, b"b"),
        op(GET, 4, 5, b"a"),
    ],
    "a lost write": [op(PUT, 0, 1, False, b"a"), op(GET, 2, 3, None)],
    "a read from the future": [op(GET, 0, 1, b"a"), op(PUT, 2, 3, False, b"a")],
    "new, then old again": [
        op(PUT, 0, 1, False, b"a"),
        op(PUT, 2, 9, True, b"b"),
        op(GET, 3, 4, b"b"),
        op(GET, 5, 6, b"a"),
    ],
    "a put applied twice": [
        op(PUT, 0, 1, False, b"a"),
        op(PUT, 2, 3, True, b"b"),
        op(GET, 4, 5, b"b"),
        op(GET, 6, 7, b"a"),
    ],
    "two puts that both found nothing": [
        op(PUT, 0, 5, False, b"a"),
        op(PUT, 0, 5, False, b"b"),
    ],
    "a delete that denies what was there": [op(PUT, 0, 1, False, b"a"), op(DELETE, 2, 3, False)],
    "a delete undone": [
        op(PUT, 0, 1, False, b"a"),
        op(DELETE, 2, 3, True),
        op(GET, 4, 5, b"a"),
    ],
    "an unknown put takes effect twice": [
        op(PUT, 0, None, None, b"a"),
        op(GET, 1, 2, b"a"),
        op(DELETE, 3, 4, True),
        op(GET, 5, 6, b"a"),
    ],
    "an unknown put before its call": [op(GET, 0, 1, b"a"), op(PUT, 2, None, None, b"a")],
    "one bad key among good ones": [
        op(PUT, 0, 1, False, b"a"),
        op(GET, 2, 3, b"a"),
        op(GET, 2, 3, b"a", key=b"other"),
    ],
}


@pytest.mark.parametrize("name", GOOD)
def test_history_known_good_is_linearizable(name: str) -> None:
    assert check(GOOD[name]).verdict is Verdict.LINEARIZABLE


@pytest.mark.parametrize("name", BAD)
def test_history_known_bad_is_refused_with_a_story(name: str) -> None:
    report = check(BAD[name])
    assert report.verdict is Verdict.NOT_LINEARIZABLE
    assert "no order explains" in report.story


def explained_by(order: tuple[Operation, ...]) -> bool:
    """Whether running the operations one after the other gives their results."""
    value: bytes | None = None
    for operation in order:
        if operation.kind is GET:
            if operation.result != value:
                return False
            continue
        if operation.returned is not None and operation.result != (value is not None):
            return False
        value = operation.value if operation.kind is PUT else None
    return True


def brute_force(history: list[Operation]) -> bool:
    """Try every order of every subset of the unknown operations."""
    known = [o for o in history if o.returned is not None]
    unknown = [o for o in history if o.returned is None and o.kind is not GET]
    for choice in range(1 << len(unknown)):
        chosen = known + [o for i, o in enumerate(unknown) if choice >> i & 1]
        for order in permutations(chosen):
            in_time = all(
                later.returned is None or later.returned >= earlier.called
                for at, earlier in enumerate(order)
                for later in order[at + 1 :]
            )
            if in_time and explained_by(order):
                return True
    return False


def small_history(rng: random.Random) -> list[Operation]:
    """A few operations whose results are right or nearly right."""
    history: list[Operation] = []
    value: bytes | None = None
    moment = 0
    for number in range(rng.randint(2, 5)):
        kind = rng.choice((PUT, GET, DELETE))
        called = max(0, moment - rng.randint(0, 4))
        moment += rng.randint(1, 3)
        returned = moment + rng.randint(0, 4) if rng.random() < 0.8 else None
        put = b"v%d" % number if kind is PUT else None
        result: bool | bytes | None = value if kind is GET else value is not None
        if rng.random() < 0.15:
            result = rng.choice((None, b"v0", b"v1")) if kind is GET else not result
        history.append(op(kind, called, returned, result, put))
        if kind is not GET:
            value = put
    return history


def test_checker_agrees_with_brute_force_on_small_histories() -> None:
    rng = random.Random(20)
    verdicts = []
    for _ in range(1500):
        history = small_history(rng)
        expected = Verdict.LINEARIZABLE if brute_force(history) else Verdict.NOT_LINEARIZABLE
        assert check(history).verdict is expected, "\n".join(map(str, history))
        verdicts.append(expected)
    assert verdicts.count(Verdict.LINEARIZABLE) > 300
    assert verdicts.count(Verdict.NOT_LINEARIZABLE) > 300


def test_checker_gives_up_instead_of_passing() -> None:
    history = [op(PUT, 0, None, None, b"%d" % i) for i in range(12)]
    history += [op(GET, 20 + i, 40 + i, b"%d" % i) for i in range(12)]
    report = check(history, configurations_max=50)
    assert report.verdict is Verdict.UNDECIDED
    assert "more than 50 configurations" in report.story


def test_many_unknown_operations_that_nobody_saw_cost_nothing() -> None:
    history = [op(PUT, i, None, None, b"%d" % i) for i in range(200)]
    history += [op(DELETE, i, None) for i in range(200)]
    history += [op(PUT, 300 + 2 * i, 301 + 2 * i, True, b"seen") for i in range(100)]
    assert check(history).verdict is Verdict.LINEARIZABLE
