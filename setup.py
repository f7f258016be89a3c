"""Build of the Cython engine; everything declarative is in pyproject.toml."""

from __future__ import annotations

import os
import shlex
import subprocess
from ctypes.util import find_library
from pathlib import Path
from shutil import copy
from tempfile import TemporaryDirectory

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ENGINE = Path("src/kvstore/_engine")
STATE = Path("src/kvstore/_state")
SERVICE = Path("src/kvstore/_service")
WIRE = Path("src/kvstore/_wire")
RADOS = Path("src/kvstore/_rados")

# A debug build turns Cython's checks back on: bounds and divisors, and None where no method of a
# class runs without the GIL, which the check needs. Not overflowcheck: hashes, checksums and
# counters wrap on purpose, and the sanitizers see the overflow of a signed number.
DEBUG = os.environ.get("KVSTORE_DEBUG") == "1"
RUN_WITHOUT_GIL = (
    "kvstore._engine.log.native",
    "kvstore._engine.database.native",
    "kvstore._state.native",
    "kvstore._service.native",
    "kvstore._wire.native",
    "kvstore._rados.native",
)

# For `make test-asan` and `make test-tsan`: what the compiler's -fsanitize= is to be.
SANITIZE = os.environ.get("KVSTORE_SANITIZE", "")

# For tests/engine_planted: which rooms of the engine to build (all), and how fast they must run.
ROOMS = os.environ.get("KVSTORE_ROOMS", "").split()
OPTIMIZE = os.environ.get("KVSTORE_OPTIMIZE", "-O2")

# For wheels that are to run where no nghttp2 is installed: its library beside the wire's own.
BUNDLE = os.environ.get("KVSTORE_BUNDLE") == "1"

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


def has_nghttp2() -> bool:
    """Whether a program against nghttp2 compiles and links; KVSTORE_WIRE=0 says no unasked."""
    if os.environ.get("KVSTORE_WIRE") == "0":
        return False
    program = (
        "#include <nghttp2/nghttp2.h>\n"
        "int main() { return nghttp2_version(NGHTTP2_VERSION_NUM) == 0; }\n"
    )
    names = ("CPPFLAGS", "CXXFLAGS", "LDFLAGS")
    flags = [flag for name in names for flag in shlex.split(os.environ.get(name, ""))]
    with TemporaryDirectory() as directory:
        source = Path(directory) / "program.cpp"
        source.write_text(program)
        compiler = shlex.split(os.environ.get("CXX", "c++"))
        command = [*compiler, str(source), *flags, "-lnghttp2", "-o", f"{directory}/program"]
        try:
            return subprocess.run(command, check=False, capture_output=True).returncode == 0
        except OSError:
            return False


def sources() -> list[Path]:
    found = [
        *sorted(ENGINE.glob("*/native.pyx")),
        ENGINE / "files/file_face.pyx",
        STATE / "native.pyx",
        SERVICE / "native.pyx",
        RADOS / "native.pyx",
    ]
    if ROOMS:
        return [source for source in found if source in [ENGINE / r / "native.pyx" for r in ROOMS]]
    if has_nghttp2():
        return [*found, WIRE / "native.pyx"]
    print("kvstore: without the native wire, since nghttp2's header or library isn't here")
    return found


def extensions() -> list[Extension]:
    return [
        Extension(
            ".".join(source.relative_to("src").with_suffix("").parts),
            [str(source)],
            language="c++",
            include_dirs=["src"],
            extra_compile_args=COMPILE_ARGS,
            extra_link_args=LINK_ARGS,
            libraries=["nghttp2"] if source.parent == WIRE else [],
            runtime_library_dirs=["$ORIGIN"] if source.parent == WIRE else [],
            depends=[str(header) for header in sorted([*ENGINE.glob("*/*.h"), *STATE.glob("*.h")])],
        )
        for source in sources()
    ]


def generated(extensions: list[Extension]) -> dict[str, Extension]:
    """Each extension with the C++ that Cython makes of it, by name."""
    kinds: dict[bool, list[Extension]] = {False: [], True: []}
    for extension in extensions:
        kinds[DEBUG and extension.name not in RUN_WITHOUT_GIL].append(extension)
    return {
        module.name: module
        for nonecheck, group in kinds.items()
        if group
        for module in cythonize(
            group,
            compiler_directives={**DIRECTIVES, "nonecheck": nonecheck},
            include_path=["src"],
            nthreads=os.cpu_count() or 1,
        )
    }


def licence_of_nghttp2() -> Path:
    """Where Debian's and Red Hat's packages have it."""
    for place in (
        "usr/share/doc/libnghttp2-*/copyright",
        "usr/share/licenses/*nghttp2*/COPYING",
        "usr/share/licenses/*nghttp2*/LICENSE",
    ):
        for found in Path("/").glob(place):
            return found
    raise SystemExit("kvstore: nghttp2 can't be brought along: its licence isn't here")


class BuildExtensions(build_ext):
    def run(self) -> None:
        # Not earlier: whoever asks for metadata alone, or makes an sdist, doesn't wait for it.
        modules = generated(self.extensions)
        for extension in self.extensions:
            extension.sources = modules[extension.name].sources
            extension.depends = modules[extension.name].depends
        super().run()
        wire = Path(self.get_ext_fullpath("kvstore._wire.native"))
        if BUNDLE and not self.inplace and wire.exists():
            soname = find_library("nghttp2")
            found = subprocess.run(
                [*shlex.split(os.environ.get("CC", "cc")), f"-print-file-name={soname}"],
                check=True,
                capture_output=True,
                text=True,
            )
            copy(found.stdout.strip(), wire.parent)
            # As its licence wants.
            copy(licence_of_nghttp2(), wire.parent / "copyright")


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildExtensions})
