"""Users of a real kvd: by etcd's API and by kvstore.v1, embedded and on three members."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from kvstore.api.etcd import etcd_pb2 as pb
from kvstore.client import TLS, Access, Client
from kvstore.errors import (
    Error,
    PermissionDeniedError,
    UnauthenticatedError,
)
from tests.integration.cluster import Cluster
from tests.integration.etcd_calls import EtcdCalls
from tests.integration.process import FRONTS, Certificates, Kvd, command, environment, run
from tests.integration.users import ANN, PASSWORD, ROOT, ask_for_users, async_client_of, client_of


@pytest.fixture(params=FRONTS)
def kvd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kvd]:
    with Kvd(tmp_path / "data", front=request.param) as server:
        server.wait_serving()
        ask_for_users(server.address)
        yield server


class As:
    """Calls of a user's, by its token; of nobody without one."""

    def __init__(self, address: str, user: str | None = None) -> None:
        self._calls = EtcdCalls(address)
        self.metadata: tuple[tuple[str, str], ...] = ()
        if user is not None:
            answer = self._calls.Authenticate(name=user, password=PASSWORD[user])
            self.metadata = (("token", answer.token),)

    def begin(self, method: str, **fields: Any) -> Any:
        """A call under way, as a future."""
        return self._calls.begin(method, metadata=self.metadata, **fields)

    def call(self, method: str, **fields: Any) -> Any:
        return self.begin(method, **fields).result()

    def keep_alive(self, lease: int) -> str:
        """What a renewal is refused with; empty: it isn't."""
        requests = iter([pb.LeaseKeepAliveRequest(ID=lease)])
        try:
            (_,) = self._calls.LeaseKeepAlive(requests, timeout=30, metadata=self.metadata)
        except grpc.RpcError as error:
            return str(error.details())  # type: ignore[attr-defined]
        return ""

    def refusal(self, method: str, **fields: Any) -> str:
        """What it is refused with; empty: it isn't."""
        try:
            self.call(method, **fields)
        except grpc.RpcError as error:
            return str(error.details())  # type: ignore[attr-defined]
        return ""

    def close(self) -> None:
        self._calls.channel.close()


DENIED = "etcdserver: permission denied"
NOBODY = "etcdserver: user name is empty"


def put(key: bytes, **fields: Any) -> pb.RequestOp:
    return pb.RequestOp(request_put=pb.PutRequest(key=key, **fields))


def get(key: bytes, **fields: Any) -> pb.RequestOp:
    return pb.RequestOp(request_range=pb.RangeRequest(key=key, **fields))


def nested(*operations: pb.RequestOp) -> pb.RequestOp:
    return pb.RequestOp(request_txn=pb.TxnRequest(failure=operations))


def test_every_hole_that_etcd_had_is_closed(kvd: Kvd) -> None:
    root, ann, nobody = As(kvd.address, ROOT), As(kvd.address, ANN), As(kvd.address)
    root.call("LeaseGrant", ID=5, TTL=60)
    root.call("LeaseGrant", ID=6, TTL=60)
    root.call("Put", key=b"x", value=b"secret", lease=5)
    ann.call("LeaseGrant", ID=7, TTL=60)
    ann.call("Put", key=b"a/1", value=b"1", lease=7)
    denied: list[tuple[str, dict[str, Any]]] = [
        # Txns: nested ones (CVE-2026-33343), either branch, compares, prev_kv and leases in them.
        ("Txn", {"success": [get(b"x")]}),
        ("Txn", {"success": [nested(get(b"x"))]}),
        ("Txn", {"success": [nested(nested(put(b"x")))]}),
        ("Txn", {"failure": [put(b"x")]}),
        ("Txn", {"compare": [pb.Compare(key=b"x", target="VALUE", value=b"s")]}),
        ("Txn", {"compare": [pb.Compare(key=b"a/", range_end=b"\0", target="MOD")]}),
        ("Txn", {"success": [put(b"a/1", lease=5)]}),
        # Leases with others' keys.
        ("Put", {"key": b"a/1", "lease": 5}),
        ("LeaseRevoke", {"ID": 5}),
        ("LeaseTimeToLive", {"ID": 5, "keys": True}),
        ("LeaseLeases", {}),
        # Ranges that reach further.
        ("Range", {"key": b"a/", "range_end": b"\0"}),
        ("Range", {"key": b"\0", "range_end": b"\0", "count_only": True}),
        ("Range", {"key": b"x", "serializable": True}),
        ("DeleteRange", {"key": b"a/", "range_end": b"b"}),
        # What root alone may do (CVE-2026-33413).
        ("Compact", {"revision": 2}),
        ("Alarm", {"action": "ACTIVATE", "memberID": 1, "alarm": "NOSPACE"}),
        ("Alarm", {"action": "DEACTIVATE", "memberID": 1, "alarm": "NOSPACE"}),
        ("Defragment", {}),
        ("Hash", {}),
        ("HashKV", {}),
        ("MoveLeader", {"targetID": 2}),
        ("Downgrade", {"action": "CANCEL"}),
        ("MemberAdd", {"peerURLs": ["http://127.0.0.1:1"]}),
        ("MemberRemove", {"ID": 2}),
        ("MemberUpdate", {"ID": 2, "peerURLs": ["http://127.0.0.1:1"]}),
        ("MemberPromote", {"ID": 2}),
        ("AuthDisable", {}),
        ("AuthStatus", {}),
        ("UserAdd", {"name": "eve", "password": "x"}),
        ("UserChangePassword", {"name": "ann", "password": "x"}),
        ("UserGrantRole", {"user": "ann", "role": "root"}),
        ("UserList", {}),
        ("UserGet", {"name": "root"}),
        ("RoleGet", {"role": "root"}),
        (
            "RoleGrantPermission",
            {"name": "a", "perm": pb.Permission(permType="READ", key=b"x")},
        ),
        # Locks and elections are made of keys.
        ("Lock", {"name": b"x", "lease": 7}),
        ("Unlock", {"key": b"x"}),
        ("Campaign", {"name": b"x", "lease": 7, "value": b"1"}),
        ("Leader", {"name": b"x"}),
    ]
    for method, fields in denied:
        assert ann.refusal(method, **fields) == DENIED, (method, fields)
        assert nobody.refusal(method, **fields) == NOBODY, (method, fields)
    assert [one.keep_alive(5) for one in (root, ann, nobody)] == ["", DENIED, NOBODY]
    assert [one.keep_alive(7) for one in (root, ann, nobody)] == ["", "", NOBODY]
    for method, fields in (("Status", {}), ("MemberList", {}), ("LeaseTimeToLive", {"ID": 5})):
        assert ann.refusal(method, **fields) == "", method
        assert nobody.refusal(method, **fields) == NOBODY, method
    assert ann.call("LeaseTimeToLive", ID=7, keys=True).keys == [b"a/1"]
    assert root.call("Range", key=b"x").kvs[0].value == b"secret"
    assert root.call("LeaseTimeToLive", ID=5, keys=True).keys == [b"x"]
    ann.call("Lock", name=b"a/lock", lease=7)
    for one in (root, ann, nobody):
        one.close()


def test_both_apis_ask_on_both_clients(kvd: Kvd) -> None:
    for transport in ("native", "grpcio"):
        if transport not in FRONTS:
            continue
        with Client(
            kvd.address,
            timeout=30,
            transport=transport,  # type: ignore[arg-type]
            user=ANN,
            password=PASSWORD[ANN],
        ) as ann:
            ann.put(b"a/1", b"v")
            assert ann.get(b"a/1") == b"v"
            assert ann.put_many({b"a/%d" % n: b"w" for n in range(300)}) == 300
            assert dict(ann.get_many([b"a/7", b"a/x"])) == {b"a/7": b"w", b"a/x": None}
            assert ann.count(prefix=b"a/") == 300
            assert ann.delete(b"a/1")
            for call in (
                lambda client: client.put(b"b", b"v"),
                lambda client: client.get(b"b"),
                lambda client: client.delete(b"b"),
                lambda client: client.count(),
                lambda client: client.put_many({b"b": b"v"}),
            ):
                with pytest.raises(Error) as refused:
                    call(ann)
                assert "permission denied" in str(refused.value)
        with Client(kvd.address, timeout=30, transport=transport) as nobody:  # type: ignore[arg-type]
            for call in (
                lambda client: client.get(b"a/2"),
                lambda client: client.put(b"a/2", b"v"),
                lambda client: client.put(b"a/2", b"v", request_id="mine"),
                lambda client: client.count(prefix=b"a/"),
            ):
                with pytest.raises(UnauthenticatedError, match="user name is empty"):
                    call(nobody)


def test_a_client_for_asyncio_logs_in_too(kvd: Kvd) -> None:
    async def test() -> None:
        async with async_client_of(kvd.address, ANN) as ann:
            await ann.put(b"a/1", b"v")
            assert await ann.get(b"a/1") == b"v"
            with pytest.raises(PermissionDeniedError):
                await ann.put(b"b", b"v")

    asyncio.run(test())


def test_a_token_dies_with_password_user_and_enabling_and_clients_get_another(kvd: Kvd) -> None:
    with client_of(kvd.address, ROOT) as root, client_of(kvd.address, ANN) as ann:
        ann.put(b"a/1", b"v")
        old = As(kvd.address, ANN)
        root.auth.change_password(ANN, PASSWORD[ANN])
        assert old.refusal("Range", key=b"a/1") == "etcdserver: invalid auth token"
        assert ann.get(b"a/1") == b"v", "with a new token"
        again = As(kvd.address, ANN)
        # Other changes of users end no token.
        root.auth.add_user("eve", None)
        assert again.refusal("Range", key=b"a/1") == ""
        root.auth.delete_user(ANN)
        assert again.refusal("Range", key=b"a/1") == "etcdserver: invalid auth token"
        with pytest.raises(UnauthenticatedError):
            ann.get(b"a/1")
        root.auth.add_user(ANN, PASSWORD[ANN])
        root.auth.grant_role(ANN, "a")
        assert again.refusal("Range", key=b"a/1") == "etcdserver: invalid auth token"
        assert ann.get(b"a/1") == b"v"
        third = As(kvd.address, ANN)
        root.auth.disable()
        assert third.refusal("Range", key=b"x") == "", "tokens are ignored"
        assert As(kvd.address).refusal("Range", key=b"x") == ""
        root.auth.enable()
        assert third.refusal("Range", key=b"a/1") == "etcdserver: invalid auth token"
        assert ann.get(b"a/1") == b"v"
        for one in (old, again, third):
            one.close()


def test_expired_leases_end_though_nobody_asks_for_it(kvd: Kvd) -> None:
    with client_of(kvd.address, ANN) as ann, client_of(kvd.address, ROOT) as root:
        lease = ann.lease(1).grant()
        ann.put(b"a/leased", b"v", lease=lease)
        lease.let_go()
        with root.watch(b"a/leased", from_revision=1) as changes:
            events = iter(changes)
            while next(events).value == b"v":
                pass


def test_a_watch_ends_with_its_right(kvd: Kvd) -> None:
    with client_of(kvd.address, ROOT) as root, client_of(kvd.address, ANN) as ann:
        with pytest.raises(PermissionDeniedError), ann.watch(prefix=b"b/"):
            pass
        with ann.watch(prefix=b"a/") as changes:
            root.put(b"a/1", b"v")
            events = iter(changes)
            assert next(events).value == b"v"
            root.auth.revoke_permission("a", prefix=b"a/")
            root.put(b"a/1", b"not for ann")
            with pytest.raises(PermissionDeniedError):
                next(events)


def test_users_may_be_made_side_by_side(kvd: Kvd) -> None:
    root = As(kvd.address, ROOT)
    calls = [root.begin("UserAdd", name=f"u{n}", password="p") for n in range(16)] + [
        root.begin(method, **fields)
        for n in range(48)
        for method, fields in (
            ("RoleAdd", {"name": f"r{n}"}),
            ("RoleGrantPermission", {"name": "a", "perm": pb.Permission(key=b"b/%d" % n)}),
        )
    ]
    for call in calls:
        call.result()
    assert len(root.call("UserList").users) == 2 + 16
    assert len(root.call("RoleList").roles) == 2 + 48
    assert len(root.call("RoleGet", role="a").perm) == 1 + 48
    root.close()


def test_kvctl_with_users(kvd: Kvd, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("hers\n")

    def kvctl(*arguments: str, user: str = "root:top") -> tuple[int, str]:
        done = run("kvctl", f"--addr={kvd.address}", f"--user={user}", *arguments)
        return done.returncode, (done.stdout + done.stderr).decode()

    assert kvctl("user", "list") == (0, "ann\nroot\n")
    added = ("user", "add", "eve", "--all-keys=readwrite", f"--new-password-file={password}")
    assert kvctl(*added) == (0, "added\n")
    assert kvctl("role", "get", "all-keys-readwrite") == (0, "readwrite\tall keys\n")
    assert kvctl("put", "b", "v", user="eve:hers") == (0, "created\n")
    assert kvctl("get", "b", user="ann:secret") == (1, "kvctl: permission denied\n")
    assert kvctl("get", "b", user="ann:wrong")[0] == 1
    assert kvctl("role", "grant-permission", "a", "read", "b", "--from-key") == (0, "granted\n")
    assert kvctl("get", "b", user="ann:secret") == (0, "v")
    assert kvctl("role", "get", "a") == (0, "readwrite\ta/\ta0\nread\tb\tand all after\n")
    assert kvctl("role", "revoke-permission", "a", "b", "--from-key") == (0, "revoked\n")
    assert kvctl("user", "get", "ann", user="ann:secret") == (0, "a\n")
    assert kvctl("user", "list", user="ann:secret") == (1, "kvctl: permission denied\n")
    assert kvctl("user", "delete", "nobody")[0] == 3
    assert kvctl("auth", "status")[1].startswith("enabled, revision ")
    # Whoever may open the socket needs no password, as to give root another one.
    over_socket = run(
        "kvctl",
        "user",
        "passwd",
        "root",
        f"--dir={kvd.data_dir}",
        f"--new-password-file={password}",
    )
    assert over_socket.returncode == 0, over_socket.stderr
    assert kvctl("auth", "disable", user="root:hers") == (0, "disabled\n")
    assert run("kvctl", f"--addr={kvd.address}", "get", "b").stdout == b"v"


def test_one_command_makes_root_and_asks_for_users(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("top\n")
    with Kvd(tmp_path / "data") as kvd:
        kvd.wait_serving()
        here = f"--addr={kvd.address}"
        enable = ("kvctl", here, "auth", "enable", f"--new-password-file={password}")
        enabled = run(*enable)
        assert (enabled.returncode, enabled.stdout) == (0, b"enabled\n"), enabled.stderr
        refused = run("kvctl", here, "put", "k", "v")
        assert (refused.returncode, refused.stderr) == (
            1,
            b"kvctl: this store asks for users: say who you are with --user NAME (not applied)\n",
        )
        unasked = subprocess.run(
            [*command("kvctl"), here, "--user=root", "get", "k"],
            check=False,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            env=environment(),
            start_new_session=True,  # without a terminal, wherever the tests run
        )
        assert unasked.returncode == 2
        assert b"KVCTL_PASSWORD, or --password-file" in unasked.stderr
        assert run(*enable).returncode == 1, "and no second time by somebody else"
        root = environment(KVCTL_USER="root", KVCTL_PASSWORD="top")
        assert run("kvctl", here, "put", "k", "v", env=root).stdout == b"created\n"
        status = run("kvctl", here, "auth", "status", "--output=json", env=root)
        assert json.loads(status.stdout)["enabled"] is True
        over_socket = run("kvctl", "auth", "disable", f"--dir={kvd.data_dir}")
        assert over_socket.stdout == b"disabled\n", over_socket.stderr
        assert run("kvctl", here, "get", "k").stdout == b"v"


@pytest.mark.parametrize("front", FRONTS)
def test_a_certificates_name_is_its_owner(tmp_path: Path, front: str) -> None:
    certificates = Certificates.make(tmp_path)
    authority = trustme.CA()
    client_ca = tmp_path / "clients.pem"
    authority.cert_pem.write_to_path(client_ca)

    def tls_of(name: str) -> TLS:
        issued = authority.issue_cert(f"{name}.example", common_name=name)
        cert, key = tmp_path / f"{name}.pem", tmp_path / f"{name}.key"
        issued.cert_chain_pems[0].write_to_path(cert)
        issued.private_key_pem.write_to_path(key)
        return TLS(ca=certificates.ca, cert=cert, key=key)

    asks = f"--tls_client_ca={client_ca}"
    with Kvd(tmp_path / "data", asks, certificates=certificates, front=front) as kvd:
        ask_for_users(kvd.address, tls_of("whoever"))
        for transport in FRONTS:

            def client_of(name: str, transport: Any = transport, **login: Any) -> Client:
                tls = tls_of(name)
                return Client(kvd.address, tls=tls, timeout=30, transport=transport, **login)

            with client_of("ann") as ann, client_of("eve") as eve, client_of("root") as root:
                ann.put(b"a/1", b"v")
                assert ann.get(b"a/1") == b"v"
                assert ann.count(prefix=b"a/") == 1
                assert root.auth.users() == ["ann", "root"]
                for client, key in ((ann, b"b"), (eve, b"a/1")):
                    for call in (client.get, client.delete, lambda k, c=client: c.put(k, b"v")):
                        with pytest.raises(PermissionDeniedError):
                            call(key)
                with pytest.raises(PermissionDeniedError):
                    eve.count()
            # A token counts for more.
            with client_of("root", user=ANN, password=PASSWORD[ANN]) as ann:
                assert ann.get(b"a/1") == b"v"
                with pytest.raises(PermissionDeniedError):
                    ann.get(b"b")


def test_users_are_asked_for_on_every_member_after_restart_and_failover(tmp_path: Path) -> None:
    with Cluster(tmp_path, fronts=FRONTS, settings="forward = true") as cluster:
        cluster.start()
        everybody = ",".join(cluster.clients.values())
        ask_for_users(cluster.clients[1])
        made = As(cluster.clients[2], ANN)
        turns = cycle(cluster.clients.values())
        for number in range(6):
            # A token of one member's, at once and at every other; what v1 is passed on, too.
            elsewhere = As(next(turns))
            elsewhere.metadata = made.metadata
            assert elsewhere.refusal("Put", key=b"a/%d" % number, value=b"v") == ""
            assert elsewhere.refusal("Put", key=b"b", value=b"v") == DENIED
            elsewhere.close()
        for address in cluster.clients.values():
            with Client(address, timeout=30) as nobody, client_of(address, ANN) as ann:
                assert ann.get(b"a/1") == b"v"
                ann.put(b"a/1", b"v")
                with pytest.raises(UnauthenticatedError):
                    nobody.get(b"a/1")
                with pytest.raises(PermissionDeniedError):
                    ann.put(b"b", b"v")
        # Changes at all members side by side.
        roots = [As(address, ROOT) for address in cluster.clients.values()]
        changes = [
            root.begin("RoleAdd", name=f"r{n}") for n in range(64) for root in roots[n % 3 :]
        ]
        refused = sum(change.exception() is not None for change in changes)
        assert len(roots[0].call("RoleList").roles) == 2 + 64
        assert refused == len(changes) - 64  # there is such a role already
        for root in roots:
            root.close()
        # What one member acknowledged to root holds at all others at once.
        with client_of(everybody, ROOT) as root:
            for allowed in (False, True) * 3:
                if allowed:
                    root.auth.grant_permission("a", Access.READWRITE, prefix=b"a/")
                else:
                    root.auth.revoke_permission("a", prefix=b"a/")
                for address in cluster.clients.values():
                    one = As(address)
                    one.metadata = made.metadata
                    expected = "" if allowed else DENIED
                    assert one.refusal("Range", key=b"a/1") == expected
                    assert one.refusal("Put", key=b"a/1", value=b"v") == expected
                    one.close()
        leader = As(cluster.clients[1], ROOT).call("Status").leader
        cluster.kill(leader)
        with client_of(everybody, ANN) as ann:
            ann.put(b"a/1", b"w")
            with pytest.raises(PermissionDeniedError):
                ann.put(b"b", b"v")
        cluster.kill(*(member for member in cluster.members if member != leader))
        cluster.start()
        for address in cluster.clients.values():
            # A signed token needs nobody's memory.
            one = As(address)
            one.metadata = made.metadata
            assert one.call("Range", key=b"a/1").kvs[0].value == b"w"
            assert one.refusal("Range", key=b"b") == DENIED
            assert As(address).refusal("Range", key=b"a/1") == NOBODY
            one.close()
        made.close()
