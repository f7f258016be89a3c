"""Directories of the library's databases: whose one is, and how it is opened here."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click

from kvstore.cli.files.owners import is_data_directory, is_of_member
from kvstore.engine import DB
from kvstore.errors import (
    AlreadyOpenError,
    ConfigurationError,
    IntegrityCode,
    InvalidArgumentError,
    StorageError,
)

__all__ = ["opened", "path_option", "read", "refuse_members"]

Command = TypeVar("Command", bound=Callable[..., Any])


def path_option(command: Command) -> Command:
    """Give a command ``--path``."""
    return click.option(
        "--path",
        "directory",
        required=True,
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="The database's directory.",
    )(command)


def refuse_members(directory: Path) -> None:
    """What is kvd's isn't looked into, and nothing in it is changed. Raises ConfigurationError."""
    directory = directory.resolve()
    if is_data_directory(directory):
        raise ConfigurationError(
            f"{directory} is kvd's data directory: ask its kvd ('kvctl --dir {directory} list'), "
            "or check it with 'kvctl verify'"
        )
    if is_of_member(directory):
        raise ConfigurationError(
            f"{directory} is a member's of a kvd: ask its kvd, or check it with 'kvctl verify'"
        )


@contextlib.contextmanager
def read(directory: Path) -> Iterator[DB]:
    """The database, in which nothing is written meanwhile. Raises ConfigurationError."""
    refuse_members(directory)
    with (
        _told(directory),
        DB(directory, create_if_missing=False, read_only=True, background=False) as db,
    ):
        yield db


@contextlib.contextmanager
def opened(directory: Path, *, create: bool = False) -> Iterator[DB]:
    """The database, to be changed. Raises ConfigurationError."""
    refuse_members(directory)
    with _told(directory), DB(directory, create_if_missing=create) as db:
        yield db


@contextlib.contextmanager
def _told(directory: Path) -> Iterator[None]:
    try:
        yield
    except AlreadyOpenError as error:
        raise ConfigurationError(f"{directory} is in use: close it first") from error
    except InvalidArgumentError as error:
        if (directory / "CURRENT").exists():
            raise
        raise ConfigurationError(_nothing(directory)) from error
    except StorageError as error:
        if error.code is not IntegrityCode.INVALID_MAGIC or (directory / "CURRENT").exists():
            raise
        raise ConfigurationError(_nothing(directory)) from error


def _nothing(directory: Path) -> str:
    if directory.exists():
        return f"{directory} holds no kvstore database"
    return f"there is nothing at {directory}"
