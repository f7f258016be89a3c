"""The site of docs/: what its pages quote is what kvstore says, and they load nothing of others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools.docs_site import foreign_resources, on_page_content

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| (`[^|]+`[^|]*) \|", re.MULTILINE)


def said() -> str:
    """All sources, with the strings that go on in the next line as one."""
    text = "".join(
        path.read_text() for kind in ("py", "pyx") for path in (ROOT / "src").rglob(f"*.{kind}")
    )
    return re.sub(r'"\s*\n\s*f?"', "", text)


def quoted() -> list[str]:
    """What the tables of messages have in their first column."""
    rows = ROW.findall((ROOT / "docs" / "troubleshooting.md").read_text())
    return [message for row in rows for message in re.findall(r"`([^`]+)`", row)]


def test_each_message_of_troubleshooting_is_one_that_kvstore_has() -> None:
    sources = said()
    messages = quoted()
    assert len(messages) > 15
    for message in messages:
        for part in re.split(r"…|: ", message):
            assert part.strip() in sources or part.strip() == "No space left on device", message


def test_roles_of_sphinx_become_code() -> None:
    assert on_page_content("a :class:<code>~kvstore.DB</code> b") == "a <code>DB</code> b"
    assert on_page_content("<code>:class</code>") == "<code>:class</code>"


@pytest.mark.parametrize(
    ("markup", "foreign"),
    [
        ('<script src="https://cdn.example/x.js"></script>', ["https://cdn.example/x.js"]),
        ('<link rel="stylesheet" href="//cdn.example/x.css">', ["//cdn.example/x.css"]),
        ('<img src="http://a.example/b.png">', ["http://a.example/b.png"]),
        ('<a href="https://a.example/">there</a><img src="img/b.png">', []),
        ('<link rel="canonical" href="https://a.example/">', []),
    ],
)
def test_what_a_page_loads_from_others_is_seen(
    tmp_path: Path, markup: str, foreign: list[str]
) -> None:
    (tmp_path / "page.html").write_text(f"<html><body>{markup}</body></html>")
    assert foreign_resources(tmp_path) == [f"page.html: {url}" for url in foreign]
