"""What is said where a package is missing, and that pyproject.toml has the extra that is named."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from kvstore import extras

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_distribution_and_the_extras_are_those_of_the_project() -> None:
    assert PROJECT["name"] == extras.DISTRIBUTION
    assert set(extras._EXTRAS.values()) <= set(PROJECT["optional-dependencies"])


def test_all_brings_every_extra() -> None:
    (line,) = PROJECT["optional-dependencies"]["all"]
    named = set(line.partition("[")[2].rstrip("]").split(","))
    assert named == set(PROJECT["optional-dependencies"]) - {"all"}


def test_a_package_that_no_extra_brings_is_nobodys_to_explain() -> None:
    assert extras.missing_package("kvd", ModuleNotFoundError("x", name="tomllib")) is None


HIDING = """
import sys
sys.modules[sys.argv[1]] = None
from kvstore.cli import entry
sys.argv[1:] = sys.argv[2:]
getattr(entry, sys.argv.pop(1))()
"""


@pytest.mark.parametrize(
    ("command", "hidden", "extra"),
    [
        ("kvd --help", "structlog", "server"),
        ("kvd --help", "grpc", "server"),
        ("kvctl --help", "click", "cli"),
        ("kvctl get key", "grpc", "client"),
    ],
)
def test_a_command_without_its_packages_ends_with_one_line(
    command: str, hidden: str, extra: str
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", HIDING, hidden, *command.split()],
        check=False,
        capture_output=True,
        text=True,
    )
    line = (
        f"{command.split()[0]} needs the {hidden!r} package: pip install 'kvstore-raft[{extra}]'\n"
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", line)


def test_a_client_without_its_packages_says_which() -> None:
    program = (
        "import sys; sys.modules['grpc'] = None\nimport kvstore\n"
        "try:\n    kvstore.Client\nexcept ModuleNotFoundError as error:\n    print(error)"
    )
    printed = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert printed == (
        f"kvstore.Client needs the 'grpc' package: {extras.install_line('client')}\n"
    )


def test_without_the_clients_packages_the_library_offers_what_it_has() -> None:
    program = (
        "import sys; sys.modules['grpc'] = None\n"
        "import inspect, kvstore\n"
        "from kvstore import *\n"
        "inspect.getmembers(kvstore)\n"
        "print('Client' in dir(kvstore), 'TLS' in globals(), open is kvstore.open)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.stdout, ended.stderr) == ("False False True\n", "")
