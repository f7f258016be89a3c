"""``KVCTL_…`` in the environment set options for a shell; what the command line says wins."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvstore.cli import kvctl
from tests.integration.scripted_server import ScriptedServer, value


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str, **variables: str) -> int:
    """The exit status of kvctl, in this process."""
    for name, text in variables.items():
        monkeypatch.setenv(f"KVCTL_{name}", text)
    return kvctl.run(arguments)


def test_address_timeout_and_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with ScriptedServer([value(True)] * 2) as server:
        variables = {"ADDR": server.address, "TIMEOUT": "200", "OUTPUT": "json"}
        assert call(monkeypatch, "get", "k", **variables) == 0
        assert capsys.readouterr().out.startswith("{")
        assert call(monkeypatch, "--timeout=20000", "--output=text", "get", "k") == 0
        assert capsys.readouterr().out == "value"
        first, second = server.deadlines_s
    # One try has half of the time.
    assert first < 210
    assert second > 5000


@pytest.mark.parametrize("name", ["TLS_CA", "TLS_CERT", "TLS_KEY"])
def test_certificates(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    name: str,
) -> None:
    missing = str(tmp_path / "missing.pem")
    # A certificate needs its key, and the other way round: one of the two is there.
    there = tmp_path / "there.pem"
    there.write_text("")
    other = {"TLS_CERT": {"TLS_KEY": str(there)}, "TLS_KEY": {"TLS_CERT": str(there)}}
    assert call(monkeypatch, "get", "k", **{name: missing}, **other.get(name, {})) == 1
    told = capsys.readouterr().err
    assert told.startswith("kvctl: failed to read TLS")
    assert "missing.pem" in told or "there.pem" in told
