"""kvctl shell: commands from standard input, and at a prompt, over one connection."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from prompt_toolkit.application import create_app_session
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput

from kvstore.cli import kvctl as command
from kvstore.cli.interface.connection import KeptClients, Settings
from kvstore.cli.shell import shell
from kvstore.cli.shell.words import Words
from kvstore.client import Client
from tests.integration.process import Kvd, environment, run


def scripted(kvd: Kvd, text: str) -> subprocess.CompletedProcess[bytes]:
    return run("kvctl", f"--addr={kvd.address}", "shell", stdin=text.encode())


def test_each_line_is_a_command(kvd: Kvd) -> None:
    done = scripted(
        kvd,
        "# a comment\n\nput 'a key' \"its value\"\nget 'a key' -o json\nget_ nothing\n"
        "get none\nls 'a k'\nexit\nput never done\n",
    )
    lines = done.stdout.decode().splitlines()
    assert lines[0] == "created"
    assert json.loads(lines[1])["value"] == "its value"
    assert lines[2:] == ["a key\tits value"]
    assert b"No such command" in done.stderr
    assert b"key not found: none" in done.stderr
    assert done.returncode == 0
    with kvd.client() as client:
        assert client.get(b"never") is None


def test_it_ends_with_the_status_of_the_last_command(kvd: Kvd) -> None:
    assert scripted(kvd, "get none\n").returncode == 3
    assert scripted(kvd, "get 'unclosed\n").returncode == 2
    assert scripted(kvd, "shell\n").returncode == 2
    assert scripted(kvd, "").returncode == 0


def test_commands_share_a_connection_and_no_options(
    kvd: Kvd, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Client] = []
    begin = Client.__init__

    def counted(client: Client, *arguments: object, **more: object) -> None:
        made.append(client)
        begin(client, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Client, "__init__", counted)
    done = scripted(kvd, "put k v -o json\nget k\nget k\nput k w\n--timeout 7 get k\n")
    assert done.returncode == 0, done.stderr
    assert len(made) == 2  # the last one has a time of its own
    assert done.stdout.endswith(b"vvoverwritten\nw")
    for client in made:
        with pytest.raises(Exception, match="closed"):
            client.get(b"k")


def test_help_is_at_hand(kvd: Kvd) -> None:
    done = scripted(kvd, "help\nhelp put\n? lease grant\n")
    assert done.stdout.count(b"Usage:") == 3
    assert b"kvctl lease grant" in done.stdout


@pytest.fixture
def keyboard() -> Iterator[PipeInput]:
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        yield keys


def test_a_prompt_has_history_that_nobody_else_may_read(
    kvd: Kvd,
    keyboard: PipeInput,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr("sys.stdin", Terminal())
    # A line that is given up by Ctrl-C, two commands, and Ctrl-D.
    keyboard.send_text("put half\x03put typed in\rincr times\r\x04")
    assert command.run(["--addr", kvd.address, "shell"]) == 0
    assert capsys.readouterr().out == "created\n1\n"
    history = tmp_path / "kvctl" / "history"
    assert "put typed in" in history.read_text()
    assert history.stat().st_mode & 0o777 == 0o600
    assert history.parent.stat().st_mode & 0o777 == 0o700


class Terminal:
    def isatty(self) -> bool:
        return True


def test_where_history_cannot_be_kept_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kvctl").write_text("a file")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert shell._history_file() is None


def test_words_and_keys_are_completed_at_the_prompt(kvd: Kvd) -> None:
    with kvd.client() as client:
        client.put(b"complete/one", b"")
        client.put(b"complete/two words", b"")
    kept = KeptClients()
    words = Words(command.kvctl, Settings(address=kvd.address, kept=kept))
    try:
        for text, expected in (
            ("sna", ["snapshot"]),
            ("lease gr", ["grant"]),
            ("get complete/", ["complete/one", "'complete/two words'"]),
            ("get 'complete/", []),
            ("get --hex complete/", []),
        ):
            found = words.get_completions(Document(text), CompleteEvent())
            assert [item.text for item in found] == expected, text
    finally:
        kept.close()


def test_a_shell_is_asked_for_keys_only_where_it_is_wanted(
    kvd: Kvd, monkeypatch: pytest.MonkeyPatch
) -> None:
    with kvd.client() as client:
        client.put(b"wanted/1", b"")
    settings = Settings(address=kvd.address)
    complete = ShellComplete(command.kvctl, {"obj": settings}, "kvctl", "")
    assert complete.get_completions(["get"], "wanted/") == []
    monkeypatch.setenv("KVCTL_COMPLETE_KEYS", "1")
    assert [item.value for item in complete.get_completions(["get"], "wanted/")] == ["wanted/1"]
    nobody = ShellComplete(command.kvctl, {"obj": Settings(address="127.0.0.1:1")}, "kvctl", "")
    assert nobody.get_completions(["get"], "wanted/") == []


def test_versions_of_both_sides_are_shown(kvd: Kvd) -> None:
    told = run("kvctl", f"--addr={kvd.address}", "version", "--server", "-o", "json")
    fields = json.loads(told.stdout)
    assert fields["server"] == fields["kvctl"]
    assert len(fields["members"]) == 5
    assert run("kvctl", "version", env=environment(PATH=os.environ["PATH"])).returncode == 0
