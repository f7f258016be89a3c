"""What operators do with it: members, backups, users; and figures of the engine and of calls."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from kvstore.client import Client
from kvstore.console.formats import in_link
from kvstore.console.metrics import Calls, between, of_member, parse
from tests.console.process import Answer, Browser, Console, Events, wait_for
from tests.integration.cluster import Cluster
from tests.integration.process import Kvd, run
from tests.integration.users import ANN, PASSWORD, ROOT, client_of


@pytest.fixture(scope="module")
def operating(cluster: Cluster, logs: Path) -> Iterator[Console]:
    """A console that comes over the members' own sockets."""
    sockets = ",".join(f"unix:{cluster.data(member)}/admin.sock" for member in cluster.members)
    with Console(logs, f"--addr={sockets}", "--write", "--timeout=6") as one:
        yield one


@pytest.fixture
def operator(operating: Console) -> Browser:
    browser = Browser(operating)
    assert browser.log_in(key=operating.key).status == 303
    return browser


def _change(browser: Browser, do: str, member: int) -> Answer:
    return browser.post("/members/change", {"do": do, "id": str(member), "sure": "on"})


def test_leadership_is_handed_over(cluster: Cluster, operator: Browser) -> None:
    leader = cluster.leader()
    other = next(member for member in cluster.members if member != leader)
    assert f"let {other} lead" in operator.get("/members").words
    asked = operator.get(f"/members/confirm?do=transfer&id={other}")
    assert f"Let member {other} lead" in asked.words
    unsure = operator.post("/members/change", {"do": "transfer", "id": str(other)})
    assert unsure.status == 400
    assert cluster.leader() == leader
    assert _change(operator, "transfer", other).status == 303
    assert cluster.leader() == other


def test_a_member_that_was_never_heard_of_gets_no_vote(
    cluster: Cluster, operating: Console, operator: Browser
) -> None:
    new = {"id": "4", "client_address": "127.0.0.1:1", "peer_address": "127.0.0.1:2"}
    assert operator.post("/members/add", new).status == 303
    wait_for(lambda: "let 4 vote" in operator.get("/members").words)
    refused = _change(operator, "promote", 4)
    assert refused.status in (409, 503)
    assert "4" in refused.words
    assert operator.post("/members/add", new).status in (303, 400, 409)
    assert _change(operator, "remove", 4).status == 303
    wait_for(lambda: "remove 4" not in operator.get("/members").words)
    lines = [json.loads(line) for line in operating.stderr.splitlines()]
    of_four = [(line["did"], line["outcome"]) for line in lines if line.get("member") == 4]
    assert of_four[0] == ("member add", "done")
    assert ("member promote", "refused") in of_four
    assert of_four[-1] == ("member remove", "done")


def test_no_removal_leaves_too_few_that_answer(cluster: Cluster, operator: Browser) -> None:
    leader = cluster.leader()
    silent, other = (member for member in cluster.members if member != leader)
    cluster.kill(silent)
    try:
        wait_for(lambda: f"don't answer: {silent}" in _asked(operator, other))
        refused = _change(operator, "remove", other)
        assert refused.status in (409, 503)
        assert f"remove {other}" in operator.get("/members").words
    finally:
        cluster.start(silent)


def _asked(browser: Browser, member: int) -> str:
    return browser.get(f"/members/confirm?do=remove&id={member}").words


@pytest.mark.parametrize(
    "fields",
    [
        {"do": "explode", "id": "1", "sure": "on"},
        {"do": "remove", "id": "0", "sure": "on"},
        {"do": "remove", "id": "x", "sure": "on"},
        {"do": "remove", "sure": "on"},
    ],
)
def test_a_form_that_says_no_change_is_refused(operator: Browser, fields: dict[str, str]) -> None:
    assert operator.post("/members/change", fields).status == 400


@pytest.mark.parametrize("address", ["", "nonsense", "a b:1", "host:99999"])
def test_a_bad_address_of_a_member_is_refused(operator: Browser, address: str) -> None:
    new = {"id": "9", "client_address": address, "peer_address": "db:1"}
    assert operator.post("/members/add", new).status == 400


def test_a_watch_goes_on_while_the_leader_is_killed(
    cluster: Cluster, operating: Console, operator: Browser
) -> None:
    events = Events(operating, f"/watch/stream?p={in_link(b'on/')}", operator.cookies)
    stream = iter(events)
    assert next(stream) == ("state", "Watching.")
    leader = cluster.leader()
    with cluster.client(timeout=60) as client:
        client.put(b"on/before", b"")
        cluster.kill(leader)
        client.put(b"on/after", b"")
        keys = [said["key"] for _, said in islice(stream, 2) if isinstance(said, dict)]
    events.close()
    cluster.start(leader)
    assert keys == ["on/before", "on/after"]


def test_a_backup_is_saved_and_verified(
    cluster: Cluster, operator: Browser, tmp_path: Path
) -> None:
    with cluster.client() as client:
        client.put_many((b"b/%05d" % number, bytes(1000)) for number in range(3_000))
    saved = operator.post("/backups/save")
    assert saved.status == 200
    assert saved.headers["content-disposition"].endswith('.kvs"')
    file = tmp_path / "saved.kvs"
    file.write_bytes(saved.body)
    assert run("kvctl", "snapshot", "status", str(file)).returncode == 0
    assert "It is whole" in _verified(operator, saved.body)
    damaged = bytearray(saved.body)
    damaged[len(damaged) // 2] ^= 1
    assert "It is damaged" in _verified(operator, bytes(damaged))
    assert "It is damaged" in _verified(operator, saved.body[:-1])
    assert "It is damaged" in _verified(operator, b"<html>")
    assert "It is damaged" in _verified(operator, b"")


def _verified(browser: Browser, body: bytes) -> str:
    headers = {"x-csrf-token": browser.token, "content-type": "application/octet-stream"}
    answer = browser.send("POST", "/backups/verify", body, headers)
    assert answer.status == 200
    return answer.text


def test_a_file_is_read_with_the_pages_token_alone(operator: Browser) -> None:
    headers = {"content-type": "application/octet-stream"}
    assert operator.send("POST", "/backups/verify", b"", headers).status == 403


def test_who_is_no_operator_gets_no_backup_and_changes_no_member(
    cluster: Cluster, logs: Path
) -> None:
    with Console(logs, f"--addr={cluster.clients[1]}", "--write") as console:
        browser = Browser(console)
        browser.get("/")
        assert browser.post("/backups/save").status == 403
        leader = cluster.leader()
        assert _change(browser, "remove", leader).status == 403
        assert cluster.leader() == leader


# Users


def test_users_and_roles_are_made_and_taken_away(kvd: Kvd, browser: Browser) -> None:
    def change(do: str, name: str, **more: str) -> Answer:
        return browser.post("/users/change", {"do": do, "name": name, **more})

    assert change("add user", "<b>eve</b>", password="x").status == 303
    assert change("add role", "readers").status == 303
    assert change("grant role", "<b>eve</b>", role="readers").status == 303
    granted = change("grant permission", "readers", access="read", key="a/", prefix="on")
    assert granted.status == 303
    assert change("grant permission", "readers", access="write", key="one").status == 303
    page = browser.get("/users")
    assert "<b>eve</b> Roles: readers" in page.words
    assert "read: from, and less than its end: a/ a0" in page.words
    assert "write: the key one" in page.words
    with kvd.client() as client:
        assert client.auth.roles_of("<b>eve</b>") == ["readers"]
        assert len(client.auth.permissions_of("readers")) == 2
        taken = change("revoke permission", "readers", key=in_link(b"a/"), end=in_link(b"a0"))
        assert taken.status == 303
        assert len(client.auth.permissions_of("readers")) == 1
        assert change("revoke role", "<b>eve</b>", role="readers").status == 303
        assert change("change password", "<b>eve</b>", password="y").status == 303
        assert change("delete role", "readers").status == 303
        assert change("delete user", "<b>eve</b>").status == 303
        assert client.auth.users() == []
    assert change("delete user", "nobody").status == 404
    assert change("explode", "x").status == 400
    assert change("add user", "").status == 400
    assert change("grant permission", "readers", access="all", key="x").status == 400


def test_only_root_does_what_operators_do(users: Kvd, logs: Path) -> None:
    with Console(logs, f"--dir={users.data_dir}", "--write") as console:
        ann, root = Browser(console), Browser(console)
        assert ann.log_in(user=ANN, password=PASSWORD[ANN]).status == 303
        assert root.log_in(user=ROOT, password=PASSWORD[ROOT]).status == 303
        assert ann.post("/backups/save").status == 403
        assert _change(ann, "remove", 1).status == 403
        assert (
            ann.post("/users/change", {"do": "add user", "name": "x", "password": "y"}).status
            == 403
        )
        assert root.post("/backups/save").status == 200
        with client_of(users.address, ROOT) as client:
            client.auth.grant_role(ANN, ROOT)
            assert ann.post("/backups/save").status == 200
            client.auth.revoke_role(ANN, ROOT)
        assert ann.post("/backups/save").status == 403
        assert "ann Roles: a" in ann.get("/users").words
        assert "root Roles: root" not in ann.get("/users").words
        assert "root Roles: root" in root.get("/users").words


# Figures

METRICS = """# HELP kvstore_raft_term Term
kvstore_raft_term{member="1"} 7.0
kvstore_engine_write_amplification{member="1"} 2.5
kvstore_raft_role{member="1",role="leader"} 1.0
kvstore_request_duration_seconds_bucket{le="0.001",method="Put"} 90
kvstore_request_duration_seconds_bucket{le="0.01",method="Put"} 100
kvstore_request_duration_seconds_bucket{le="+Inf",method="Put"} 100
nonsense here
"""


def test_metrics_are_read_and_told_apart() -> None:
    figures = parse(METRICS)
    assert of_member(figures) == {"1": {"raft_term": 7.0, "engine_write_amplification": 2.5}}
    assert between([({}, figures)], 2.0) == Calls(50.0, 0.001, 0.01)
    assert between([(figures, figures)], 2.0) == Calls(0.0, None, None)
    # A member that began anew counts from 0.
    assert between([(figures, parse(METRICS.replace("100", "50")))], 1.0).rate == 0.0


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kvd]:
    """One that serves metrics and remembers every call."""
    directory = tmp_path_factory.mktemp("measured")
    with Kvd(directory / "data", "--metrics_addr=127.0.0.1:0", "--slow_call_ms=1") as server:
        yield server.wait_serving()


def test_calls_and_engines_are_shown_where_metrics_are_read(measured: Kvd, logs: Path) -> None:
    found = re.search(r"metrics served\s+address=(\S+)", measured.stderr)
    assert found is not None, measured.stderr
    metrics = f"--metrics={found[1]},127.0.0.1:1"
    with Console(logs, f"--addr={measured.address}", metrics) as console:
        browser = Browser(console)
        with measured.client() as client:

            def told() -> bool:
                client.put_many((b"%d" % number, bytes(100)) for number in range(100))
                return "Calls a second" in browser.get("/").words

            wait_for(told)
        assert "p99" in browser.get("/").words
        assert "No metrics from 127.0.0.1:1" in browser.get("/").words
        engine = browser.get("/engine").words
        assert "Write amplification" in engine
        assert "Compactions" in engine


def test_a_cluster_that_is_away_is_told_on_every_page(logs: Path) -> None:
    with Console(logs, "--addr=127.0.0.1:1", "--timeout=0.5") as console:
        browser = Browser(console)
        for path in ("/", "/members", "/engine", "/backups"):
            assert browser.get(path).status == 200, path
        assert "No member answers" in browser.get("/").words
        for path in ("/keys", "/key?k=YQ", "/history?k=YQ", "/users"):
            assert browser.get(path).status in (503, 504), path
        assert "Traceback" not in console.stderr


def test_a_client_is_what_it_is(operating: Console, cluster: Cluster) -> None:
    """The console asks each member: all three are heard over their sockets."""
    browser = Browser(operating)
    browser.log_in(key=operating.key)
    wait_for(lambda: "all members answer" in browser.get("/").words)
    with Client(cluster.clients[1]) as client:
        assert len(client.members().members) == 3


def test_slow_calls_are_for_operators(
    cluster: Cluster, operator: Browser, measured: Kvd, logs: Path
) -> None:
    assert operator.get("/slow").status == 200
    with Console(logs, f"--addr={cluster.clients[1]}") as console:
        strangers = Browser(console).get("/slow").words
        assert "doesn't tell" in strangers
    with Console(logs, f"--dir={measured.data_dir}") as one, measured.client() as client:
        browser = Browser(one)
        browser.log_in(key=one.key)

        def told() -> bool:
            client.put_many((b"<i>%d" % number, bytes(20_000)) for number in range(200))
            return "Put" in browser.get("/slow").words

        wait_for(told)
        assert "<i>" not in browser.get("/slow").text
