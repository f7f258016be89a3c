"""Build of the Cython engine; everything declarative is in pyproject.toml."""

from __future__ import annotations

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

ENGINE = Path("src/kvstore/_engine")
STATE = Path("src/kvstore/_state")

# A debug build turns Cython's checks back on: bounds and divisors, and None where no method of a
# class runs without the GIL, which the check needs. Not overflowcheck: hashes, checksums and
# counters wrap on purpose, and the sanitizers see the overflow of a signed number.
DEBUG = os.environ.get("KVSTORE_DEBUG") == "1"
RUN_WITHOUT_GIL = (
    "kvstore._engine.log.native",
    "kvstore._engine.database.native",
    "kvstore._state.native",
)

# For `make test-asan` and `make test-tsan`: what the compiler's -fsanitize= is to be.
SANITIZE = os.environ.get("KVSTORE_SANITIZE", "")

# For tests/engine_planted: which rooms of the engine to build (all), and how fast they must run.
ROOMS = os.environ.get("KVSTORE_ROOMS", "").split()
OPTIMIZE = os.environ.get("KVSTORE_OPTIMIZE", "-O2")

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "wraparound": DEBUG,
    "cdivision": not DEBUG,
    "embedsignature": True,
    # Copied fields of a C object would be two owners of one thing: nothing here is pickled.
    "auto_pickle": False,
    # What the GIL guards: a free-threaded interpreter takes it back when it imports the engine, and
    # a subinterpreter is refused. Both are the defaults; they are said, not forgotten.
    "freethreading_compatible": False,
    "subinterpreters_compatible": "no",
}

# Line numbers for whoever looks for a fault; a user's package is half as large without.
COMPILE_ARGS = ["-std=c++17", OPTIMIZE, "-fno-strict-aliasing"]
COMPILE_ARGS.append("-g1" if DEBUG or SANITIZE else "-g0")
LINK_ARGS: list[str] = []
if SANITIZE:
    COMPILE_ARGS += [f"-fsanitize={SANITIZE}", "-fno-omit-frame-pointer", "-O1"]
    LINK_ARGS += [f"-fsanitize={SANITIZE}"]


def extensions() -> list[Extension]:
    return [
        Extension(
            ".".join(source.relative_to("src").with_suffix("").parts),
            [str(source)],
            language="c++",
            include_dirs=["src"],
            extra_compile_args=COMPILE_ARGS,
            extra_link_args=LINK_ARGS,
            depends=[str(header) for header in sorted(ENGINE.glob("*/*.h"))],
        )
        for source in [
            *sorted(ENGINE.glob("*/native.pyx")),
            ENGINE / "files/file_face.pyx",
            STATE / "native.pyx",
        ]
        if not ROOMS or source in [ENGINE / room / "native.pyx" for room in ROOMS]
    ]


def modules() -> list[Extension]:
    kinds: dict[bool, list[Extension]] = {False: [], True: []}
    for extension in extensions():
        kinds[DEBUG and extension.name not in RUN_WITHOUT_GIL].append(extension)
    return [
        module
        for nonecheck, group in kinds.items()
        if group
        for module in cythonize(
            group,
            compiler_directives={**DIRECTIVES, "nonecheck": nonecheck},
            include_path=["src"],
            nthreads=os.cpu_count() or 1,
        )
    ]


setup(ext_modules=modules())
