"""The wheel: what is in it, and that it works with the oldest and newest of what it depends on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from kvstore.wire import available

# The extensions are compiled, beside other tests.
pytestmark = pytest.mark.timeout(1200)

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# Where the oldest version that we declare has no wheel for a newer Python, the oldest that has one.
FIRST_WITH_WHEELS = {
    (3, 13): {"grpcio": "1.66.2", "uvloop": "0.21.0"},
    (3, 14): {"grpcio": "1.75.1", "uvloop": "0.22.1"},
}

# Run by the venv's own interpreter, far from the sources: what a user would do first.
SCRIPT = """
import re, signal, subprocess, sys
from pathlib import Path

import kvstore

# Earlier than whoever runs this gives up: kvd is killed below, and not left behind.
signal.signal(signal.SIGALRM, lambda *_: sys.exit("too slow"))
signal.alarm(100)
here = Path(sys.argv[1])
kvd = subprocess.Popen(
    [
        Path(sys.executable).with_name("kvd"),
        "--listen_addr=127.0.0.1:0",
        f"--data_dir={here / 'data'}",
    ],
    stdout=subprocess.PIPE, text=True,
)
try:
    address = re.match(r"kvd listening on (\\S+) ", kvd.stdout.readline())[1]
    with kvstore.Client(address, timeout=30) as client:
        assert client.put(b"k", b"v") is False
        assert client.put(b"k", b"w") is True
        assert client.get(b"k") == b"w"
        assert client.delete(b"k") is True
        assert client.get(b"k") is None
    kvctl = [Path(sys.executable).with_name("kvctl"), f"--addr={address}", "--timeout=30"]
    assert subprocess.check_output([*kvctl, "put", "a", "b"]) == b"created\\n"
    assert subprocess.check_output([*kvctl, "get", "a"]) == b"b"
    from grpc_health.v1 import health_pb2, health_pb2_grpc
    import grpc
    with grpc.insecure_channel(address) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    import urllib.request
    with urllib.request.urlopen(f"http://{address}/version", timeout=30) as answer:
        assert answer.read().startswith(b'{"etcdserver":"3.')
    kvd.send_signal(signal.SIGTERM)
    assert kvd.wait(15) == 0
finally:
    kvd.kill()
with kvstore.open(here / "embedded") as db:
    db.put(b"k", b"v")
    assert db.get(b"k") == b"v"
print("works")
"""


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built once; not optimised, which takes the compiler most of its time."""
    into = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    # What once was in a package stays there, and would come into the wheel.
    for stale in (ROOT / "build").glob("lib.*"):
        shutil.rmtree(stale)
    bundled = {**os.environ, "KVSTORE_BUNDLE": "1", "KVSTORE_OPTIMIZE": "-O0"}
    subprocess.run([*build, "--wheel-dir", str(into), str(ROOT)], check=True, cwd=ROOT, env=bundled)
    (built,) = into.glob("kvstore_raft-*.whl")
    return built


def needed_by(extra: str) -> set[str]:
    """What an extra brings, with those that it stands on."""
    found = set()
    for requirement in PROJECT["optional-dependencies"][extra]:
        if own := re.fullmatch(rf"{PROJECT['name']}\[(.*)\]", requirement):
            found |= {line for name in own[1].split(",") for line in needed_by(name)}
        else:
            found.add(requirement)
    return found


def oldest() -> list[str]:
    """Return the declared minimum of each dependency of a server, as exact requirements."""
    replaced = FIRST_WITH_WHEELS.get(sys.version_info[:2], {})
    pins = []
    for requirement in sorted(needed_by("server")):
        name, minimum = requirement.split(">=")
        family = "grpcio" if name.startswith("grpcio") else name
        pins.append(f"{name}=={replaced.get(family, minimum)}")
    return pins


def newest() -> list[str]:
    """Return requirements that let pip take the newest of each dependency."""
    return []


class Place:
    """A fresh environment with the wheel in it."""

    def __init__(self, at: Path, wheel: Path, extras: str = "", *others: str) -> None:
        self.bin = at / "venv/bin"
        self.clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        venv.create(at / "venv", with_pip=True)
        pip = [self.bin / "python", "-m", "pip"]
        install = [
            *pip,
            "install",
            "--quiet",
            "--only-binary",
            ":all:",
            *others,
            f"{wheel}{extras}",
        ]
        subprocess.run(install, check=True, env=self.clean)
        subprocess.run([*pip, "check"], check=True, env=self.clean, capture_output=True)

    def run(self, *command: object) -> subprocess.CompletedProcess[str]:
        """One of its commands, away from the sources."""
        return subprocess.run(
            [self.bin / str(command[0]), *map(str, command[1:])],
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
            cwd=self.bin.parent,
            env=self.clean,
        )


@pytest.mark.parametrize("requirements", [oldest, newest])
def test_the_wheel_serves_with_the_dependencies_at_either_end(
    wheel: Path, requirements: Callable[[], list[str]], tmp_path: Path
) -> None:
    place = Place(tmp_path, wheel, "[server]", *requirements())
    ran = place.run("python", "-c", SCRIPT, tmp_path)
    assert ran.stdout == "works\n", ran.stderr


def test_the_library_needs_nothing_else(wheel: Path, tmp_path: Path) -> None:
    place = Place(tmp_path, wheel)
    listed = place.run("python", "-m", "pip", "list", "--format=freeze", "--exclude=pip").stdout
    beside = {line.partition("==")[0] for line in listed.splitlines()} - {"setuptools", "wheel"}
    assert beside == {PROJECT["name"]}

    ran = place.run("python", ROOT / "tools/wheel_works.py")
    assert ran.stdout == "works\n", ran.stderr
    for name in ("Client", "AsyncClient"):
        ran = place.run("python", "-c", f"import kvstore; kvstore.{name}")
        assert ran.stderr.splitlines()[-1] == (
            f"ModuleNotFoundError: kvstore.{name} needs the 'grpc' package: "
            "pip install 'kvstore-raft[client]'"
        )
    for command, extra in (("kvd", "server"), ("kvctl", "cli")):
        ran = place.run(command, "--help")
        assert (ran.returncode, ran.stdout) == (1, "")
        assert ran.stderr == (
            f"{command} needs the 'click' package: pip install 'kvstore-raft[{extra}]'\n"
        )


def test_the_wheel_holds_extensions_stubs_types_and_commands(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entry_points,) = (name for name in names if name.endswith("entry_points.txt"))
        commands = archive.read(entry_points).decode()
        (licence,) = (name for name in names if name.endswith("LICENSE"))
    sources = ROOT / "src"
    for extension in sources.glob("kvstore/_engine/*/native.pyx"):
        pattern = re.compile(rf"kvstore/_engine/{extension.parent.name}/{extension.stem}\.[^/]*so")
        assert any(pattern.fullmatch(name) for name in names), extension.stem
    # All but what is compiled: whatever else a package reads must be in it too.
    compiled = {".pyx", ".pxd", ".h", ".cpp"}
    for source in sources.glob("kvstore/**/*"):
        if source.is_file() and source.suffix not in (".so", ".pyc"):
            name = str(source.relative_to(sources))
            assert (name in names) is (source.suffix not in compiled), name
    assert "kvstore/py.typed" in names
    assert "kvstore/api/v1/kv_pb2.pyi" in names
    assert "kvd = kvstore.cli.entry:kvd" in commands
    assert "kvctl = kvstore.cli.entry:kvctl" in commands
    assert licence


@pytest.mark.skipif(not available(), reason="built without the native wire")
def test_the_wheel_brings_nghttp2_along(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
        assert "nghttp2" in archive.read("kvstore/_wire/copyright").decode()
    (library,) = tmp_path.glob("kvstore/_wire/libnghttp2.so.*")
    program = (
        "from kvstore._wire import native; "
        "print([line.split()[-1] for line in open('/proc/self/maps') if 'libnghttp2' in line][0])"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    ran = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, env=environment
    )
    assert ran.stdout.strip() == str(library)


def test_the_wheel_holds_no_tests_tools_or_build_leftovers(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        foreign = [
            name
            for name in archive.namelist()
            if not re.match(r"kvstore/|kvstore_raft-[^/]+\.dist-info/", name)
            or name.endswith(".cpp")
        ]
    assert foreign == []


def test_the_stubs_are_what_the_protos_say() -> None:
    subprocess.run([sys.executable, "tools/generate_stubs.py", "--check"], check=True, cwd=ROOT)


def test_importing_kvstore_alone_loads_neither_grpc_nor_protobuf() -> None:
    program = (
        "import sys, kvstore; "
        "print(sorted(m for m in sys.modules if m.split('.')[0] in ('grpc', 'google', 'uvloop')))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    printed = subprocess.check_output([sys.executable, "-c", program], env=environment, text=True)
    assert printed == "[]\n"
