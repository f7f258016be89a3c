"""The options that every kvctl command takes: where the server is and how to talk to it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from kvstore.addresses import DEFAULT_ADDRESS, SOCKET_NAME
from kvstore.errors import ConfigurationError

# The client takes longer to import than all else here: what needs none begins without.
if TYPE_CHECKING:
    from kvstore.client import TLS, AsyncClient, Client

OUTPUTS = ("text", "json", "jsonl", "table", "raw")

DEFAULT_TIMEOUT_S = 5.0

# A password on the command line could be read by everybody on the machine.
PASSWORD_VARIABLE = "KVCTL_PASSWORD"

DIRECTORY_VARIABLE = "KVCTL_DIR"

# The data directory of a member in the folder of 'kvctl cluster'.
MEMBER_DATA = "member-{}.data"

# Of a unix socket: 108 bytes with the zero at its end.
SOCKET_PATH_BYTES_MAX = 107

Command = TypeVar("Command", bound=Callable[..., Any])


class KeptClients:
    """Clients that are closed in the end, and not after each command."""

    def __init__(self) -> None:
        self._clients: dict[object, Client] = {}

    def take(self, make: partial[Client]) -> contextlib.AbstractContextManager[Client]:
        """The one that ``make`` made before, or makes now."""
        said = (make.args, tuple(make.keywords.items()))
        if said not in self._clients:
            self._clients[said] = make()
        return contextlib.nullcontext(self._clients[said])

    def close(self) -> None:
        """Close all."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()


@dataclass(slots=True)
class Settings:
    """What was asked for before or after the command's name; the later one wins."""

    address: str = DEFAULT_ADDRESS
    directory: Path | None = None
    """Whose sockets are asked in place of ``address``."""
    is_said: bool = False
    """Whether the command line, and not the environment, says which."""
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_server_name: str | None = None
    timeout: float = DEFAULT_TIMEOUT_S
    output: str = "text"
    user: str | None = None
    """With ``:`` and its password after it, as etcdctl has it, or without."""
    password_file: Path | None = None
    kept: KeptClients | None = None
    """Of a shell, whose commands share their connections."""

    @property
    def addr(self) -> str:
        """Where the servers are. Raises ConfigurationError: no kvd serves in the directory."""
        return self.address if self.directory is None else socket_addresses(self.directory)

    def connect(self, addr: str | None = None) -> contextlib.AbstractContextManager[Client]:
        """Return a client, of ``addr`` if given, for a ``with`` block.

        Raises ConfigurationError for an address or PEM file that is no good.
        """
        from kvstore.client import Client

        make = partial(Client, addr or self.addr, **self._said())
        return make() if self.kept is None else self.kept.take(make)

    def connect_async(self) -> AsyncClient:
        """The same for asyncio, to be closed by whoever calls."""
        from kvstore.client import AsyncClient

        return AsyncClient(self.addr, **self._said())

    def _said(self) -> dict[str, Any]:
        """What a client is told beside its addresses."""
        user, password = self._login()
        return {"tls": self.tls, "timeout": self.timeout, "user": user, "password": password}

    @property
    def tls(self) -> TLS | None:
        """What the options say of it. Raises ConfigurationError."""
        if self.tls_ca or self.tls_cert or self.tls_key or self.tls_server_name:
            from kvstore.client import TLS

            return TLS(self.tls_ca, self.tls_cert, self.tls_key, self.tls_server_name)
        return None

    def _login(self) -> tuple[str | None, str | None]:
        """The user, and its password: said with it, or from a file, the environment or the
        terminal, which is asked once."""
        if self.user is None:
            return None, None
        name, colon, password = self.user.partition(":")
        if not name:
            raise click.UsageError("--user names nobody")
        if not colon:
            password = self._password(name)
            self.user = f"{name}:{password}"
        return name, password

    def _password(self, user: str) -> str:
        if self.password_file is not None:
            return read_password_file(self.password_file)
        password = os.environ.get(PASSWORD_VARIABLE)
        if password is None:
            if not has_terminal():
                raise click.UsageError(
                    f"there is no terminal to ask for the password of {user} on: give it in "
                    f"{PASSWORD_VARIABLE}, or --password-file"
                )
            password = click.prompt(f"Password of {user}", hide_input=True, err=True)
        return str(password)


def has_terminal() -> bool:
    """One that a password can be asked for on, whatever standard input is."""
    if sys.stdin is not None and sys.stdin.isatty():
        return True
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def read_password_file(path: Path) -> str:
    """The password in a file, without the end of its line. Raises ConfigurationError."""
    try:
        return path.read_text("utf-8").rstrip("\n")
    except OSError as error:
        raise ConfigurationError(f"can't read {path}: {error.strerror}") from error


def _remember(context: click.Context, parameter: click.Parameter, value: object) -> None:
    if value is not None and parameter.name is not None:
        setattr(context.find_root().ensure_object(Settings), parameter.name, value)


def _shared(*names: str, **attributes: Any) -> Callable[[Command], Command]:
    return click.option(*names, expose_value=False, callback=_remember, **attributes)


def _remember_place(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """What --addr or --dir says: the later one wins, and either of them over the environment."""
    if value is None or parameter.name is None:
        return
    settings = context.find_root().ensure_object(Settings)
    source = context.get_parameter_source(parameter.name)
    if source is ParameterSource.COMMANDLINE:
        settings.is_said = True
        settings.directory = None
    elif settings.is_said:
        return
    if isinstance(value, Path):
        settings.directory = value
    else:
        settings.address = value


def socket_addresses(directory: Path) -> str:
    """The operators' socket in a data directory, or those of the members of a local cluster.

    Raises ConfigurationError where there is none.
    """
    own = directory.absolute() / SOCKET_NAME
    members = sorted(directory.absolute().glob(f"{MEMBER_DATA.format('*')}/{SOCKET_NAME}"))
    sockets = [path for path in (own, *members) if path.is_socket()]
    if not sockets:
        raise ConfigurationError(
            f"no kvd serves in {directory}: there is no {SOCKET_NAME}, neither there nor in the "
            f"folders {MEMBER_DATA.format('N')} of a 'kvctl cluster'"
        )
    return ",".join(map(_socket_address, sockets))


def _socket_address(path: Path) -> str:
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX:
        return f"unix:{path}"
    # Through a descriptor any directory's path is short. It stays open as long as kvctl runs.
    opened = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    return f"unix:/proc/self/fd/{opened}/{SOCKET_NAME}"


_DIRECTORY = click.option(
    "--dir",
    expose_value=False,
    callback=_remember_place,
    metavar="DATA_DIR",
    type=click.Path(path_type=Path),
    help="The kvd of this data directory, or the members of this 'kvctl cluster', over their "
    f"sockets, as an operator; in place of --addr. [env: {DIRECTORY_VARIABLE}]",
)

_OPTIONS = [
    click.option(
        "--addr",
        expose_value=False,
        callback=_remember_place,
        metavar="HOST:PORT[,...]|unix:PATH",
        help=f"Server, or several of one cluster. [env: KVCTL_ADDR; default: {DEFAULT_ADDRESS}]",
    ),
    _shared(
        "--tls-ca",
        metavar="FILE",
        help="Connect with TLS and trust the authorities in this PEM file. [env: KVCTL_TLS_CA]",
    ),
    _shared("--tls-cert", metavar="FILE", help="This client's certificate. [env: KVCTL_TLS_CERT]"),
    _shared("--tls-key", metavar="FILE", help="The key of --tls-cert. [env: KVCTL_TLS_KEY]"),
    _shared(
        "--tls-server-name",
        metavar="NAME",
        help="The name to expect in the server's certificate. [env: KVCTL_TLS_SERVER_NAME]",
    ),
    _shared(
        "--user",
        metavar="NAME[:PASSWORD]",
        help=f"A user of the store. Its password is in {PASSWORD_VARIABLE}, or asked for; here "
        "everybody on this machine can read it. [env: KVCTL_USER]",
    ),
    _shared(
        "--password-file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The password of --user, in place of the variable. [env: KVCTL_PASSWORD_FILE]",
    ),
    _shared(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        metavar="SECONDS",
        help="Give up after this long, retries included. [env: KVCTL_TIMEOUT; default: "
        f"{DEFAULT_TIMEOUT_S:g}]",
    ),
    _shared(
        "-o",
        "--output",
        type=click.Choice(OUTPUTS),
        help="How to print results: for people, as one JSON document, a JSON document a line, in "
        "columns, or as the bytes that they are. [env: KVCTL_OUTPUT; default: text]",
    ),
]


def connection_options(command: Command) -> Command:
    """Give a command the options of :class:`Settings`."""
    return output_options(_DIRECTORY(command))


def output_options(command: Command) -> Command:
    """The same without ``--dir``, for a command that has one of its own."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def _say_version(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    from kvstore.version import version  # reads the package's metadata, which takes a while

    click.echo(f"kvctl {version()}")
    context.exit()


def version_option(command: Command) -> Command:
    """Give a command ``--version``."""
    return click.option(
        "--version",
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=_say_version,
        help="Show the version and exit.",
    )(command)


def settings_of(context: click.Context) -> Settings:
    """Return what the options of this run said."""
    return context.find_root().ensure_object(Settings)
