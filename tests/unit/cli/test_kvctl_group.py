"""How kvctl's commands are found: by their names, by what people type, and not before used."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from kvstore.cli.commands import ALIASES, MEANT, SECTIONS
from kvstore.cli.files.snapshot import COMMANDS as SNAPSHOT
from kvstore.cli.interface.lazy import LazyCommand
from kvstore.cli.kvctl import kvctl

COMMANDS = {name: it for section in SECTIONS.values() for name, it in section.items()}
LAZY = [*COMMANDS.items(), *SNAPSHOT.items()]

METAVARS = frozenset(
    {
        "DATA_DIR",
        "DAYS",
        "DIR",
        "FILE",
        "HOST:PORT",
        "HOST:PORT[,...]",
        "HOST:PORT[,...]|unix:PATH",
        "ID",
        "KEY",
        "N",
        "NAME",
        "NAME[:PASSWORD]",
        "OLD=NEW",
        "SECONDS",
        "TEXT",
    }
)


def every_command(
    group: click.Group = kvctl, above: str = ""
) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield f"{above}{name}", command
        if isinstance(command, click.Group):
            yield from every_command(command, f"{above}{name} ")


@pytest.mark.parametrize(("name", "where"), LAZY)
def test_the_list_says_of_a_command_what_it_says_of_itself(name: str, where: LazyCommand) -> None:
    command = where.load()
    assert command.name == name
    assert command.short_help == where.short_help


def test_aliases_and_words_that_are_meant_are_no_commands_themselves() -> None:
    assert set(ALIASES.values()) <= set(COMMANDS)
    assert not {*ALIASES, *MEANT} & set(COMMANDS)
    assert not set(ALIASES) & set(MEANT)


@pytest.mark.parametrize(
    ("typed", "title"),
    [
        ("set", "kvctl put"),
        ("rm", "kvctl del"),
        ("delete", "kvctl del"),
        ("ls", "kvctl list"),
        ("keys", "kvctl list"),
        ("scan", "kvctl list"),
        ("lease keep_alive", "kvctl lease keep-alive"),
    ],
)
def test_what_people_type_is_understood(typed: str, title: str) -> None:
    shown = CliRunner().invoke(kvctl, [*typed.split(), "--help"], prog_name="kvctl")
    assert shown.exit_code == 0
    assert title in shown.stdout.splitlines()[0]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("gett", "Did you mean 'get'?"),
        ("lst", "Did you mean 'list'"),
        ("backup", "Did you mean 'snapshot save'?"),
        ("xyzzy", "No such command 'xyzzy'."),
    ],
)
def test_a_wrong_word_is_told_what_comes_nearest(typed: str, said: str) -> None:
    shown = CliRunner().invoke(kvctl, [typed])
    assert shown.exit_code == 2
    assert said in shown.stderr


def test_options_are_understood_with_underscores() -> None:
    shown = CliRunner().invoke(kvctl, ["get", "--keys_only", "--tls_ca=/nowhere", "--nope", "k"])
    assert shown.exit_code == 2
    assert "--nope" in shown.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(["get", "-5"], True), (["put", "k", "-x"], True), (["get", "--prefiks", "a"], False)],
)
def test_only_what_looks_like_data_is_told_of_two_dashes(arguments: list[str], told: bool) -> None:
    shown = CliRunner().invoke(kvctl, arguments)
    assert shown.exit_code == 2
    assert ("goes after --" in shown.stderr) is told


def test_an_option_has_hyphens_and_one_of_few_words_for_its_value() -> None:
    for name, command in every_command():
        for option in command.params:
            if not isinstance(option, click.Option):
                continue
            assert not any("_" in word for word in option.opts), (name, option.opts)
            if option.is_flag or option.count or isinstance(option.type, click.Choice):
                continue
            metavar = option.make_metavar(click.Context(command))
            assert metavar in METAVARS, (name, option.opts, metavar)
