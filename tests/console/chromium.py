"""A real Chromium, without a screen, that reaches this machine alone, and what it complains of."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, Route, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

ARGUMENTS = (
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    # A name that was asked for would be told to a resolver beyond this machine.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)

WIDE, NARROW = 1280, 360
HEIGHT = 800


class Look(NamedTuple):
    """How pages are looked at."""

    theme: str
    width: int


LOOKS = tuple(Look(theme, width) for theme in ("light", "dark") for width in (WIDE, NARROW))


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """One Chromium. Raises what Playwright does where there is none."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        try:
            yield chromium
        finally:
            chromium.close()


class Visitor:
    """A browser's context that remembers what a page must not do.

    ``beyond``: addresses beyond loopback that were asked for; ``errors``: of scripts, policies and
    the console, except that ``answers`` of those statuses are expected.
    """

    def __init__(self, chromium: Browser, look: Look) -> None:
        self.beyond: list[str] = []
        self.errors: list[str] = []
        self.context: BrowserContext = chromium.new_context(
            color_scheme="dark" if look.theme == "dark" else "light",
            viewport={"width": look.width, "height": HEIGHT},
            accept_downloads=True,
        )
        self.context.set_default_timeout(30_000)
        self.context.route("**/*", self._route)
        self.context.on("weberror", lambda error: self.errors.append(str(error.error)))
        self.context.on(
            "console",
            lambda said: self.errors.append(said.text) if said.type == "error" else None,
        )
        self.page: Page = self.context.new_page()

    def _route(self, route: Route) -> None:
        if urlsplit(route.request.url).hostname in ("127.0.0.1", "localhost"):
            route.continue_()
        else:
            self.beyond.append(route.request.url)
            route.abort()

    def problems(self, *, expected: Sequence[str] = ()) -> list[str]:
        """All that was wrong so far, forgotten then."""
        found = [f"asked for {url}" for url in self.beyond]
        found += [one for one in self.errors if not any(words in one for words in expected)]
        self.beyond.clear()
        self.errors.clear()
        return found

    def wear(self, look: Look) -> None:
        """Look at the page that is open so; it isn't loaded anew."""
        self.page.set_viewport_size({"width": look.width, "height": HEIGHT})
        self.page.emulate_media(color_scheme="dark" if look.theme == "dark" else "light")

    def violations(self) -> list[str]:
        """Accessibility rules, serious or critical, that are broken, and sideways scrolling."""
        found = []
        if self.page.evaluate("typeof axe") == "undefined":
            self.page.evaluate(Axe().axe_script)
        told = self.page.evaluate("axe.run({resultTypes: ['violations']})")
        for rule in told["violations"]:
            if rule["impact"] in ("serious", "critical"):
                where = [node["html"][:120] for node in rule["nodes"][:3]]
                found.append(f"{self.page.url}: {rule['id']}: {where}")
        wider = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
        if self.page.evaluate(wider):
            found.append(f"{self.page.url}: wider than the window")
        return found

    def close(self) -> None:
        self.context.close()
