"""``kvctl completion``."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from kvstore.cli.interface.output import write_line

__all__ = ["completion_command"]

# Where click looks for what the shell asks.
VARIABLE = "_KVCTL_COMPLETE"


@click.command("completion", short_help="print what completes words in a shell")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion_command(context: click.Context, shell: str) -> None:
    """Print a script that has SHELL complete kvctl's commands and options.

    With KVCTL_COMPLETE_KEYS=1 in the environment keys are completed as well: the server of
    KVCTL_ADDR, or of what was typed before, is asked for them at each press of the key.

    \b
    Examples:
      eval "$(kvctl completion bash)"                      in ~/.bashrc
      kvctl completion zsh > ~/.zfunc/_kvctl               fpath has ~/.zfunc
      kvctl completion fish > ~/.config/fish/completions/kvctl.fish
    """
    source = get_completion_class(shell)
    assert source is not None, "click knows the shells that are chosen from"
    # Bash of macOS is too old for click's script, which says so by itself when it is asked.
    write_line(source(context.find_root().command, {}, "kvctl", VARIABLE).source())
