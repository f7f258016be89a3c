"""The files of deploy/ say what kvd understands, and what they say works.

A container engine, Kubernetes and systemd are not here; what those files make kvd do is.
"""

from __future__ import annotations

import configparser
import contextlib
import json
import os
import re
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
import yaml

from kvstore.cli.kvd import kvd as kvd_command
from kvstore.server.config.cluster_config import load_cluster_config
from kvstore.server.supervisor import notify
from kvstore.wire import available
from tests.integration.cluster import SecureCluster
from tests.integration.gateway import ask, connect, wait_ready
from tests.integration.process import Kvd, run

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
FLAGS = {option for parameter in kvd_command.params for option in parameter.opts}


def flags_of(arguments: list[str]) -> set[str]:
    return {argument.partition("=")[0] for argument in arguments if argument.startswith("--")}


def kubernetes() -> dict[tuple[str, str], Any]:
    documents = yaml.safe_load_all((DEPLOY / "kubernetes" / "kvstore.yaml").read_text())
    return {(one["kind"], one["metadata"]["name"]): one for one in documents}


def container() -> dict[str, Any]:
    (found,) = kubernetes()["StatefulSet", "kvstore"]["spec"]["template"]["spec"]["containers"]
    return found


def unit() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(DEPLOY / "systemd" / "kvd.service")
    return parser["Service"]


def image() -> dict[str, str]:
    """The last of each instruction."""
    text = (DEPLOY / "container" / "Containerfile").read_text().replace("\\\n", " ")
    return dict(line.split(maxsplit=1) for line in text.splitlines() if re.match("[A-Z]+ ", line))


def test_every_flag_and_variable_exists() -> None:
    arguments = [
        *unit()["ExecStart"].split()[1:],
        *json.loads(image()["CMD"]),
        *container()["args"],
    ]
    assert flags_of(arguments) <= FLAGS
    variables = {
        *re.findall(r"KVD_[A-Z_]+", unit()["Environment"]),
        *re.findall(r"KVD_[A-Z_]+", image()["ENV"]),
        *(one["name"] for one in container()["env"]),
    }
    assert {"--" + name.removeprefix("KVD_").lower() for name in variables} <= FLAGS


def test_the_cluster_of_kubernetes_is_a_good_one(tmp_path: Path) -> None:
    objects = kubernetes()
    stateful = objects["StatefulSet", "kvstore"]["spec"]
    file = tmp_path / "kvd.toml"
    file.write_text(objects["ConfigMap", "kvstore"]["data"]["kvd.toml"])
    arguments = [argument.replace("$(KVD_SELF_ID)", "2") for argument in container()["args"]]
    given = dict(argument.removeprefix("--").split("=", 1) for argument in arguments)
    del given["mode"], given["config"]
    config = load_cluster_config(str(file), {"self_id": "2", **given})
    first = stateful["ordinals"]["start"]
    assert [node.node_id for node in config.nodes] == list(
        range(first, first + stateful["replicas"])
    )
    members = objects["Service", stateful["serviceName"]]["spec"]
    assert members["publishNotReadyAddresses"]
    ports = {f":{port['port']}" for port in members["ports"]}
    for node in config.nodes:
        host = f"kvstore-{node.node_id}.{stateful['serviceName']}.default.svc"
        assert node.client_addr.removeprefix(host) in ports
        assert node.peer_addr.removeprefix(host) in ports
    assert config.peer_tls is not None
    mounts = {mount["mountPath"] for mount in container()["volumeMounts"]}
    for path in (config.data_dir, config.peer_tls.cert, config.tls_cert or ""):
        assert any(path.startswith(mount + "/") for mount in mounts)


@pytest.mark.skipif(not available(), reason="the native front alone has HTTP/1.1")
def test_a_cluster_serves_with_the_certificates_and_probes_of_kubernetes(tmp_path: Path) -> None:
    """The commands at the head of the file, its keys and its probes, on loopback."""
    pki = tmp_path / "pki"
    with SecureCluster(tmp_path, 3, settings="forward = true", mutual_tls=True) as cluster:
        cluster.start()
        # As Kubernetes asks: without looking at the certificate.
        trust = ssl.create_default_context(cafile=str(pki / "ca.pem"))
        trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
        trust.set_alpn_protocols(["h2", "http/1.1"])
        for name in ("readinessProbe", "livenessProbe"):
            probe = container()[name]["httpGet"]
            assert (probe["port"], probe["scheme"]) == ("clients", "HTTPS")
            for member in cluster.members:
                with contextlib.closing(connect(cluster.clients[member], trust)) as connection:
                    wait_ready(connection)
                    assert ask(connection, "GET", probe["path"]).status == 200


def test_the_image_serves_and_its_health_check_sees_it(tmp_path: Path) -> None:
    assert json.loads(image()["ENTRYPOINT"]) == ["kvd"]
    arguments = [one for one in json.loads(image()["CMD"]) if "--listen_addr" not in one]
    health = json.loads(image()["HEALTHCHECK"].partition("CMD ")[2])
    assert health[0] == "kvctl"
    with Kvd(tmp_path / "data", *arguments, env={"KVD_LOG_FORMAT": "json"}) as kvd:
        kvd.wait_serving()
        checks = [one.replace("127.0.0.1:50051", kvd.address) for one in health[1:]]
        assert run("kvctl", *checks).returncode == 0
        kvd.kill()
        assert run("kvctl", *checks).returncode != 0


def test_systemd_is_told_of_readiness_and_of_the_stop(tmp_path: Path) -> None:
    assert unit()["Type"] == "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(tmp_path / "notify"))
        supervisor.settimeout(30)
        env = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        with Kvd(tmp_path / "data", env=env) as kvd:
            assert supervisor.recv(100) == b"READY=1"
            assert kvd.terminate() == 0
        assert supervisor.recv(100) == b"STOPPING=1"


def test_a_supervisor_that_is_gone_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "NOTIFY_SOCKET", str(tmp_path / "nobody"))
    notify("READY=1")


def test_systemd_does_not_start_again_what_can_not_start(tmp_path: Path) -> None:
    prevented = {int(status) for status in unit()["RestartPreventExitStatus"].split()}
    assert run("kvd", f"--data_dir={tmp_path}", "--listen_addr=nonsense").returncode in prevented
    assert run("kvd", "--no_such_flag").returncode in prevented
    assert 5 not in prevented
