"""Keys as pages show and change them: the tree, viewers, compared changes, and what is hostile."""

from __future__ import annotations

import asyncio
import base64
import html
import json
import re
from pathlib import Path

import pytest

from kvstore.client import AsyncClient
from kvstore.console.formats import (
    VIEWS,
    decode,
    duration,
    editable,
    encode,
    from_link,
    in_link,
    label,
    size,
    view_of,
)
from kvstore.console.pages import bulk
from kvstore.console.tree import PAGE, Folder, Level, level
from kvstore.errors import ConflictError, InvalidArgumentError
from tests.console.process import Browser, Console
from tests.integration.process import Kvd

EVERY_BYTE = bytes(range(256))
HOSTILE = [
    b"x/<script>alert(1)</script>",
    b'x/"><img src=x onerror=alert(1)>',
    b"x/{{ 7 * 7 }}",
    b"x/\xff\x00\xfe",
    "x/\u202egnp.exe".encode(),
    b"x/javascript:alert(1)",
    b"x/a\r\nSet-Cookie: a=b",
    b"x/" + b"long" * 255,
]


def _link(key: bytes) -> str:
    return f"/key?k={in_link(key)}"


# Bytes and words


@pytest.mark.parametrize("key", [b"", b"a", EVERY_BYTE, b"\xff", b"ab", b"abc"])
def test_a_link_holds_any_key(key: bytes) -> None:
    assert from_link(in_link(key)) == key
    assert re.fullmatch(r"[A-Za-z0-9_-]*", in_link(key))


@pytest.mark.parametrize("text", ["a", "é", "a b", "====", "YQ=!", "\0"])
def test_a_link_without_a_key_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError):
        from_link(text)


@pytest.mark.parametrize("encoding", ["text", "hex", "base64"])
def test_what_a_form_holds_comes_back(encoding: str) -> None:
    value = b"caf\xc3\xa9\n" if encoding == "text" else EVERY_BYTE
    assert decode(encode(value, encoding), encoding) == value


@pytest.mark.parametrize(("text", "encoding"), [("zz", "hex"), ("?", "base64"), ("a", "rot13")])
def test_what_isnt_in_an_encoding_is_refused(text: str, encoding: str) -> None:
    with pytest.raises(InvalidArgumentError):
        decode(text, encoding)


@pytest.mark.parametrize(
    ("value", "encoding"),
    [
        (b"a\nb", "text"),
        (b"", "text"),
        (b"a\r\nb", "base64"),
        (b"\0", "base64"),
        (b"\xff", "base64"),
    ],
)
def test_a_form_changes_no_byte_of_what_it_holds(value: bytes, encoding: str) -> None:
    assert editable(value) == encoding


def test_labels_are_one_line_that_cant_turn_around() -> None:
    assert label("a\u202eb\n".encode()) == "a\\u202eb\\n"
    assert label(b"\xff") == "\\xff"


@pytest.mark.parametrize("kind", [*VIEWS, None, "nonsense"])
@pytest.mark.parametrize(
    "value", [b"", b"text", b'{"a": [1, "\\u202e"]}', EVERY_BYTE * 4096, b"[" * 100_000]
)
def test_every_view_of_every_value_is_bounded(value: bytes, kind: str | None) -> None:
    view = view_of(value, kind)
    assert view.kind in VIEWS
    assert view.shown <= len(value)
    assert len(view.text) < 2 << 20
    assert "\u202e" not in view.text
    assert "\0" not in view.text


def test_views() -> None:
    assert view_of(b'{"b":1,"a":"\xc3\xa9"}', "json").text == '{\n  "b": 1,\n  "a": "é"\n}'
    assert view_of(b"{", "json").note == "this is not JSON"
    assert view_of(b"hi\x00", "hex").text == (
        "00000000  68 69 00                                         hi."
    )
    assert view_of(b"\x00\xff", None).kind == "hex"
    assert view_of(b"words", None).kind == "text"


def test_sizes_and_times() -> None:
    assert [size(0), size(1023), size(1 << 20), size(3 << 50)] == [
        "0 B",
        "1023 B",
        "1.0 MiB",
        "3072.0 TiB",
    ]
    assert [duration(0.0123), duration(75)] == ["12.3 ms", "0:01:15"]


# The tree


def _level(kvd: Kvd, prefix: bytes, delimiter: bytes = b"/", start: bytes = b"") -> Level:
    async def read() -> Level:
        async with AsyncClient(kvd.address) as client:
            return await level(client, prefix, delimiter, start=start)

    return asyncio.run(read())


def _all(kvd: Kvd, prefix: bytes, delimiter: bytes) -> list[bytes]:
    found: list[bytes] = []
    start = b""
    while True:
        page = _level(kvd, prefix, delimiter, start)
        found += [one.prefix if isinstance(one, Folder) else one.key for one in page.entries]
        assert len(page.entries) <= PAGE
        if page.next is None:
            return found
        start = page.next


def test_a_level_has_its_folders_and_keys_once_each(kvd: Kvd) -> None:
    keys = [b"t/%03d/%d" % (folder, key) for folder in range(230) for key in range(3)]
    keys += [b"t/%03d" % plain for plain in range(300)]
    keys += [b"t/\xff\xff/1", b"t/\xff\xff/2", b"t/"]
    with kvd.client(timeout=60) as client:
        client.put_many((key, b"") for key in keys)
    expected = {b"t/%03d/" % folder for folder in range(230)} | {b"t/\xff\xff/", b"t/"}
    expected |= {b"t/%03d" % plain for plain in range(300)}
    assert _all(kvd, b"t/", b"/") == sorted(expected)
    assert _all(kvd, b"t/", b"") == sorted(keys)
    assert _all(kvd, b"t/001", b"/") == [b"t/001", b"t/001/"]
    assert _all(kvd, b"t/none", b"/") == []


def test_a_folder_with_more_keys_than_a_page_is_passed_over_at_once(kvd: Kvd) -> None:
    with kvd.client(timeout=60) as client:
        client.put_many((b"m/big/%06d" % number, b"") for number in range(5_000))
        client.put(b"m/next", b"")
    page = _level(kvd, b"m/")
    assert page.entries[0] == Folder(b"m/big/")
    assert page.next is None
    assert len(page.entries) == 2


def test_pages_of_keys(kvd: Kvd, browser: Browser) -> None:
    with kvd.client(timeout=60) as client:
        client.put_many((b"p/%04d" % number, b"") for number in range(450))
    seen, path, pages = 0, f"/keys?p={in_link(b'p/')}", 0
    while path:
        answer = browser.get(path)
        seen += answer.text.count("/key?k=")
        pages += 1
        more = re.search(r'href="([^"]*after=[^"]*)"', answer.text)
        path = html.unescape(more[1]) if more else ""
    assert (seen, pages) == (450, 3)
    assert browser.get(f"/keys/count?p={in_link(b'p/')}").text == "450"


def test_a_hundred_thousand_keys_under_one_prefix(kvd: Kvd, browser: Browser) -> None:
    with kvd.client(timeout=120) as client:
        client.put_many((b"huge/%06d" % number, b"") for number in range(100_000))
    assert "huge/" in browser.get("/keys").words
    middle = browser.get(f"/keys?p={in_link(b'huge/')}&after={in_link(b'huge/050000')}")
    assert middle.text.count("/key?k=") == PAGE
    assert "050199" in middle.words
    assert browser.get(f"/keys/count?p={in_link(b'huge/')}").text == "100,000"
    assert "100,000" in browser.get(f"/keys/delete?p={in_link(b'huge/')}").words


def test_typed_keys_are_found(browser: Browser) -> None:
    answer = browser.get("/keys/find?text=70&encoding=hex&what=key")
    assert answer.headers["location"] == _link(b"p")
    answer = browser.get("/keys/find?text=a%26b/&encoding=text&what=prefix&delimiter=:")
    assert answer.headers["location"] == f"/keys?p={in_link(b'a&b/')}&d={in_link(b':')}"
    assert browser.get("/keys/find?text=7&encoding=hex").status == 400


# Hostile keys and values


@pytest.mark.parametrize("key", HOSTILE)
def test_hostile_keys_and_values_are_only_shown(kvd: Kvd, browser: Browser, key: bytes) -> None:
    with kvd.client() as client:
        client.put(key, key)
    pages = [f"/keys?p={in_link(b'x/')}", _link(key), f"{_link(key)}&as=json"]
    pages += [
        f"/key/edit?k={in_link(key)}",
        f"/keys/delete?p={in_link(key)}",
        f"/keys?p={in_link(key)}",
    ]
    for path in pages:
        answer = browser.get(path)
        assert answer.status == 200, path
        assert answer.text.count("<script") == 1
        assert "<img" not in answer.text
        assert "49" not in answer.words.partition("{{")[0].split() or key != HOSTILE[2]
        assert "\u202e" not in answer.text or path.startswith("/key/edit")


def test_a_value_is_downloaded_byte_for_byte_and_never_run(kvd: Kvd, browser: Browser) -> None:
    with kvd.client() as client:
        client.put(b"d", b"<script>alert(1)</script>" + EVERY_BYTE)
    answer = browser.get(f"/key/value?k={in_link(b'd')}")
    assert answer.body == b"<script>alert(1)</script>" + EVERY_BYTE
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment")


def test_a_value_of_a_megabyte(kvd: Kvd, browser: Browser) -> None:
    value = b"<&\xc3\xa9\n" * (1 << 18)
    value = value[: 1 << 20]
    with kvd.client() as client:
        client.put(b"mib", value)
    answer = browser.get(_link(b"mib"))
    assert len(answer.body) < 1 << 20
    assert "a download has all of it" in answer.words
    assert browser.get(f"/key/value?k={in_link(b'mib')}").body == value
    form = browser.get(f"/key/edit?k={in_link(b'mib')}")
    assert form.status == 200
    with kvd.client() as client:
        entry = client.get_entry(b"mib")
        assert entry is not None
    other = "é%" * (1 << 18) + "é" * (1 << 17)
    stored = {"k": in_link(b"mib"), "seen": str(entry.mod_revision), "encoding": "text"}
    assert browser.post("/key/put", {**stored, "value": other}).status == 303
    assert browser.get(f"/key/value?k={in_link(b'mib')}").body == other.encode()
    larger = browser.post("/key/put", {**stored, "value": other + "é" * (1 << 17)})
    assert larger.status == 400
    assert "1048576" in larger.words


# Changes


def test_a_key_is_made_changed_and_deleted(kvd: Kvd, browser: Browser) -> None:
    new = {"key": "c/é", "key_encoding": "text", "value": "one\r\ntwo", "encoding": "text"}
    made = browser.post("/key/put", new)
    key = "c/é".encode()
    assert (made.status, made.headers["location"]) == (303, _link(key))
    page = browser.get(f"/key/edit?k={in_link(key)}")
    assert "one\ntwo</textarea>" in page.text
    seen = re.search(r'name="seen" value="(\d+)"', page.text)
    assert seen is not None
    changed = {"k": in_link(key), "seen": seen[1], "value": "three", "encoding": "text"}
    assert browser.post("/key/put", changed).status == 303
    with kvd.client() as client:
        entry = client.get_entry(key)
        assert entry is not None
        assert entry.value == b"three"
        gone = browser.post("/key/delete", {"k": in_link(key), "seen": str(entry.mod_revision)})
        assert gone.status == 303
        assert client.get(key) is None


def test_who_comes_second_is_told_and_changes_nothing(kvd: Kvd, browser: Browser) -> None:
    with kvd.client() as client:
        client.put(b"race", b"theirs")
        entry = client.get_entry(b"race")
        assert entry is not None
        old = {"k": in_link(b"race"), "seen": str(entry.mod_revision - 1), "encoding": "text"}
        answer = browser.post("/key/put", {**old, "value": "mine"})
        assert answer.status == 409
        assert "theirs" in answer.words
        assert "mine</textarea>" in answer.text
        assert browser.post("/key/delete", old).status == 409
        new = {"key": "race", "key_encoding": "text", "value": "mine", "encoding": "text"}
        assert "is there already" in browser.post("/key/put", new).words
        assert client.get(b"race") == b"theirs"
        client.delete(b"race")
        gone = browser.post("/key/put", {**old, "value": "mine"})
        assert "was deleted meanwhile" in gone.words
        assert client.get(b"race") is None


def test_an_edited_key_keeps_its_lease(kvd: Kvd, browser: Browser) -> None:
    with kvd.client() as client, client.lease(600) as lease:
        client.put(b"leased", b"1", lease=lease)
        page = browser.get(_link(b"leased"))
        assert "left of 0:10:00" in page.words
        form = browser.get(f"/key/edit?k={in_link(b'leased')}").text
        hidden = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', form))
        assert browser.post("/key/put", {**hidden, "value": "2"}).status == 303
        entry = client.get_entry(b"leased")
        assert entry is not None
        assert (entry.value, entry.lease) == (b"2", lease.id)


def test_a_binary_value_is_edited_as_base64(kvd: Kvd, browser: Browser) -> None:
    with kvd.client() as client:
        client.put(b"binary", EVERY_BYTE)
        form = browser.get(f"/key/edit?k={in_link(b'binary')}").text
        assert base64.b64encode(EVERY_BYTE).decode() in html.unescape(form)
        hidden = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', form))
        value = base64.b64encode(EVERY_BYTE[::-1]).decode()
        assert browser.post("/key/put", {**hidden, "value": value}).status == 303
        assert client.get(b"binary") == EVERY_BYTE[::-1]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"k": "YQ"},
        {"k": "YQ", "seen": "-1", "encoding": "text", "value": ""},
        {"k": "YQ", "seen": "9" * 30, "encoding": "text", "value": ""},
        {"k": "YQ", "seen": "0", "encoding": "nonsense", "value": ""},
        {"k": "", "seen": "0", "encoding": "text", "value": ""},
        {"key": "", "key_encoding": "text", "encoding": "text", "value": ""},
    ],
)
def test_a_bad_form_changes_nothing_and_says_why(browser: Browser, fields: dict[str, str]) -> None:
    answer = browser.post("/key/put", fields)
    assert answer.status == 400, answer.words
    assert "didn't work" in answer.words


def test_a_key_that_isnt_there(browser: Browser) -> None:
    answer = browser.get(_link(b"<b>none</b>"))
    assert answer.status == 404
    assert "there is no key <b>none</b>" in answer.words


@pytest.mark.parametrize(
    "path",
    ["/key?k=!", "/key", "/keys?p=a", "/keys?r=x", "/key?k=YQ&r=-1", "/keys?d=" + "YWFh" * 9],
)
def test_bad_links_are_refused(browser: Browser, path: str) -> None:
    assert browser.get(path).status == 400


def test_a_console_that_only_reads_changes_nothing(kvd: Kvd, logs: Path) -> None:
    with Console(logs, f"--addr={kvd.address}") as console:
        browser = Browser(console)
        browser.get("/")
        new = {"key": "ro", "key_encoding": "text", "value": "", "encoding": "text"}
        assert browser.post("/key/put", new).status == 403
        assert browser.post("/key/delete", {"k": in_link(b"d"), "seen": "0"}).status == 403
        assert browser.post("/keys/delete", {"k": in_link(b"d")}).status == 403
        assert browser.get("/key/edit?p=").status == 403
        assert browser.get("/keys/delete?p=").status == 403
        assert "New key" not in browser.get("/keys").words
        with kvd.client() as client:
            assert client.get(b"ro") is None


# Many at once


def test_a_prefix_is_deleted_after_it_was_counted(
    kvd: Kvd, console: Console, browser: Browser
) -> None:
    with kvd.client(timeout=60) as client:
        client.put_many((b"bulk/%05d" % number, b"") for number in range(1_700))
        client.put(b"bulk0", b"stays")
        page = browser.get(f"/keys/delete?p={in_link(b'bulk/')}")
        assert "1,700" in page.words
        hidden = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page.text))
        assert browser.post("/keys/delete", {**hidden, "typed": "1699"}).status == 400
        assert client.count(prefix=b"bulk/") == 1_700
        client.put(b"bulk/01650", b"written since")
        partly = browser.post("/keys/delete", {**hidden, "typed": "1700"})
        assert partly.status == 409
        assert "1,000 keys were deleted" in partly.words
        assert client.get(b"bulk/01650") == b"written since"
        hidden = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', partly.text))
        assert browser.post("/keys/delete", {**hidden, "typed": "700"}).status == 200
        assert client.count(prefix=b"bulk/") == 0
        assert client.get(b"bulk0") == b"stays"
    lines = [json.loads(line) for line in console.stderr.splitlines()]
    bulks = [line for line in lines if line["did"] == "delete prefix"]
    assert [(line["outcome"], line["deleted"]) for line in bulks] == [
        ("partly", 1000),
        ("done", 700),
    ]


def test_deleting_takes_no_longer_than_it_may(kvd: Kvd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "DELETING_S", 0.0)

    async def delete() -> tuple[int, Exception | None]:
        async with AsyncClient(kvd.address) as client:
            await client.put_many((b"slow/%04d" % number, b"") for number in range(1_200))
            found = client.range(prefix=b"slow/", limit=1)
            await found.list()
            return await bulk.delete_counted(client, b"slow/", found.revision)

    deleted, trouble = asyncio.run(delete())
    assert deleted == bulk.CHUNK
    assert isinstance(trouble, ConflictError)
