"""The files of deploy/ say what kvd understands, and what they say works.

A container engine, Kubernetes and systemd are not here; what those files make kvd do is.
"""

from __future__ import annotations

import configparser
import contextlib
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from kvstore.cli.kvd import kvd as kvd_command
from kvstore.server.config.cluster_config import load_cluster_config
from kvstore.server.supervisor import notify
from tests.integration.cluster import SecureCluster, free_addresses
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


def unit(name: str = "kvd") -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(DEPLOY / "systemd" / f"{name}.service")
    return parser["Service"]


def image() -> dict[str, str]:
    """The last of each instruction."""
    text = (DEPLOY / "container" / "Containerfile").read_text().replace("\\\n", " ")
    return dict(line.split(maxsplit=1) for line in text.splitlines() if re.match("[A-Z]+ ", line))


def test_every_flag_and_variable_exists() -> None:
    arguments = [
        *json.loads(image()["CMD"]),
        *container()["args"],
    ]
    assert flags_of(arguments) <= FLAGS
    variables = {
        *unit_environment(),
        *unit_environment("kvd-rados"),
        *re.findall(r"KVD_[A-Z_]+", image()["ENV"]),
        *(one["name"] for one in container()["env"] if one["name"].startswith("KVD_")),
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


def environment_of(one: dict[str, Any]) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in one["env"] if "value" in variable}


def in_shell(script: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """What a pod's shell does, where kvctl is."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.run(
        ["sh", "-euc", script],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PATH": path, **env},
    )


def leads(cluster: Pods, member: int) -> bool:
    said = run("kvctl", f"--dir={cluster.data(member)}", "status", "--output=json")
    return bool(said.returncode == 0 and json.loads(said.stdout)["leader_id"] == member)


def leader_of(cluster: Pods) -> int:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        for member in cluster.members:
            if leads(cluster, member):
                return member
    raise AssertionError("nobody leads")


def probe(address: str, path: str) -> int:
    with contextlib.closing(http.client.HTTPConnection(address, timeout=30)) as connection:
        connection.request("GET", path)
        return connection.getresponse().status


class Pods(SecureCluster):
    """Members that ask clients for certificates: whether they serve is asked by their probes."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, 3, settings="forward = true", mutual_tls=True)
        self.metrics = dict(zip(self.members, free_addresses(3), strict=True))
        pki = directory / "pki"
        for member in self.members:
            settings = f'tls_client_ca = "{pki}/ca.pem"\nmetrics_address = "{self.metrics[member]}"'
            self.write_config(member, settings=settings)

    def start(self, *members: int) -> None:
        with ThreadPoolExecutor(len(self.members)) as pool:
            started = pool.map(self._start, self.members)
            self.running = dict(zip(self.members, started, strict=True))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pods]:
    """As the commands and arguments of the file would make it, on loopback."""
    directory = tmp_path_factory.mktemp("kubernetes")
    with Pods(directory) as cluster:
        for client in (["--client=backup", "--operator"], ["--client=app"]):
            issued = run("kvctl", "pki", "issue", f"--dir={directory / 'pki'}", *client)
            assert issued.returncode == 0
        cluster.start()
        yield cluster


def test_the_probes_of_kubernetes_see_a_member_that_serves(cluster: Pods) -> None:
    ports = {one["name"]: one["containerPort"] for one in container()["ports"]}
    assert f"--metrics_addr=0.0.0.0:{ports['metrics']}" in container()["args"]
    leader_of(cluster)
    for member in cluster.members:
        for name in ("readinessProbe", "livenessProbe"):
            asked = container()[name]["httpGet"]
            assert (asked["port"], asked.get("scheme", "HTTP")) == ("metrics", "HTTP")
            until = time.monotonic() + 60
            while (status := probe(cluster.metrics[member], asked["path"])) != 200:
                assert time.monotonic() < until, status
                time.sleep(0.1)


def test_who_leads_hands_over_before_it_stops_and_others_leave_the_leader_alone(
    cluster: Pods,
) -> None:
    command = container()["lifecycle"]["preStop"]["exec"]["command"]
    assert command[:2] == ["sh", "-c"]
    script = "set +e; " + command[2].replace("sleep 3", "true")
    leader = leader_of(cluster)
    for member in (*(one for one in cluster.members if one != leader), leader):
        env = {"KVCTL_DIR": str(cluster.data(member)), "KVD_SELF_ID": str(member)}
        done = in_shell(script, env)
        assert done.returncode == 0, done.stderr
        assert ("leads" in done.stdout) is (member == leader), done.stdout
    assert leader_of(cluster) != leader


def test_the_backup_job_saves_and_keeps_seven(cluster: Pods, tmp_path: Path) -> None:
    job = kubernetes()["CronJob", "kvstore-backup"]["spec"]["jobTemplate"]["spec"]["template"]
    (one,) = job["spec"]["containers"]
    assert one["command"] == ["sh", "-euc"]
    env = environment_of(one)
    address = ",".join(cluster.clients.values())
    assert (
        env["ADDRESS"].partition(".")[0] == kubernetes()["Service", "kvstore"]["metadata"]["name"]
    )
    files = {
        "ca.pem": "ca.pem",
        "client.pem": "client-backup.pem",
        "client.key": "client-backup.key",
    }
    for name, value in env.items():
        if value.startswith("/etc/kvstore-client/"):
            env[name] = str(cluster.directory / "pki" / files[Path(value).name])
    for number in range(9):
        old = tmp_path / f"2026010{number}.kvs"
        old.touch()
        os.utime(old, (number, number))
    script = one["args"][0].replace("/backups", str(tmp_path))
    done = in_shell(script, {**env, "ADDRESS": address})
    assert done.returncode == 0, done.stderr
    assert "whole" in done.stdout
    kept = sorted(tmp_path.glob("*.kvs"), key=lambda file: file.stat().st_mtime)
    assert len(kept) == 7
    assert kept[-1].stat().st_size > 0
    assert kept[0].name == "20260103.kvs"


@pytest.mark.parametrize("version", ["1.31", ""])
def test_kubernetes_knows_all_that_the_file_says(version: str) -> None:
    versions = {"version": version} if version else {}
    for (kind, _), one in kubernetes().items():
        assert kind != "List"
        kubernetes_validate.validate(
            one, versions.get("version", kubernetes_validate.latest_version()), strict=True
        )


def test_ports_labels_images_and_claims_of_kubernetes_agree() -> None:
    objects = kubernetes()
    template = objects["StatefulSet", "kvstore"]["spec"]["template"]
    labels = template["metadata"]["labels"]
    ports = {one["name"]: one["containerPort"] for one in container()["ports"]}
    project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"]
    job = objects["CronJob", "kvstore-backup"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    for one in (container(), *job["containers"]):
        assert one["image"] == f"kvstore:{project['version']}"
    policy = objects["NetworkPolicy", "kvstore"]["spec"]
    assert policy["podSelector"]["matchLabels"] == labels
    allowed = {
        port["port"]: rule.get("from") for rule in policy["ingress"] for port in rule["ports"]
    }
    assert set(allowed) == set(ports.values())
    assert allowed[ports["clients"]] is None
    assert allowed[ports["members"]] == [{"podSelector": {"matchLabels": labels}}]
    assert allowed[ports["metrics"]] is not None
    monitor = yaml.safe_load((DEPLOY / "kubernetes/podmonitor.yaml").read_text())["spec"]
    assert monitor["selector"]["matchLabels"] == labels
    assert [one["port"] for one in monitor["podMetricsEndpoints"]] == ["metrics"]
    assert monitor["jobLabel"] in labels
    claims = [
        one["persistentVolumeClaim"]["claimName"]
        for one in job["volumes"]
        if "persistentVolumeClaim" in one
    ]
    assert all(("PersistentVolumeClaim", claim) in objects for claim in claims)
    for spec in (template["spec"], job):
        assert spec["automountServiceAccountToken"] is False


def test_the_image_serves_and_its_health_check_sees_it(tmp_path: Path) -> None:
    assert json.loads(image()["ENTRYPOINT"]) == ["kvd"]
    arguments = [one for one in json.loads(image()["CMD"]) if "--listen_addr" not in one]
    health = json.loads(image()["HEALTHCHECK"].partition("CMD ")[2])
    assert health[0] == "kvctl"
    with Kvd(tmp_path / "data", *arguments, env={"KVD_LOG_FORMAT": "json"}) as kvd:
        kvd.wait_serving()
        where = dict(re.findall(r"(\w+)=(\S+)", image()["ENV"]))
        assert where["KVCTL_DIR"] == where["KVD_DATA_DIR"]
        place = {"KVCTL_DIR": str(tmp_path / "data")}
        assert run("kvctl", *health[1:], env=place).returncode == 0
        kvd.kill()
        assert run("kvctl", *health[1:], env=place).returncode != 0


def test_the_health_check_of_the_image_works_under_tls(cluster: Pods) -> None:
    health = json.loads(image()["HEALTHCHECK"].partition("CMD ")[2])
    leader_of(cluster)
    for member in cluster.members:
        done = in_shell("kvctl " + " ".join(health[1:]), {"KVCTL_DIR": str(cluster.data(member))})
        assert done.returncode == 0, done.stderr


def unit_environment(name: str = "kvd") -> dict[str, str]:
    """What the unit sets; the last of a name counts."""
    text = (DEPLOY / "systemd" / f"{name}.service").read_text()
    lines = re.findall(r"^Environment=(.*)$", text, re.MULTILINE)
    return dict(pair.split("=", 1) for line in lines for pair in line.split())


def test_the_unit_runs_what_kvd_env_says(tmp_path: Path) -> None:
    """A member of kvd.toml's cluster, unless the file of variables says otherwise."""
    assert unit()["ExecStart"].split()[1:] == []  # flags would win over it
    said = unit_environment()
    assert (said["KVD_MODE"], said["KVD_CONFIG"]) == ("cluster-node", "/etc/kvstore/kvd.toml")
    env = {**said, "KVD_CONFIG": str(tmp_path / "none.toml")}
    refused = run("kvd", env=env)
    assert refused.returncode == 1
    assert b"none.toml" in refused.stderr
    with Kvd(tmp_path / "data", env={**said, "KVD_MODE": "embedded", "KVD_CONFIG": ""}) as kvd:
        kvd.wait_serving()


def test_the_unit_of_a_gateway_runs_what_its_file_says(tmp_path: Path) -> None:
    """What is missing of the machine is said, and nothing else is wrong."""
    assert unit("kvd-rados")["ExecStart"].split()[1:] == []
    said = unit_environment("kvd-rados")
    assert (said["KVD_MODE"], said["KVD_CONFIG"]) == ("rados", "/etc/kvstore/gateway.toml")
    file = tmp_path / "gateway.toml"
    file.write_text(f'pool = "kv"\nceph_conf = "{tmp_path}/none.conf"\n')
    refused = run("kvd", env={**said, "KVD_CONFIG": str(file)})
    assert refused.returncode == 1
    (line,) = refused.stderr.decode().splitlines()
    assert "librados" in line or "none.conf" in line


def test_units_differ_in_what_they_run_alone() -> None:
    member, gateway = unit(), unit("kvd-rados")
    own = {"Environment", "EnvironmentFile", "StateDirectory", "StateDirectoryMode"}
    assert {*member, *gateway} - own - {"OOMScoreAdjust"} == {*gateway} - own
    for key in {*gateway} - own:
        assert gateway[key] == member[key], key


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
