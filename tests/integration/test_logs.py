"""What kvd says on standard error: levels, formats, and nothing where nothing is to say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.process import Kvd


def log_of(tmp_path: Path, *flags: str) -> list[str]:
    """Return the lines of a kvd that served and was stopped."""
    with Kvd(tmp_path / "data", *flags) as server:
        server.wait_serving()
        with server.client() as client:
            client.put(b"secret-key", b"secret-value")
        assert server.terminate() == 0
        return server.stderr.splitlines()


def test_json_lines_are_objects_with_time_level_and_event(tmp_path: Path) -> None:
    events = [json.loads(line) for line in log_of(tmp_path, "--log_format=json")]
    assert all(event["timestamp"].endswith("Z") for event in events)
    assert {event["level"] for event in events} == {"info"}
    named = {event["event"]: event for event in events}
    assert events[0]["event"] == "front"
    assert events[0]["name"] in ("native", "grpcio")
    assert events[-1]["event"] == "stopped"
    started = named["started"]
    assert started["mode"] == "embedded"
    assert started["address"].startswith("127.0.0.1:")
    assert isinstance(started["pid"], int)
    assert named["serving"]["leader"] in range(1, 6)


def test_console_lines_have_no_colours_in_a_file(tmp_path: Path) -> None:
    lines = log_of(tmp_path)
    assert any("[info" in line and "started" in line for line in lines)
    assert not any("\x1b" in line for line in lines)


@pytest.mark.parametrize("level", ["warning", "error"])
def test_a_healthy_run_says_nothing_above_info(tmp_path: Path, level: str) -> None:
    assert log_of(tmp_path, f"--log_level={level}") == []


def test_no_level_writes_keys_or_values_into_the_log(tmp_path: Path) -> None:
    assert "secret" not in "\n".join(log_of(tmp_path, "--log_level=debug"))
