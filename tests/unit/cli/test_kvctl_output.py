"""Each form of output: many results, one, and an output that takes no more."""

from __future__ import annotations

import contextlib
import json
import os
import sys

import click
import pytest

from kvstore.cli.interface.connection import Settings
from kvstore.cli.interface.output import OutputError, Results, tell, write_line
from kvstore.cli.kvctl import kvctl


def context(output: str) -> click.Context:
    return click.Context(kvctl, obj=Settings(output=output))


def printed(output: str, capfdbinary: pytest.CaptureFixture[bytes], *, live: bool = False) -> bytes:
    with Results(context(output), ("key", "value"), live=live) as results:
        results.add({"key": b"a", "n": 1}, ("a", "one\n"), b"\x00")
        results.add({"key": b"\xff", "n": 2}, ("\\xff", "two"), b"\xff")
    return capfdbinary.readouterr().out


def test_text_is_a_line_each(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert printed("text", capfdbinary) == b"a\tone\\n\n\\xff\ttwo\n"


def test_json_is_one_document(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    one, two = json.loads(printed("json", capfdbinary))
    assert one == {"key": "a", "n": 1, "encoding": "utf-8"}
    assert two == {"key": "ff", "n": 2, "encoding": "hex"}


def test_json_of_nothing_is_an_empty_list(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    with Results(context("json"), ("key",)):
        pass
    assert json.loads(capfdbinary.readouterr().out) == []


@pytest.mark.parametrize(("output", "live"), [("jsonl", False), ("jsonl", True), ("json", True)])
def test_a_document_a_line(
    output: str, live: bool, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    lines = printed(output, capfdbinary, live=live).splitlines()
    assert [json.loads(line)["n"] for line in lines] == [1, 2]


def test_a_table_has_a_heading(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert printed("table", capfdbinary) == b"key   value\na     one\\n\n\\xff  two\n"


def test_raw_is_the_bytes(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert printed("raw", capfdbinary) == b"\x00\n\xff\n"


def test_a_list_that_is_cut_short_has_no_end(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    with contextlib.suppress(KeyError), Results(context("json"), ("key",)) as results:
        results.add({"key": b"a"}, ("a",), b"a")
        raise KeyError
    sys.stdout.flush()
    assert not capfdbinary.readouterr().out.rstrip().endswith(b"]")


def test_a_result_is_lines_or_a_document(capsys: pytest.CaptureFixture[str]) -> None:
    tell(context("text"), {"n": 1}, "one\ttwo", "\x1b[31m")
    assert capsys.readouterr().out == "one\ttwo\n\\x1b[31m\n"
    tell(context("jsonl"), {"n": 1}, "one")
    assert json.loads(capsys.readouterr().out) == {"n": 1}


def test_an_output_that_is_full_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    stream = os.fdopen(full, "w", closefd=False)
    monkeypatch.setattr(sys, "stdout", stream)
    with pytest.raises(OutputError, match="No space left on device"):
        write_line("x")
    monkeypatch.undo()
    # So that what the stream still holds goes somewhere when it ends.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, full)
    stream.close()
    os.close(nowhere)
    os.close(full)


def test_no_output_at_all_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(OutputError, match="closed"):
        write_line("x")


def test_wide_rows_after_the_first_thousand_are_printed_as_they_come(
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    with Results(context("table"), ("key", "value")) as results:
        for n in range(1001):
            results.add({}, ("k" * (1 + n // 1000 * 30), "v"), b"")
    lines = capfdbinary.readouterr().out.splitlines()
    assert len(lines) == 1002
    assert lines[-1] == b"k" * 31 + b"  v"
