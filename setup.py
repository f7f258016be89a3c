"""Build of the Cython engine; everything declarative is in pyproject.toml."""

from __future__ import annotations

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

ENGINE = Path("src/kvstore/_engine")

# A debug build turns every bound check of Cython back on (see CONTRIBUTING.md).
DEBUG = os.environ.get("KVSTORE_DEBUG") == "1"

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "wraparound": DEBUG,
    "cdivision": not DEBUG,
    "embedsignature": True,
}

COMPILE_ARGS = ["-std=c++17", "-O2", "-g1", "-fno-strict-aliasing"]


def extensions() -> list[Extension]:
    return [
        Extension(
            f"kvstore._engine.{source.stem}",
            [str(source)],
            language="c++",
            extra_compile_args=COMPILE_ARGS,
            depends=[str(header) for header in sorted(ENGINE.glob("*.h"))],
        )
        for source in sorted(ENGINE.glob("*.pyx"))
    ]


setup(
    ext_modules=cythonize(
        extensions(), compiler_directives=DIRECTIVES, include_path=["src"], nthreads=os.cpu_count() or 1
    )
)
