"""What is completed in shells: commands, options and choices, without loading all commands."""

from __future__ import annotations

import subprocess
import sys

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from kvstore.cli.kvctl import kvctl
from tests.integration.process import environment


def completed(*words: str) -> list[str]:
    complete = ShellComplete(kvctl, {}, "kvctl", "_KVCTL_COMPLETE")
    return [item.value for item in complete.get_completions([*words[:-1]], words[-1])]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("ge",), ["get"]),
        (("lease", "rev"), ["revoke"]),
        (("get", "--keys"), ["--keys-only"]),
        (("get", "-o", "json"), ["json", "jsonl"]),
        (("completion", "z"), ["zsh"]),
        (("get", "some"), []),
    ],
)
def test_words_are_completed(words: tuple[str, ...], expected: list[str]) -> None:
    found = completed(*words)
    assert found[: len(expected)] == expected
    if not expected:
        assert "get" not in found[1:]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script_of_its_own(shell: str) -> None:
    done = CliRunner().invoke(kvctl, ["completion", shell])
    assert done.exit_code == 0
    assert f"_KVCTL_COMPLETE={shell}_complete" in done.stdout


def test_another_shell_is_refused() -> None:
    assert CliRunner().invoke(kvctl, ["completion", "csh"]).exit_code == 2


def test_bash_gets_its_answer_and_nothing_is_loaded_for_it() -> None:
    asked = environment(_KVCTL_COMPLETE="bash_complete", COMP_WORDS="kvctl sna", COMP_CWORD="1")
    program = (
        "import sys, atexit; from kvstore.cli import kvctl; "
        "atexit.register(lambda: print('client:', 'kvstore.client' in sys.modules)); "
        "sys.exit(kvctl.run([]))"
    )
    said = subprocess.run(
        [sys.executable, "-c", program], env=asked, capture_output=True, text=True, check=True
    )
    assert said.stdout == "plain,snapshot\nclient: False\n"
