"""The lint of the engine's sources: that it sees what it forbids, and that the engine is clean."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).parents[3] / "tools/check_engine_sources.py"


@pytest.fixture(scope="module")
def lint() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_engine_sources", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BAD = {
    "a room above": ("log/a.pyx", "from kvstore._engine.table.native cimport Table\n"),
    "a room above, in a pxd": (
        "files/a.pxd",
        "from kvstore._engine.log.native cimport (\n    Log)\n",
    ),
    "a room above, in Python": ("table/a.py", "from kvstore._engine.database import background\n"),
    "a room above, by package": ("table/a.py", "from kvstore._engine import database\n"),
    "no room at all": ("table/a.py", "import kvstore._engine.cellar\n"),
    "its own room": ("log/a.pyx", "from kvstore._engine.log.native cimport Log\n"),
    "except +": ("table/a.pxd", "cdef extern from *:\n    void f() except +\n"),
    "libcpp": ("table/a.pyx", "from libcpp.vector cimport vector\n"),
    "a container in C++": ("table/a.h", "#include <vector>\n"),
    "a container in C++, used": ("table/a.h", "static std::deque<int> line;\n"),
    "new in C++": ("table/a.h", "static int* f() { return new int(1); }\n"),
    "placement new": ("table/a.h", "static T* f(void* m) { return new (m) T(); }\n"),
    "new in Cython": ("table/a.pyx", "cdef f():\n    a = new Table()\n"),
    "malloc in the state": ("_state/a.pyx", "cdef f():\n    return malloc(3)\n"),
    "malloc": ("table/a.pyx", "cdef f():\n    return malloc(3)\n"),
    "malloc, imported": ("table/a.pyx", "from libc.stdlib cimport malloc, qsort\n"),
    "free in C in Cython": (
        "table/a.pyx",
        'cdef extern from *:\n    """\n    static void f(void* a) { free(a); }\n    """\n',
    ),
    "mmap": ("table/a.pyx", "cdef f():\n    return mmap(NULL, 1)\n"),
    "with gil": ("table/a.pyx", "cdef int f() noexcept nogil:\n    with gil:\n        pass\n"),
    "with gil, long header": (
        "table/a.pyx",
        "cdef int f(\n    int a\n) noexcept nogil:\n    if a:\n        with gil:\n            pass",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_forbidden_is_seen(lint: ModuleType, case: str) -> None:
    assert len(lint.check_source(*BAD[case])) == 1


GOOD = {
    "a room below": ("log/a.pyx", "from kvstore._engine.files.native cimport FileSystem\n"),
    "another package": ("log/a.pyx", "from kvstore.errors import Error\n"),
    "the seam itself": ("primitives/memory.pxd", "from libc.stdlib cimport malloc\n"),
    "a method called free": ("table/a.pyx", "cdef f(Cursor* c):\n    c.free(c)\n    kv_free(c)\n"),
    "words in comments": (
        "table/a.h",
        "// malloc(3) and new int(1)\n/* std::vector\n except + */\n",
    ),
    "words in a docstring": ("table/a.pyx", '"""Like std::vector, malloc() and `except +`."""\n'),
    "with gil where it may be": (
        "table/a.pyx",
        "cdef int f() except -1 nogil:\n    with gil:\n        raise E\n\n"
        "cdef int g() noexcept nogil:\n    return 0\n\ncdef int h() noexcept with gil:\n    pass\n",
    ),
    "with gil in the list": (
        "table/a.pyx",
        "cdef int compress_with_gil() noexcept nogil:\n    with gil:\n        pass\n",
    ),
}


@pytest.mark.parametrize("case", GOOD)
def test_what_is_allowed_passes(lint: ModuleType, case: str) -> None:
    assert lint.check_source(*GOOD[case]) == []


def test_a_call_of_the_gil_in_generated_code_is_seen_once(lint: ModuleType) -> None:
    name = "static int __pyx_f_7kvstore_7_engine_5table_6native_{}(void) {{\n"
    ask = "  gil = __Pyx_PyGILState_Ensure();\n"
    taking = name.format("table_get") + ask + ask + "}\n"
    method = name.format("5Table_get") + ask + "}\n"
    allowed = name.format("compress_with_gil") + ask + "}\n"
    python = "static PyObject *__pyx_pw_7kvstore_f(void) {\n" + ask + "}\n"
    assert len(list(lint.check_generated("table", taking + allowed + python))) == 1
    assert "Table_get" in next(lint.check_generated("table", method))[1]


def test_the_engine_keeps_its_rules(lint: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    if not (lint.ENGINE / "table/native.cpp").exists():
        pytest.skip("the generated C++ isn't there; this is an installed package")
    assert (lint.main(), capsys.readouterr().out) == (0, "")
