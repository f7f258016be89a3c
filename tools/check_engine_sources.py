"""Rules of the native sources that no other linter knows: ``make lint`` runs this.

1. A room imports from the rooms before it only (``kvstore._engine``'s docstring gives their order),
   in ``.py``, ``.pyx`` and ``.pxd``; a room's parts are included in one module and import nothing
   of their own room. ``_state``, ``_service``, ``_wire`` and ``_rados`` stand above all of them and
   obey the same rules.
2. No C++ exceptions: no ``except +``, nothing of ``libcpp`` (whose declarations have it), no
   throwing container, no ``new``.
3. C memory comes from ``primitives/memory.pxd`` and goes back to it: no ``malloc`` elsewhere.
4. No ``with gil`` in a function that is ``noexcept nogil``, and in the generated C++ no function
   that asks for the GIL, but those named here.

Prints what breaks a rule, one line each, and ends with 1 if anything does.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "src/kvstore"
ENGINE = PACKAGE / "_engine"
ROOMS = ("primitives", "files", "log", "memtable", "table", "version", "database")
ABOVE = ("_state", "_service", "_wire", "_rados")

# Extension modules of their own: what is not for users, but for tests.
OWN_MODULES = {"files/file_face.pyx"}

# Where memory may be had from libc or the kernel: the seam, and what tells the seam of it.
HEAP = {"primitives/memory.pxd"}
PLACES_OF_MMAP = {"primitives/arena.pyx", "files/posix.pyx"}

# Functions of C's signature that go back to Python on purpose: file systems written in Python, the
# visitor that fills a list, codecs that only a Python package has, the call of a thread of Python.
TAKE_THE_GIL = re.compile(
    r"files/(memory_\w+|python_\w+|collect_name|refused)|table/(de)?compress_with_gil"
    r"|database/tables_left"
)

CIMPORT = re.compile(
    r"^\s*(?:from\s+(kvstore[\w.]*)\s+c?import\s+([\w(]+)|c?import\s+(kvstore[\w.]*))"
)
CALL_OF_HEAP = re.compile(
    r"(?<![\w.>:])(malloc|calloc|realloc|free|aligned_alloc|posix_memalign|strn?dup|asprintf)\s*\("
)
CIMPORT_OF_HEAP = re.compile(
    r"^from libc\.(?:stdlib|string) cimport .*\b(malloc|calloc|realloc|free|strn?dup)\b"
)
THROWS = re.compile(
    r"\bexcept\s*\+|\blibcpp\b|\bstd::(?:vector|deque|list|map|set|string|function|unordered_\w+"
    r"|unique_ptr|shared_ptr|queue|stack)\b|#include <(?:vector|deque|list|map|set|string"
    r"|functional|unordered_\w+|memory|queue|stack)>"
)
NEW = re.compile(r"\bnew\s+(?:\([^)]*\)\s*)?[A-Za-z_][\w:<>]*\s*[({]")
FUNCTION = re.compile(r"^(\s*)cdef\b.*\b(\w+)\s*\(")
NOGIL_END = re.compile(r"\bnoexcept\s+nogil\s*:\s*(#.*)?$")
GENERATED = re.compile(r"^static\b.*?\b__pyx_f_\w*?6native_(\w+)\(.*\{$")


def empty_lines(found: re.Match[str]) -> str:
    return "\n" * found.group().count("\n")


def without_comments(path: Path, text: str) -> list[str]:
    """The lines of a source, with comments and docstrings empty, and C between them kept."""
    text = re.sub(r"/\*.*?\*/", empty_lines, text, flags=re.DOTALL)
    if path.suffix == ".h":
        return re.sub(r"//.*", "", text).split("\n")
    pieces = re.split(r'(""".*?""")', text, flags=re.DOTALL)
    for i in range(1, len(pieces), 2):
        if not re.search(r"cdef extern from [^\n]*:\n\s*$", pieces[i - 1]):
            pieces[i] = "\n" * pieces[i].count("\n")
    return re.sub(r"#(?!\s*include).*", "", "".join(pieces)).split("\n")


def check_imports(name: str, lines: list[str]) -> Iterator[tuple[int, str]]:
    room = name.partition("/")[0]
    height = len(ROOMS) if room in ABOVE else ROOMS.index(room)
    for number, line in enumerate(lines, 1):
        found = CIMPORT.match(line)
        if not found:
            continue
        target = (found[1] or found[3]).split(".")
        if target[:2] != ["kvstore", "_engine"]:
            continue
        other = target[2] if len(target) > 2 else (found[2] or "")
        if other not in ROOMS:
            yield number, f"imports {'.'.join(target)}, which is no room"
        elif ROOMS.index(other) > height:
            yield number, f"{room} imports from {other}, which stands above it"
        elif (
            other == room
            and (target[3:] in ([], ["native"]) or "cimport" in line)
            and Path(name).suffix in (".pyx", ".pxd")
            and name not in OWN_MODULES
        ):
            yield number, f"a part of {room} imports from its own room"


def check_memory(name: str, lines: list[str]) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(lines, 1):
        if found := THROWS.search(line):
            yield number, f"{found.group()!r} may throw"
        if found := NEW.search(line):
            yield number, f"{found.group()!r} takes memory past primitives/memory.pxd"
        if name in HEAP:
            continue
        if found := CALL_OF_HEAP.search(line) or CIMPORT_OF_HEAP.search(line):
            yield number, f"{found[1]} takes memory past primitives/memory.pxd"
        if re.search(r"\bmmap\s*\(", line) and name not in PLACES_OF_MMAP:
            yield number, "mmap takes memory past primitives/memory.pxd"


def check_gil(name: str, lines: list[str]) -> Iterator[tuple[int, str]]:
    """``with gil`` inside ``noexcept nogil``: Cython then takes the GIL at every exit."""
    room = name.partition("/")[0]
    function, depth, inside, open_header = "", 0, False, ""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        indent = len(line) - len(line.lstrip())
        if inside and indent <= depth and not line.lstrip().startswith(")"):
            inside = False
        if found := FUNCTION.match(line):
            function, depth, open_header = found[2], len(found[1]), line
        elif open_header:
            open_header += line
        if open_header and line.rstrip().endswith(":"):
            inside, open_header = bool(NOGIL_END.search(line)), ""
        elif (
            inside
            and re.match(r"\s*with gil\s*:", line)
            and not TAKE_THE_GIL.fullmatch(f"{room}/{function}")
        ):
            yield number, f"{function} takes the GIL although it is noexcept nogil"


def check_generated(room: str, text: str) -> Iterator[tuple[int, str]]:
    """What Cython made of the room: functions of ours that ask for the GIL."""
    function = ""
    seen = set()
    for number, line in enumerate(text.split("\n"), 1):
        if line.startswith("static") and line.endswith("{"):
            found = GENERATED.match(line)
            function = re.sub(r"^\d+", "", found[1]) if found else ""
        elif "__Pyx_PyGILState_Ensure()" in line and function and function not in seen:
            seen.add(function)
            if not TAKE_THE_GIL.fullmatch(f"{room}/{function}"):
                yield number, f"{function} takes the GIL in the generated code"


def check_source(name: str, text: str) -> list[str]:
    """What breaks a rule in the file ``name``, a ``room/file``: ``name:line: text`` of each."""
    lines = without_comments(Path(name), text)
    found = [*check_imports(name, lines), *check_memory(name, lines), *check_gil(name, lines)]
    return [f"{name}:{number}: {text}" for number, text in sorted(found)]


def main() -> int:
    problems = []
    above = [path for room in ABOVE for path in (PACKAGE / room).glob("*")]
    for path in sorted([*ENGINE.glob("*/*"), *above]):
        if path.suffix in (".py", ".pyx", ".pxd", ".h"):
            problems += check_source(f"{path.parent.name}/{path.name}", path.read_text())
    for room in (*ROOMS, *ABOVE):
        generated = (PACKAGE if room in ABOVE else ENGINE) / room / "native.cpp"
        if room == "_wire" and not generated.exists():
            continue  # not of every build
        if not generated.exists():
            problems.append(f"{room}/native.cpp: isn't there: build first")
            continue
        problems += [
            f"{room}/native.cpp:{number}: {text}"
            for number, text in check_generated(room, generated.read_text())
        ]
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
