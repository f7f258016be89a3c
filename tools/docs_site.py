"""The site of docs/: hooks of mkdocs, and the check that a built one asks nobody else for anything.

python tools/docs_site.py build/site
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

_ROLE = re.compile(r":(?:class|meth|func|attr|mod|exc|data):\s*<code>~?(?:[\w.]*\.)?(\w+)</code>")


def on_page_content(html: str, **_: Any) -> str:
    """Docstrings name what they speak of by Sphinx's roles; Markdown knows none."""
    return _ROLE.sub(r"<code>\1</code>", html)


class _Resources(HTMLParser):
    """What a page loads by itself: links that a reader may follow aren't that."""

    def __init__(self) -> None:
        super().__init__()
        self.foreign: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        loaded = [given.get("src")] if tag != "link" else [given.get("href")]
        if tag == "link" and given.get("rel") in ("canonical", "next", "prev"):
            return
        self.foreign += [url for url in loaded if url and re.match(r"(https?:)?//", url)]


def foreign_resources(site: Path) -> list[str]:
    """Each resource of another server that a page of the site would load."""
    found = []
    for page in sorted(site.rglob("*.html")):
        parser = _Resources()
        parser.feed(page.read_text())
        found += [f"{page.relative_to(site)}: {url}" for url in parser.foreign]
    return found


def main() -> int:
    site = Path(sys.argv[1])
    found = foreign_resources(site)
    for line in found:
        print(line, file=sys.stderr)
    pages = len(list(site.rglob("*.html")))
    print(f"{pages} pages, {len(found)} resources of others")
    return 1 if found or not pages else 0


if __name__ == "__main__":
    raise SystemExit(main())
