"""Run by test_extension_types: every type of the engine, made without being initialised, and used.

    python unmade_objects.py

Each type has a forked process of its own. Prints a line for each type that killed it, with the call
that did.
"""

import contextlib
import copy
import importlib
import inspect
import itertools
import operator
import os
import pickle
import pkgutil
import signal
import sys
import tempfile

import kvstore
import kvstore._engine
from kvstore._engine.files.native import MemoryFileSystem

SECONDS = 60

# Names that end or stop the process by themselves, or are the same for every object.
LEFT_OUT = {"__class__", "__subclasshook__", "__init_subclass__", "__new__", "__getattribute__"}


def extension_types():
    """Every class that is defined in Cython, by its full name."""
    found = {}
    for module in pkgutil.walk_packages(kvstore._engine.__path__, "kvstore._engine."):
        namespace = vars(importlib.import_module(module.name))
        for value in namespace.values():
            # A class statement of Python makes a type whose instances have a dictionary.
            if (
                isinstance(value, type)
                and value.__module__ == module.name
                and value.__dictoffset__ == 0
                and not issubclass(value, (tuple, BaseException))
            ):
                found[f"{value.__module__}.{value.__qualname__}"] = value
    return found


def plausible(name, owner):
    """Values that a parameter of this name could have, the likeliest first."""
    known = {
        "batch": kvstore.WriteBatch(),
        "source": kvstore.WriteBatch(),
        "filesystem": MemoryFileSystem(),
        "options": kvstore.Options(),
        "path": "/somewhere",
        "name": "/somewhere",
        "old": "/somewhere",
        "new": "/elsewhere",
        "job": "flush",
        "kind": 1,
        "index": 1,
        "size": 1,
        "offset": 0,
        "sequence": 1,
        "number": 1,
        "keys": [b"key"],
        "numbers": [1],
    }
    likely = [known[name]] if name in known else []
    return [*likely, b"key", 1, "text", None, owner, [b"key"], MemoryFileSystem()]


def arguments(function, owner):
    """Some lists of arguments for a method whose signature may not be known."""
    try:
        parameters = [
            parameter
            for parameter in inspect.signature(function).parameters.values()
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        ]
    except (TypeError, ValueError):
        parameters = None
    if parameters is None:
        for count in range(4):
            yield from itertools.islice(
                itertools.product(*[plausible("", owner) for _ in range(count)]), 40
            )
        return
    needed = sum(parameter.default is parameter.empty for parameter in parameters)
    for count in {needed, len(parameters)}:
        choices = [plausible(parameter.name, owner) for parameter in parameters[:count]]
        # One after another through their lists, then each combination of the first few.
        yield from zip(*choices, strict=False) if choices else [()]
        yield from itertools.islice(itertools.product(*choices), 60)


OPERATORS = [
    *(len, iter, next, hash, repr, str, bool, list, dir, bytes, memoryview, int, float),
    *(operator.index, copy.copy, copy.deepcopy),
    *[lambda value, protocol=protocol: pickle.dumps(value, protocol) for protocol in range(6)],
]


def use(owner, cls, told):
    """Call and read all that the object has."""
    with contextlib.suppress(BaseException):
        told("with")
        with owner:
            pass
    for function in OPERATORS:
        told(f"{function}")
        with contextlib.suppress(Exception):
            function(owner)
    for name in sorted(set(dir(cls)) - LEFT_OUT):
        told(name)
        try:
            member = getattr(owner, name)
        except Exception:  # noqa: BLE001
            continue
        if not callable(member):
            continue
        for values in arguments(member, owner):
            told(f"{name}({', '.join(type(value).__name__ for value in values)})")
            with contextlib.suppress(Exception):
                member(*values)


def walk(name, cls, told):
    choices = [(), ("/somewhere",), (b"key",), (8,), ([b"key"], 8), (None, b"", None, None)]
    for values in choices:
        told(f"__new__{values!r}")
        try:
            owner = cls.__new__(cls, *values)
        except Exception:  # noqa: BLE001
            continue
        use(owner, cls, told)
        told("its end")
        del owner
    told("object.__new__")
    with contextlib.suppress(TypeError):
        object.__new__(cls)
    # Handed to what takes objects of other types.
    for maker in (kvstore.DB, kvstore.destroy_db, kvstore.repair_db):
        told(f"{maker}(filesystem=)")
        with contextlib.suppress(Exception):
            maker("/somewhere", filesystem=cls.__new__(cls))


def walk_in_child(name, cls):
    """What killed the process that used it, or None."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(SECONDS)
        os.close(reading)
        journal = os.fdopen(writing, "w", buffering=1)
        walk(name, cls, lambda what: print(what.replace("\n", " "), file=journal))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, errors="replace") as told:
        last = ""
        for line in told:
            last = line
    _, status = os.waitpid(child, 0)
    if status == 0:
        return None
    return f"{name}: status {status} in {last.strip()}"


def main():
    os.chdir(tempfile.mkdtemp())
    types = extension_types()
    print(f"{len(types)} types")
    for name, cls in types.items():
        if (trouble := walk_in_child(name, cls)) is not None:
            print(trouble)
    return 0


if __name__ == "__main__":
    sys.exit(main())
