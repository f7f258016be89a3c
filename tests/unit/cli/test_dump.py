"""Files of text that keys and values are exported to and imported from."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.cli.transfer.dump import DumpError, Pair, dumped, form_of, read_pairs

PAIRS = st.lists(st.tuples(st.binary(min_size=1, max_size=20), st.binary(max_size=50)), max_size=8)
TEXTS = st.lists(st.tuples(st.text(min_size=1, max_size=9), st.text(max_size=30)), max_size=8)


def back(form: str, data: bytes) -> list[Pair]:
    return [*read_pairs(form, io.BytesIO(data), "FILE")]


@pytest.mark.parametrize("form", ["jsonl", "csv"])
@given(pairs=PAIRS)
def test_any_bytes_come_back(form: str, pairs: list[tuple[bytes, bytes]]) -> None:
    wanted = [Pair(*pair) for pair in pairs]
    assert back(form, b"".join(dumped(form, wanted, 7))) == wanted


@pytest.mark.parametrize("form", ["jsonl", "csv"])
@given(texts=TEXTS)
def test_any_text_comes_back(form: str, texts: list[tuple[str, str]]) -> None:
    wanted = [Pair(key.encode(), value.encode()) for key, value in texts]
    assert back(form, b"".join(dumped(form, wanted, 7))) == wanted


def test_a_file_that_was_cut_short_is_refused_at_each_line() -> None:
    whole = b"".join(dumped("jsonl", [Pair(b"a", b"1"), Pair(b"b", b"2")], 7))
    lines = whole.splitlines(keepends=True)
    for count in range(1, len(lines)):
        with pytest.raises(DumpError, match="cut short"):
            back("jsonl", b"".join(lines[:count]))
    with pytest.raises(DumpError, match="keys came, of 2"):
        back("jsonl", lines[0] + lines[1] + lines[3])
    with pytest.raises(DumpError, match="more after the end"):
        back("jsonl", whole + lines[1])


@pytest.mark.parametrize(
    ("form", "data", "said"),
    [
        ("jsonl", b"{", "line 1: this is no JSON"),
        ("jsonl", b"\n[1]\n", "no JSON object"),
        ("jsonl", b'{"key": "a"}', "there is no value"),
        ("jsonl", b'{"key": 1, "value": "a"}', "there is no key"),
        ("jsonl", b'{"key": "", "value": "a"}', "at least one byte"),
        ("jsonl", b'{"key": "x", "value": "a", "encoding": "hex"}', "the key is not hex"),
        ("jsonl", b'{"key": "\\ud800", "value": "a"}', "the key is not utf-8"),
        ("jsonl", b'{"key": "a", "value": "a", "encoding": "rot13"}', "utf-8 or hex"),
        ("jsonl", b'{"kvstore_export": 2}', "an export of version 2"),
        ("jsonl", b"[" * 100_000, "no JSON"),
        ("jsonl", b"", "is empty"),
        ("jsonl", b"\n\n", "is empty"),
        ("csv", b"", "the first row names"),
        ("csv", b"a,b\r\n", "the first row names"),
        ("csv", b"key,value,encoding\r\na,b\r\n", "line 2: a row has 3 columns, and not 2"),
        ("csv", b"key,value,encoding\r\nx,b,hex\r\n", "line 2: the key is not hex"),
        ("csv", b"key,value,encoding\r\n\xff,b,utf-8\r\n", "no CSV in UTF-8"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_place(
    form: str, data: bytes, said: str
) -> None:
    with pytest.raises(DumpError, match=said):
        back(form, data)


def test_a_line_without_an_end_takes_no_more_memory_than_allowed() -> None:
    with pytest.raises(DumpError, match="more than 16 MiB"):
        back("jsonl", b'{"key": "' + b"a" * (17 << 20))


def test_what_list_prints_is_read_as_well() -> None:
    line = b'{"key": "a", "value": "b", "mod_revision": 2, "lease": null, "encoding": "utf-8"}\n'
    assert back("jsonl", line) == [Pair(b"a", b"b")]


def test_the_name_of_a_file_says_its_format() -> None:
    assert form_of(None, Path("x.csv")) == "csv"
    assert form_of("jsonl", Path("x.csv")) == "jsonl"
    assert form_of(None, None) == "jsonl"
