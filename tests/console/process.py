"""A real ``kvctl console``, and a browser without a screen or scripts, for tests."""

from __future__ import annotations

import html
import http.client
import json
import re
import selectors
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self
from urllib.parse import urlencode, urlsplit

from tests.integration.process import START_TIMEOUT_S, STOP_TIMEOUT_S, command, environment

LINK = re.compile(r"kvctl console: (?P<link>\S+)\n")
TOKEN = re.compile(r'name="csrf" value="([^"]+)"')


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Return once it holds; raises AssertionError if it never does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.05)


class Console:
    """One run of ``kvctl console``. Use as a context manager: it is gone at the end."""

    def __init__(self, directory: Path, *arguments: str, listen: str = "127.0.0.1:0") -> None:
        self._stderr_path = directory / f"console.{time.monotonic_ns()}.stderr"
        with open(self._stderr_path, "wb") as stderr:
            self.process = subprocess.Popen(
                [*command("kvctl"), "console", f"--listen={listen}", *arguments],
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=environment(),
            )
        try:
            self.link = self._read_link()
        except BaseException:
            self._end()
            raise
        parts = urlsplit(self.link)
        self.scheme = parts.scheme
        self.port = parts.port
        self.url = f"{parts.scheme}://{parts.netloc}"

    @property
    def stderr(self) -> str:
        return self._stderr_path.read_text("utf-8", "replace")

    @property
    def key(self) -> str:
        """What the link proves whoever started the console by; empty without one."""
        return self.link.partition("?key=")[2]

    def _read_link(self) -> str:
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            if not selector.select(START_TIMEOUT_S):
                raise AssertionError(f"the console said nothing\n{self.stderr}")
        line = self.process.stdout.readline().decode()
        match = LINK.fullmatch(line)
        if match is None:
            raise AssertionError(f"the console said {line!r}\n{self.stderr}")
        return match["link"]

    def _end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(STOP_TIMEOUT_S)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def words(self) -> str:
        """What a page says, without its tags."""
        return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", self.text)).split())

    @property
    def token(self) -> str:
        match = TOKEN.search(self.text)
        assert match is not None, self.text
        return match[1]


class Browser:
    """Keeps cookies, and takes the token of a form from the page that was loaded last."""

    def __init__(self, console: Console, *, context: ssl.SSLContext | None = None) -> None:
        self._console = console
        self._context = context
        self.cookies: dict[str, str] = {}
        self.token = ""

    def get(self, path: str, **headers: str) -> Answer:
        answer = self.send("GET", path, None, headers)
        if match := TOKEN.search(answer.body.decode("utf-8", "replace")):
            self.token = match[1]
        return answer

    def post(self, path: str, fields: dict[str, str] | None = None, **headers: str) -> Answer:
        """A form with the session's token, unless the fields have another."""
        body = urlencode({"csrf": self.token, **(fields or {})}).encode()
        headers = {"content-type": "application/x-www-form-urlencoded", **headers}
        return self.send("POST", path, body, headers)

    def log_in(self, **fields: str) -> Answer:
        answer = self.post("/login", fields)
        self.get("/")
        return answer

    def send(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        connection: http.client.HTTPConnection
        port = self._console.port
        if self._context is None:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        else:
            connection = http.client.HTTPSConnection(
                "127.0.0.1", port, timeout=60, context=self._context
            )
        try:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            if self.cookies:
                sent["cookie"] = "; ".join(f"{name}={it}" for name, it in self.cookies.items())
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            for cookie in response.headers.get_all("set-cookie") or ():
                name, _, value = cookie.partition(";")[0].partition("=")
                self.cookies[name] = value
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()


class Events:
    """A stream of server-sent events, read line by line."""

    def __init__(
        self,
        console: Console,
        path: str,
        cookies: Mapping[str, str] | None = None,
        *,
        receive_bytes: int | None = None,
    ) -> None:
        """``receive_bytes``: of the socket's buffer, for one that doesn't read to be felt soon."""
        self._connection = http.client.HTTPConnection("127.0.0.1", console.port, timeout=30)
        if receive_bytes is not None:
            self._connection.sock = one = socket.socket()
            one.settimeout(30)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
            one.connect(("127.0.0.1", console.port))
        cookie = "; ".join(f"{name}={it}" for name, it in (cookies or {}).items())
        self._connection.request("GET", path, headers={"cookie": cookie})
        self._response = self._connection.getresponse()
        assert self._response.headers["content-type"].startswith("text/event-stream")

    def __iter__(self) -> Iterator[tuple[str, object]]:
        name = ""
        while line := self._response.readline().decode():
            if line.startswith("event: "):
                name = line[7:].strip()
            elif line.startswith("data: "):
                yield name, json.loads(line[6:])

    def close(self) -> None:
        self._response.close()
        self._connection.close()
