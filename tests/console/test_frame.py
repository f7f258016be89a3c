"""What stands before every page: hosts, forms, sessions, logins, bounds, and where it listens."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import select
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from kvstore.console import failures, guard, requests
from kvstore.console.app import application, console_of_options
from kvstore.console.guard import Guard, host_name
from kvstore.console.options import Options
from kvstore.console.requests import FORM_BYTES_MAX, VALUE_FORM_BYTES_MAX, VALUE_FORMS_MAX
from kvstore.console.sessions import IDLE_S, LIFE_S, SESSIONS_MAX, SESSIONS_OF_USER_MAX, Sessions
from kvstore.errors import (
    ConfigurationError,
    OverloadedError,
    UnauthenticatedError,
    UnavailableError,
)
from tests.console.process import Browser, Console, wait_for
from tests.integration.process import Certificates, Kvd, run
from tests.integration.users import ANN, PASSWORD, ROOT

# As good as any address that nobody listens on.
NOWHERE = "127.0.0.1:1"


def test_pages_may_run_and_load_only_what_is_served_here(browser: Browser) -> None:
    answer = browser.get("/")
    policy = answer.headers["content-security-policy"]
    assert answer.status == 200
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert "server" not in answer.headers


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8520", "", "a b", "[::"])
def test_another_name_for_this_machine_is_refused(browser: Browser, host: str) -> None:
    assert browser.get("/", host=host).status == 421


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "[::1]:8520", "127.0.0.1"])
def test_names_of_this_machine_are_taken(browser: Browser, host: str) -> None:
    assert browser.get("/", host=host).status == 200


def test_the_name_in_a_host_header() -> None:
    assert host_name("[::1]:80") == "::1"
    assert host_name("Example.com") == "example.com"


def _forms() -> list[str]:
    console = console_of_options(Options(NOWHERE))
    routes = application(console).app.routes
    return [one.path for one in routes if isinstance(one, Route) and "POST" in (one.methods or ())]


def test_no_form_works_without_the_token_of_its_session(browser: Browser) -> None:
    forms = [path for path in _forms() if path != "/login"]
    assert len(forms) > 3
    for path in forms:
        assert browser.post(path, {"csrf": "0" * 64}).status == 403, path
        assert browser.post(path, {"csrf": ""}).status == 403, path


def test_the_token_of_another_session_is_refused(console: Console, browser: Browser) -> None:
    other = Browser(console)
    other.get("/")
    assert other.token != browser.token
    assert browser.post("/theme", {"csrf": other.token, "theme": "dark"}).status == 403


@pytest.mark.parametrize(
    "headers",
    [{"origin": "http://evil.example"}, {"origin": "null"}, {"sec_fetch_site": "cross-site"}],
)
def test_forms_of_other_sites_are_refused(browser: Browser, headers: dict[str, str]) -> None:
    assert browser.post("/theme", {"theme": "dark"}, **headers).status == 403
    assert browser.post("/login", {"user": "x", "password": "y"}, **headers).status == 403


def test_colours_are_remembered(browser: Browser) -> None:
    assert "data-theme" not in browser.get("/").text
    assert browser.post("/theme", {"theme": "dark"}).status == 303
    assert 'data-theme="dark"' in browser.get("/").text
    assert browser.post("/theme", {"theme": "<script>"}).status == 303
    assert "data-theme" not in browser.get("/").text


@pytest.mark.parametrize("method", ["PUT", "DELETE", "TRACE", "OPTIONS", "PATCH"])
def test_other_methods_are_refused(browser: Browser, method: str) -> None:
    assert browser.send(method, "/", None, {}).status == 405


def test_a_form_that_is_too_large_is_refused(browser: Browser) -> None:
    for path in ("/theme", "/login", "/key/delete"):
        answer = browser.post(path, {"theme": "x" * FORM_BYTES_MAX})
        assert answer.status == 400, path
        assert "64 KiB" in answer.words
    answer = browser.post("/key/put", {"value": "x" * VALUE_FORM_BYTES_MAX})
    assert answer.status == 400
    assert "4096 KiB" in answer.words


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"a=%ff&csrf=x", "application/x-www-form-urlencoded"),
        (b"a=b", "text/plain"),
        (b"&".join(b"f%d=1" % n for n in range(99)), "application/x-www-form-urlencoded"),
        (b"\xff\xfe", "application/x-www-form-urlencoded"),
    ],
)
def test_a_body_that_is_no_form_is_refused(browser: Browser, body: bytes, kind: str) -> None:
    answer = browser.send("POST", "/theme", body, {"content-type": kind})
    assert answer.status == 400, answer.words


def test_what_isnt_there_is_a_page_of_ours(browser: Browser) -> None:
    answer = browser.get("/nothing/<script>")
    assert answer.status == 404
    assert "<script>" not in answer.text.replace('<script src="/static/console.js" defer>', "")


def test_files_outside_of_the_static_ones_are_not_served(browser: Browser) -> None:
    for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static//etc/passwd"):
        assert browser.get(path).status == 404


def test_what_doesnt_come_keeps_nobody_waiting_and_is_given_up(
    console: Console, browser: Browser
) -> None:
    head = (
        b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
        b"Content-Type: application/x-www-form-urlencoded\r\n\r\nx"
    )
    with contextlib.ExitStack() as stack:

        def connection(said: bytes) -> socket.socket:
            one = socket.create_connection(("127.0.0.1", console.port), timeout=60)
            stack.enter_context(one).sendall(said)
            return one

        silent = connection(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        slow = [connection(head) for _ in range(2 * VALUE_FORMS_MAX)]
        assert browser.post("/theme", {"theme": "dark"}).status == 303
        # They were on their way yet.
        assert select.select(slow, [], [], 0)[0] == []
        assert slow[0].recv(100).startswith(b"HTTP/1.1 408")
        assert silent.recv(1) == b""


async def _stuck_form() -> Message:
    return await asyncio.get_running_loop().create_future()


def test_only_so_many_values_are_on_their_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "PLACE_S", 0.01)
    headers = [(b"host", b"localhost"), (b"content-type", b"application/x-www-form-urlencoded")]
    scope = {"type": "http", "method": "POST", "path": "/key/put", "headers": headers}
    scope |= {"query_string": b"", "scheme": "http", "server": ("localhost", 80)}

    async def check() -> None:
        console = console_of_options(Options(NOWHERE, write=True))
        guard = application(console)
        statuses: asyncio.Queue[int] = asyncio.Queue()

        async def take(message: Message) -> None:
            if message["type"] == "http.response.start":
                statuses.put_nowait(message["status"])

        async with asyncio.TaskGroup() as group:
            forms = [
                group.create_task(guard(dict(scope), _stuck_form, take))
                for _ in range(VALUE_FORMS_MAX + 1)
            ]
            assert await statuses.get() == 503
            assert statuses.empty()
            for form in forms:
                form.cancel()
        assert not console.value_forms.locked()
        await console.cluster.close()

    asyncio.run(check())


# Sessions


@pytest.fixture(scope="module")
def asking(users: Kvd, logs: Path) -> Iterator[Console]:
    with Console(logs, f"--addr={users.address}", "--write") as one:
        # It has heard then whether the cluster asks for users.
        wait_for(lambda: Browser(one).get("/").status == 303)
        yield one


def test_whoever_isnt_logged_in_is_sent_to_the_login(asking: Console) -> None:
    browser = Browser(asking)
    for path in ("/", "/keys", "/key?k=YQ", "/live/overview", "/keys/delete?p="):
        answer = browser.get(path)
        assert (answer.status, answer.headers["location"]) == (303, "/login"), path
    assert browser.post("/key/put", {"k": "YQ"}).status == 401


def test_a_user_sees_what_its_roles_let_it_see(asking: Console) -> None:
    browser = Browser(asking)
    assert browser.log_in(user=ANN, password=PASSWORD[ANN]).status == 303
    assert browser.get("/keys?p=YS8").status == 200
    everything = browser.get("/keys")
    assert "permission denied" in everything.words
    assert "/keys?p=YS8" in everything.text
    new = {"key": "a/1", "key_encoding": "text", "value": "hello", "encoding": "text"}
    assert browser.post("/key/put", new).status == 303
    assert browser.post("/key/put", {**new, "key": "b/1"}).status == 403


def test_logging_out_ends_a_session(asking: Console) -> None:
    browser = Browser(asking)
    browser.log_in(user=ROOT, password=PASSWORD[ROOT])
    kept = dict(browser.cookies)
    assert browser.get("/keys").status == 200
    assert browser.post("/logout").status == 303
    browser.cookies = kept
    assert browser.get("/keys").headers["location"] == "/login"


@pytest.mark.parametrize(("user", "password"), [(ANN, "wrong"), ("nobody", "x"), ("a\0b", "x")])
def test_a_wrong_password_is_refused_and_kept_nowhere(
    asking: Console, user: str, password: str
) -> None:
    browser = Browser(asking)
    answer = browser.post("/login", {"user": user, "password": password})
    assert answer.status == 403
    assert browser.cookies == {}
    assert f"{password!r}" not in asking.stderr


def test_cookies_cant_be_read_by_scripts_nor_sent_by_other_sites(asking: Console) -> None:
    browser = Browser(asking)
    answer = browser.post("/login", {"user": ROOT, "password": PASSWORD[ROOT]})
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie


def test_logins_and_changes_are_in_the_audit_log(asking: Console) -> None:
    browser = Browser(asking)
    browser.log_in(user=ANN, password=PASSWORD[ANN])
    new = {"key": "a/audited", "key_encoding": "text", "value": "secret", "encoding": "text"}
    browser.post("/key/put", new)
    browser.post("/key/put", new)
    browser.post("/key/put", {**new, "key": "b/audited"})
    lines = [json.loads(line) for line in asking.stderr.splitlines()]
    of_key = [line for line in lines if line.get("key") in ("a/audited", "b/audited")]
    assert [line["outcome"] for line in of_key] == ["done", "conflict", "refused"]
    assert {line["user"] for line in of_key} == {ANN}
    assert {line["from"] for line in of_key} == {"127.0.0.1"}
    assert "secret" not in asking.stderr.replace('"did"', "")
    assert any(line["did"] == "log in" and line["user"] == ANN for line in lines)


class _Client:
    """Of a store where everybody's password is ``right``."""

    def __init__(self, password: str | None) -> None:
        self.password = password
        self.closed = False
        self.auth = self

    async def roles_of(self, user: str) -> list[str]:
        if self.password == "away":
            raise UnavailableError("no member answers")
        if self.password != "right":
            raise UnauthenticatedError("wrong")
        return []

    async def close(self) -> None:
        self.closed = True


class _Cluster:
    """What sessions need of one that asks for users, without any."""

    asks_for_users = True

    def __init__(self) -> None:
        self.client = _Client(None)
        self.made: list[_Client] = []

    def client_of(self, user: str | None, password: str | None) -> _Client:
        self.made.append(_Client(password))
        return self.made[-1]


def _sessions(now: list[float]) -> tuple[Sessions, _Cluster]:
    cluster = _Cluster()
    return Sessions(cluster, lends_rights=True, clock=lambda: now[0]), cluster  # type: ignore[arg-type]


def test_sessions_end_when_they_are_idle_or_old() -> None:
    async def check() -> None:
        now = [0.0]
        sessions, cluster = _sessions(now)
        idle = await sessions.log_in_owner(sessions.key or "")
        busy = await sessions.log_in_owner(sessions.key or "")
        while now[0] < LIFE_S:
            now[0] += IDLE_S * 0.9
            found = sessions.find(busy.id)
            assert (found is busy) == (now[0] <= LIFE_S)
        assert sessions.find(idle.id) is None
        await sessions.expire()
        assert [client.closed for client in cluster.made] == [True, True]

    asyncio.run(check())


def test_one_user_takes_no_session_of_another() -> None:
    async def check() -> None:
        now = [0.0]
        sessions, cluster = _sessions(now)
        root = await sessions.log_in("root", "right", "here")
        anns = []
        for _ in range(SESSIONS_MAX + 6):
            now[0] += 1
            anns.append(await sessions.log_in("ann", "right", "here"))
        found = [one for one in anns if sessions.find(one.id)]
        assert found == anns[-SESSIONS_OF_USER_MAX:]
        assert sessions.find(root.id) is root
        assert [one.closed for one in cluster.made].count(False) == 1 + SESSIONS_OF_USER_MAX

    asyncio.run(check())


def test_there_are_only_so_many_sessions() -> None:
    async def check() -> None:
        now = [0.0]
        sessions, cluster = _sessions(now)
        twice = [await sessions.log_in("ann", "right", "here") for _ in range(2)]
        for number in range(SESSIONS_MAX - 2):
            await sessions.log_in(f"user{number}", "right", "here")
        now[0] += 1
        assert sessions.find(twice[0].id) is twice[0]
        last = await sessions.log_in("last", "right", "here")
        assert sessions.find(last.id) is last
        assert sessions.find(twice[0].id) is twice[0]
        assert sessions.find(twice[1].id) is None
        assert [one.closed for one in cluster.made].count(False) == SESSIONS_MAX

    asyncio.run(check())


def test_guessing_is_slowed_down_and_keeps_nobody_else_out() -> None:
    async def check() -> None:
        now = [0.0]
        sessions, _ = _sessions(now)
        for _ in range(failures.OF_USER_MAX):
            with pytest.raises(UnauthenticatedError):
                await sessions.log_in("root", "wrong", "there")
        with pytest.raises(OverloadedError):
            await sessions.log_in("root", "right", "there")
        await sessions.log_in("root", "right", "here")
        await sessions.log_in("ann", "right", "there")
        for number in range(failures.OF_PLACE_MAX - failures.OF_USER_MAX):
            with pytest.raises(UnauthenticatedError):
                await sessions.log_in(f"user{number}", "wrong", "there")
        with pytest.raises(OverloadedError):
            await sessions.log_in("ann", "right", "there")
        await sessions.log_in("ann", "right", "here")
        now[0] += failures.WINDOW_S
        await sessions.log_in("root", "right", "there")

    asyncio.run(check())


def test_a_store_that_is_away_makes_no_guess_of_a_login() -> None:
    async def check() -> None:
        sessions, _ = _sessions([0.0])
        for _ in range(failures.OF_USER_MAX + 1):
            with pytest.raises(UnavailableError, match="no member"):
                await sessions.log_in("ann", "away", "here")
        await sessions.log_in("ann", "right", "here")

    asyncio.run(check())


def test_only_so_many_failures_are_remembered() -> None:
    kept = failures.Failures(lambda: 0.0)
    for number in range(2 * failures.KEYS_MAX):
        kept.add(f"place{number}", "x" * 65_536)
    assert len(kept._times) == failures.KEYS_MAX


@pytest.mark.parametrize("sid", ["", ".", "a.b", "é.é", "x" * 5000])
def test_a_made_up_cookie_is_nobodys(sid: str) -> None:
    sessions, cluster = _sessions([0.0])
    assert sessions.find(sid) is None
    sessions.key = None
    cluster.asks_for_users = False
    guest = sessions.find(sid)
    assert guest is not None
    assert guest.id != sid


# An operator's socket


def test_rights_of_an_operator_are_for_whoever_started_the_console(kvd: Kvd, logs: Path) -> None:
    with Console(logs, f"--dir={kvd.data_dir}") as console:
        stranger = Browser(console)
        assert stranger.get("/").headers["location"] == "/login"
        assert stranger.post("/login", {"key": "guess"}).status == 403
        assert stranger.get("/keys").headers["location"] == "/login"
        owner = Browser(console)
        assert console.key
        assert stranger.post("/login", {"user": "x", "password": "y"}).status == 403
        assert console.key in owner.get(f"/login?key={console.key}").text
        assert owner.log_in(key=console.key).status == 303
        assert owner.get("/keys").status == 200


# Where it listens


def _refused(*arguments: str) -> str:
    ended = run("kvctl", "console", *arguments)
    assert ended.returncode == 1, ended.stdout
    return ended.stderr.decode()


def test_beyond_this_machine_it_listens_with_tls_alone() -> None:
    assert "unencrypted" in _refused("--listen=0.0.0.0:0")
    assert "unencrypted" in _refused("--listen=example.com:0")
    assert Options(NOWHERE, listen="0.0.0.0:0", unencrypted=True).hosts >= {"localhost"}


def test_a_bad_address_or_certificate_is_told(tmp_path: Path) -> None:
    assert "HOST:PORT" in _refused("--listen=nonsense")
    assert "HOST:PORT" in _refused("--metrics=nonsense")
    assert "--serve-key" in _refused(f"--serve-cert={tmp_path}/a.pem")
    missing = _refused(f"--serve-cert={tmp_path}/a.pem", f"--serve-key={tmp_path}/a.key")
    assert "a.pem" in missing
    assert "Traceback" not in missing


def test_a_connection_string_says_where_the_cluster_is(kvd: Kvd, logs: Path) -> None:
    with Console(logs, f"--addr=kv://{kvd.address}/") as console:
        assert Browser(console).get("/keys").status == 200
    for said, why in (("user:secret@", "leave the user out"), ("", "leave the namespace out")):
        ended = run("kvctl", "console", f"--addr=kv://{said}{kvd.address}/?namespace=a/")
        assert ended.returncode == 2
        assert why in ended.stderr.decode()


class _Stuck:
    """ASGI of a page, and a browser that takes nothing."""

    def __init__(self) -> None:
        self.left = False

    async def page(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": bytes(1 << 20)})
        finally:
            self.left = True

    async def take(self, message: Message) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()


def test_a_browser_that_takes_nothing_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "SEND_S", 0.01)
    stuck = _Stuck()
    headers = [(b"host", b"localhost")]
    scope = {"type": "http", "method": "GET", "path": "/", "headers": headers}

    async def nothing() -> Message:
        return {"type": "http.disconnect"}

    asyncio.run(Guard(stuck.page, {"localhost"})(scope, nothing, stuck.take))
    assert stuck.left


def test_a_taken_port_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert "can't listen" in _refused(f"--listen=127.0.0.1:{port}")


def test_the_link_of_a_name() -> None:
    with pytest.raises(ConfigurationError):
        Options("nonsense address")


def test_it_serves_https(kvd: Kvd, logs: Path, certificates: Certificates) -> None:
    import ssl

    secure = [f"--serve-cert={certificates.cert}", f"--serve-key={certificates.key}"]
    context = ssl.create_default_context(cafile=str(certificates.ca))
    with Console(logs, f"--addr={kvd.address}", *secure) as console:
        assert console.scheme == "https"
        answer = Browser(console, context=context).get("/")
        assert answer.status == 200
        assert "secure" in answer.headers["set-cookie"].lower()


def test_ctrl_c_ends_it_quietly(kvd: Kvd, logs: Path) -> None:
    """SIGTERM: tests/console/test_history.py."""
    with Console(logs, f"--addr={kvd.address}") as console:
        assert Browser(console).get("/").status == 200
        console.process.send_signal(signal.SIGINT)
        assert console.process.wait(20) == 130
        assert console.stderr == ""


def test_help_names_what_it_takes() -> None:
    said = run("kvctl", "console", "--help").stdout.decode()
    assert re.search(r"--listen HOST:PORT", said)
    assert subprocess.list2cmdline(["--write"]) in said
