"""JSON over HTTP/1.1 on real members: what etcd says, streams that end and go on, and TLS."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import random
import re
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import trustme

from kvstore.api.handlers.gateway.routes import ROUTES
from kvstore.api.handlers.gateway.transcoding import pieces_of
from kvstore.wire import available
from tests.integration.cluster import Cluster
from tests.integration.gateway import SCRIPTS, Reply, ask, connect, post, transcript, wait_ready
from tests.integration.process import Certificates, Kvd
from tests.unit.api.test_gateway_transcoding import filled

pytestmark = pytest.mark.skipif(not available(), reason="the native front alone has it")


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.fixture
def kvd(tmp_path: Path) -> Iterator[Kvd]:
    with Kvd(tmp_path / "data", front="native") as running:
        running.wait_serving()
        # Until keys have revisions calls wait, but watches don't.
        post(connect(running.address), "/v3/kv/range", key=b64(b"k"))
        yield running


@pytest.fixture
def connection(kvd: Kvd) -> Iterator[http.client.HTTPConnection]:
    with contextlib.closing(connect(kvd.address)) as made:
        yield made


def recorded(script: Path) -> str:
    """What etcd 3.4 said, but for the status of FAILED_PRECONDITION, which is 400 from 3.5 on."""
    return re.sub(r"^412$", "400", script.with_suffix(".said").read_text(), flags=re.M)


@pytest.mark.parametrize("script", sorted(SCRIPTS.glob("*.script")), ids=lambda path: path.stem)
def test_it_says_what_etcd_says(kvd: Kvd, script: Path) -> None:
    # An empty store is at revision 1 in both.
    assert transcript(script, kvd.address) == recorded(script)


def test_a_member_is_told_to_be_well_and_of_which_version(
    connection: http.client.HTTPConnection,
) -> None:
    health = ask(connection, "GET", "/health")
    assert (health.status, health.body) == (200, b'{"health":"true","reason":""}')
    assert ask(connection, "GET", "/health?serializable=true&exclude=NOSPACE").status == 200
    version = ask(connection, "GET", "/version")
    assert version.json == {"etcdserver": "3.5.21", "etcdcluster": "3.5.0"}
    for path in ("/livez", "/readyz", "/readyz/linearizable_read"):
        assert ask(connection, "GET", path)[:2] == (200, b"ok\n")
    verbose = ask(connection, "GET", "/readyz?verbose&exclude=storage")
    assert verbose.body == (
        b"[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n"
        b"[+]non_learner ok\n[+]serving ok\nok\n"
    )
    head = ask(connection, "HEAD", "/health")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", "29")


def test_pages_of_browsers_are_refused_whatever_they_ask(
    connection: http.client.HTTPConnection,
) -> None:
    put = json.dumps({"key": b64(b"k"), "value": b64(b"v")})
    # A form, as of a page of another site, or of one whose name was made to point here.
    form = {"Content_Type": "text/plain", "Origin": f"http://{connection.host}:{connection.port}"}
    assert ask(connection, "POST", "/v3/kv/put", put, **form).status == 403
    assert ask(connection, "POST", "/v3/kv/put", put, Origin="null").status == 403
    assert ask(connection, "GET", "/health", Sec_Fetch_Site="same-origin").status == 403
    preflight = ask(connection, "OPTIONS", "/v3/kv/put", Origin="http://example.org")
    assert preflight.status == 403
    assert not [name for name in preflight.headers if name.lower().startswith("access-control")]
    assert "kvs" not in post(connection, "/v3/kv/range", key=b64(b"k"))
    # Typed in by a person; and curl -d, which says it were a form.
    assert ask(connection, "GET", "/health", Sec_Fetch_Site="none").status == 200
    curl = {"Content_Type": "application/x-www-form-urlencoded"}
    assert ask(connection, "POST", "/v3/kv/put", put, **curl).status == 200


@pytest.mark.parametrize(
    ("path", "body", "status", "error"),
    [
        ("/v3/kv/put", "{", 400, "the request is no JSON: "),
        ("/v3/kv/put", "{} {}", 400, "one JSON object, and nothing after it"),
        ("/v3/kv/put", b"\xff", 400, "the request is no JSON: "),
        ("/v3/kv/put", '{"key": "plain text"}', 400, "key: bytes in base64 are expected: "),
        ("/v3/kv/range", '{"key": "YQ==", "limit": "x"}', 400, "limit: an integer is expected"),
        ("/v3/lease/keepalive", '{"ID": {}}', 400, "ID: an integer is expected"),
    ],
)
def test_what_is_no_request_is_refused_with_words(
    connection: http.client.HTTPConnection, path: str, body: str, status: int, error: str
) -> None:
    reply = ask(connection, "POST", path, body)
    assert (reply.status, reply.json["code"]) == (status, 3)
    assert reply.json["error"].startswith(error)
    assert reply.json["message"] == reply.json["error"]
    # The connection goes on.
    assert ask(connection, "GET", "/livez").status == 200


def test_values_up_to_the_largest_go_both_ways(connection: http.client.HTTPConnection) -> None:
    value = bytes(range(256)) * 4000
    for number in range(12):
        post(connection, "/v3/kv/put", key=b64(b"%d" % number), value=b64(value))
    one = post(connection, "/v3/kv/range", key=b64(b"7"))["kvs"][0]
    assert base64.b64decode(one["value"]) == value
    everything = post(connection, "/v3/kv/range", key="AA==", range_end="AA==")
    assert [base64.b64decode(kv["value"]) for kv in everything["kvs"]] == [value] * 12
    # The bound of a body lets that through, the bounds of a request don't.
    too_large = json.dumps({"key": b64(b"k"), "value": b64(bytes(3 << 19))})
    refused = ask(connection, "POST", "/v3/kv/put", too_large)
    assert (refused.status, refused.json["error"]) == (400, "etcdserver: request is too large")
    for number in range(12, 24):
        post(connection, "/v3/kv/put", key=b64(b"%d" % number), value=b64(value))
    refused = ask(connection, "POST", "/v3/kv/range", '{"key": "AA==", "range_end": "AA=="}')
    assert refused.status == 429
    assert "the answer has more than 16 MiB" in refused.json["error"]


def test_a_deadline_of_the_client_holds(connection: http.client.HTTPConnection) -> None:
    late = ask(connection, "POST", "/v3/kv/range", '{"key": "YQ=="}', Grpc_Timeout="1n")
    assert (late.status, late.json["code"]) == (504, 4)
    bad = ask(connection, "POST", "/v3/kv/range", '{"key": "YQ=="}', Grpc_Timeout="soon")
    assert (bad.status, bad.json["error"]) == (400, "invalid grpc-timeout: soon")
    fine = ask(connection, "POST", "/v3/kv/range", '{"key": "YQ=="}', Grpc_Timeout="30S")
    assert fine.status == 200


def test_metadata_come_as_headers(connection: http.client.HTTPConnection) -> None:
    reply = ask(
        connection,
        "POST",
        "/v3/kv/range",
        '{"key": "YQ=="}',
        Grpc_Metadata_Client_Api_Version="\xff",
    )
    assert (reply.status, reply.json["code"]) == (400, 3)


def test_a_watch_is_a_stream_of_lines_that_can_be_taken_up_again(kvd: Kvd) -> None:
    writer = connect(kvd.address)

    def events(after: int, count: int) -> list[dict[str, Any]]:
        request = {"key": b64(b"k"), "start_revision": str(after + 1)}
        with contextlib.closing(connect(kvd.address)) as watching:
            watching.request("POST", "/v3/watch", json.dumps({"create_request": request}))
            response = watching.getresponse()
            assert response.headers["transfer-encoding"] == "chunked"
            assert json.loads(response.readline())["result"]["created"] is True
            found: list[dict[str, Any]] = []
            while len(found) < count:
                found += json.loads(response.readline())["result"]["events"]
            return found

    seen: list[dict[str, Any]] = []
    for number in range(20):
        answer = post(writer, "/v3/kv/put", key=b64(b"k"), value=b64(b"%d" % number))
        after = int(seen[-1]["kv"]["mod_revision"]) if seen else 1
        seen += events(after, 1)
        assert seen[-1]["kv"]["mod_revision"] == answer["header"]["revision"]
    assert [base64.b64decode(event["kv"]["value"]) for event in seen] == [
        b"%d" % number for number in range(20)
    ]
    assert events(1, 20) == seen
    writer.close()


def test_a_watch_whose_client_hangs_up_is_let_go(kvd: Kvd) -> None:
    for _ in range(40):
        watching = connect(kvd.address)
        watching.request("POST", "/v3/watch", '{"create_request": {"key": "aw=="}}')
        assert watching.getresponse().readline()
        watching.close()
    # If they stayed there would be no place for these.
    assert ask(connect(kvd.address), "GET", "/livez").status == 200
    kvd.signal(signal.SIGTERM)
    assert kvd.wait() == 0


def test_who_waits_for_a_lock_gets_it_in_turn(kvd: Kvd) -> None:
    first, second = connect(kvd.address), connect(kvd.address)
    lease = [post(one, "/v3/lease/grant", TTL=600)["ID"] for one in (first, second)]
    held = post(first, "/v3/lock/lock", name=b64(b"l"), lease=lease[0])
    got: list[Any] = []
    thread = threading.Thread(
        target=lambda: got.append(post(second, "/v3/lock/lock", name=b64(b"l"), lease=lease[1]))
    )
    thread.start()
    assert post(first, "/v3/lock/unlock", key=held["key"])["header"]
    thread.join(30)
    assert got
    assert got[0]["key"] != held["key"]


def test_a_stop_answers_what_has_begun_and_ends_streams(kvd: Kvd) -> None:
    idle, watching = connect(kvd.address), connect(kvd.address)
    assert ask(idle, "GET", "/livez").status == 200
    watching.request("POST", "/v3/watch", '{"create_request": {"key": "aw=="}}')
    response = watching.getresponse()
    assert json.loads(response.readline())["result"]["created"] is True
    kvd.signal(signal.SIGTERM)
    ended = json.loads(response.readline())["error"]
    assert (ended["grpc_code"], ended["http_code"]) == (14, 503)
    assert ended["message"] == "etcdserver: server stopped"
    assert response.read() == b""
    assert idle.sock.recv(1) == b""
    assert kvd.wait() == 0


def test_without_etcds_api_health_and_version_are_there_alone(tmp_path: Path) -> None:
    with Kvd(tmp_path / "data", "--etcd_api=false", front="native") as kvd:
        kvd.wait_serving()
        with contextlib.closing(connect(kvd.address)) as connection:
            for path in ("/health", "/version", "/livez", "/readyz"):
                assert ask(connection, "GET", path).status == 200
            refused = ask(connection, "POST", "/v3/kv/range", '{"key": "YQ=="}')
            assert (refused.status, refused.json["code"]) == (501, 12)
            assert "--etcd_api=false" in refused.json["error"]


def test_the_front_over_grpcio_says_that_it_has_no_http1(tmp_path: Path) -> None:
    with Kvd(tmp_path / "data", front="grpcio") as kvd:
        kvd.wait_serving()
        assert "no HTTP/1.1" in kvd.stderr


def curl(address: str, text: bytes) -> bytes:
    """Everything that is said to ``text``."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=30) as raw:
        raw.sendall(text)
        return b"".join(iter(lambda: raw.recv(65536), b""))


def test_a_page_isnt_a_person_for_saying_both(kvd: Kvd) -> None:
    both = b"GET /health HTTP/1.0\r\nSec-Fetch-Site: none\r\nSec-Fetch-Site: cross-site\r\n\r\n"
    assert b" 403 " in curl(kvd.address, both)


def test_a_client_that_has_said_all_still_gets_its_answer(kvd: Kvd) -> None:
    host, _, port = kvd.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=30) as raw:
        raw.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
        raw.shutdown(socket.SHUT_WR)
        assert b"".join(iter(lambda: raw.recv(65536), b"")).endswith(b"\r\n\r\nok\n")


def test_a_body_in_chunks_and_one_that_waits_to_be_asked_for(kvd: Kvd) -> None:
    chunked = curl(
        kvd.address,
        b"POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
        b'10\r\n{"key": "YQ==", \r\n10\r\n"value": "Yg=="}\r\n0\r\n\r\n',
    )
    assert chunked.startswith(b"HTTP/1.1 200 OK\r\n")
    host, _, port = kvd.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=30) as raw:
        raw.sendall(
            b"POST /v3/kv/range HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            b"Expect: 100-continue\r\nContent-Length: 15\r\n\r\n"
        )
        assert raw.recv(1024).startswith(b"HTTP/1.1 100 ")
        raw.sendall(b'{"key": "YQ=="}')
        said = b"".join(iter(lambda: raw.recv(65536), b""))
    assert b'"value":"Yg=="' in said


def test_a_reader_that_stands_still_holds_up_nobody(kvd: Kvd) -> None:
    with contextlib.closing(connect(kvd.address)) as connection:
        for number in range(10):
            post(connection, "/v3/kv/put", key=b64(b"%d" % number), value=b64(bytes(1_000_000)))
        host, _, port = kvd.address.rpartition(":")
        with contextlib.ExitStack() as stack:
            for _ in range(8):
                raw = stack.enter_context(socket.create_connection((host, int(port)), timeout=30))
                body = b'{"key": "AA==", "range_end": "AA=="}'
                raw.sendall(
                    b"POST /v3/kv/range HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b"
                    % (len(body), body)
                )
                assert raw.recv(1)  # and no more
            for number in range(10):
                one = post(connection, "/v3/kv/range", key=b64(b"%d" % number))
                assert one["count"] == "1"


# Three members.


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path, fronts=("native",)) as members:
        members.start()
        yield members


def test_every_member_answers_and_a_watch_goes_on_at_another(cluster: Cluster) -> None:
    connections = {m: connect(address) for m, address in cluster.clients.items()}
    members = cycle(connections)
    revisions = []
    for number in range(9):
        answer = post(
            connections[next(members)], "/v3/kv/put", key=b64(b"k"), value=b64(b"%d" % number)
        )
        revisions.append(int(answer["header"]["revision"]))
        read = post(connections[next(members)], "/v3/kv/range", key=b64(b"k"))
        assert base64.b64decode(read["kvs"][0]["value"]) == b"%d" % number
    assert revisions == list(range(2, 11))
    leader = cluster.leader()
    cluster.kill(leader)
    left = [member for member in cluster.members if member != leader]

    def watched(member: int, start: int, count: int) -> list[str]:
        request = {"key": b64(b"k"), "start_revision": start}
        found: list[str] = []
        with contextlib.closing(connect(cluster.clients[member])) as watching:
            watching.request("POST", "/v3/watch", json.dumps({"create_request": request}))
            response = watching.getresponse()
            while len(found) < count:
                line = json.loads(response.readline())["result"]
                found += [event["kv"]["mod_revision"] for event in line.get("events", ())]
        return found

    assert watched(left[0], 2, 9) == [str(revision) for revision in revisions]
    for member in left:
        kvd = cluster.running[member].wait_serving()
        wait_ready(connect(kvd.address))
    post(connect(cluster.clients[left[1]]), "/v3/kv/put", key=b64(b"k"))
    assert watched(left[0], 11, 1) == ["11"]


def test_without_a_majority_a_member_is_not_ready_but_lives(cluster: Cluster) -> None:
    lonely, *others = cluster.members
    connection = connect(cluster.clients[lonely])
    post(connection, "/v3/kv/range", key=b64(b"k"))
    cluster.kill(*others)

    def unwell() -> Reply:
        while (reply := ask(connection, "GET", "/health")).status == 200:
            pass
        return reply

    assert unwell().json["health"] == "false"
    assert ask(connection, "GET", "/livez").status == 200
    assert ask(connection, "GET", "/health?serializable=true").status == 200
    ready = ask(connection, "GET", "/readyz")
    assert ready.status == 503
    assert b"[+]serializable_read ok\n" in ready.body
    assert b"[-]linearizable_read failed: RANGE ERROR:etcdserver: " in ready.body
    cluster.start(*others)
    cluster.running[lonely].wait_serving()
    wait_ready(connection)


# TLS.


@pytest.mark.parametrize("offered", [None, ["http/1.1"], ["h2", "http/1.1"]])
def test_over_tls_whoever_knows_http1_has_it(tmp_path: Path, offered: list[str] | None) -> None:
    certificates = Certificates.make(tmp_path)
    with Kvd(tmp_path / "data", certificates=certificates, front="native") as kvd:
        kvd.wait_serving()  # over gRPC
        trust = ssl.create_default_context(cafile=str(certificates.ca))
        if offered is not None:
            trust.set_alpn_protocols(offered)
        with contextlib.closing(connect(kvd.address, trust)) as connection:
            wait_ready(connection)
            assert ask(connection, "GET", "/health").status == 200
            post(connection, "/v3/kv/put", key=b64(b"k"), value=b64(bytes(700_000)))
            assert post(connection, "/v3/kv/range", key=b64(b"k"))["count"] == "1"
            watch = ask(
                connection, "POST", "/v3/watch", '{"create_request": {"key": "aw=="}}', lines=1
            )
            assert watch.lines[0]["result"]["created"] is True
        with kvd.client() as client:
            assert client.get(b"k") == bytes(700_000)


# Users.


def ask_for_users(address: str, tls: ssl.SSLContext | None = None) -> None:
    """root with the password "p", and "reader", who may read "r"; then users are asked for."""
    with contextlib.closing(connect(address, tls)) as connection:
        post(connection, "/v3/auth/user/add", name="root", password="p")
        post(connection, "/v3/auth/role/add", name="root")
        post(connection, "/v3/auth/user/grant", user="root", role="root")
        post(connection, "/v3/auth/user/add", name="reader", password="q")
        post(connection, "/v3/auth/role/add", name="reading")
        permission = {"permType": "READ", "key": b64(b"r")}
        post(connection, "/v3/auth/role/grant", name="reading", perm=permission)
        post(connection, "/v3/auth/user/grant", user="reader", role="reading")
        post(connection, "/v3/kv/put", key=b64(b"r"), value=b64(b"v"))
        post(connection, "/v3/auth/enable")


def test_users_are_told_by_their_token_alone(kvd: Kvd) -> None:
    ask_for_users(kvd.address)
    connection = connect(kvd.address)
    tokens = {
        name: post(connection, "/v3/auth/authenticate", name=name, password=password)["token"]
        for name, password in (("root", "p"), ("reader", "q"))
    }

    def ends(path: str, body: str, **headers: str) -> tuple[int, str]:
        reply = ask(connection, "POST", path, body, **headers)
        return reply.status, "" if reply.status == 200 else reply.json["error"]

    read, other = '{"key": "cg=="}', '{"key": "eA=="}'
    assert ends("/v3/kv/range", read) == (400, "etcdserver: user name is empty")
    assert ends("/v3/kv/range", read, Authorization="nonsense")[0] == 401
    assert ends("/v3/auth/authenticate", '{"name": "root", "password": "no"}')[0] == 400
    reader = {"Authorization": tokens["reader"]}
    assert ends("/v3/kv/range", read, **reader) == (200, "")
    assert ends("/v3/kv/range", read, Authorization=f"Bearer {tokens['reader']}") == (200, "")
    assert ends("/v3/kv/range", read, Grpc_Metadata_Token=tokens["reader"]) == (200, "")
    assert ends("/v3/kv/range", other, **reader)[0] == 403
    assert ends("/v3/kv/put", read, **reader) == (403, "etcdserver: permission denied")
    assert ends("/v3/auth/disable", "{}", **reader)[0] == 403
    assert ends("/v3/kv/put", other, Authorization=tokens["root"]) == (200, "")
    # A member's health is nobody's secret.
    assert ask(connection, "GET", "/health").body == b'{"health":"true","reason":""}'
    watched = {}
    for key, token in (("cg==", reader), ("eA==", reader), ("cg==", {})):
        request = json.dumps({"create_request": {"key": key}})
        with contextlib.closing(connect(kvd.address)) as watching:
            (line,) = ask(watching, "POST", "/v3/watch", request, lines=1, **token).lines
        watched[key, bool(token)] = line
    assert watched["cg==", True]["result"] == {**watched["cg==", True]["result"], "created": True}
    assert "canceled" not in watched["cg==", True]["result"]
    for refused in (watched["eA==", True], watched["cg==", False]):
        assert "error" in refused or refused["result"]["canceled"] is True


def test_the_name_in_a_certificate_is_no_user_of_the_gateway(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificates = Certificates.make(tmp_path)
    ca = tmp_path / "clients.pem"
    authority.cert_pem.write_to_path(ca)
    trust = ssl.create_default_context(cafile=str(certificates.ca))
    authority.issue_cert("operator.kvstore", common_name="root").configure_cert(trust)
    asked = f"--tls_client_ca={ca}"
    with Kvd(tmp_path / "data", asked, certificates=certificates, front="native") as kvd:
        with contextlib.closing(connect(kvd.address, trust)) as connection:
            wait_ready(connection)
            post(connection, "/v3/kv/range", key=b64(b"k"))
        ask_for_users(kvd.address, trust)
        with contextlib.closing(connect(kvd.address, trust)) as connection:
            refused = ask(connection, "POST", "/v3/kv/range", '{"key": "cg=="}')
            assert refused.json["error"] == "etcdserver: user name is empty"
            token = post(connection, "/v3/auth/authenticate", name="root", password="p")["token"]
            allowed = ask(
                connection, "POST", "/v3/kv/range", '{"key": "cg=="}', Authorization=token
            )
            assert allowed.json["count"] == "1"


@pytest.mark.parametrize("seed", range(2))
def test_whatever_is_asked_has_an_answer_and_shows_no_defect(kvd: Kvd, seed: int) -> None:
    chance = random.Random(seed)
    paths = sorted(ROUTES)
    statuses = {200, 400, 401, 403, 404, 409, 429, 501, 503, 504}
    with contextlib.closing(connect(kvd.address)) as connection:
        for _ in range(400):
            path = chance.choice(paths)
            message = filled(ROUTES[path].request, chance)
            body = bytearray("".join(pieces_of(message)).encode())
            if chance.random() < 0.2:
                body[chance.randrange(len(body))] = chance.randrange(256)
            # Streams, and what waits, end by that.
            reply = ask(connection, "POST", path, bytes(body), Grpc_Timeout="200m")
            assert reply.status in statuses, (path, body, reply)
            for line in reply.body.splitlines():
                assert isinstance(json.loads(line), dict)
        assert ask(connection, "GET", "/livez").status == 200
    assert not [line for line in kvd.stderr.splitlines() if "[error" in line]
