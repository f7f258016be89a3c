"""From a configuration to a pool that is ours, or a clear word why not."""

from __future__ import annotations

import errno
import os
import select
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from kvstore._rados import native
from kvstore.beyond.rados.failing import NO_ROOM, is_full
from kvstore.beyond.rados.layout import (
    MARKER_KEY,
    MARKER_NAME,
    Marker,
    decode_marker,
    encode_marker,
)
from kvstore.beyond.rados.objects import ABSENT, CONFLICTS
from kvstore.errors import (
    ConfigurationError,
    CorruptionError,
    Error,
    NoSpaceError,
    UnavailableError,
)
from kvstore.small_files import read_small

__all__ = ["LIBRARY", "OpenPool", "PoolAddress", "find_pool", "open_pool"]

LIBRARY = "librados.so.2"
PACKAGE = "librados2"
"""Of Debian and of Red Hat."""

CONNECT_S = 15
"""For the monitors to answer."""
ANSWER_S = 15.0
"""For the pool to answer what is asked at the start."""

LISTED = 1024
"""Objects that a placement group looks at for one answer: most may be of other namespaces."""

OPTIONS = {
    "client_mount_timeout": str(CONNECT_S),
    "rados_mon_op_timeout": str(CONNECT_S),
    # The service bounds what is under way; by its own bounds the library would make callers wait.
    "objecter_inflight_ops": "0",
    "objecter_inflight_op_bytes": "0",
    # Nothing of the library's goes to our standard error; what matters comes as an error.
    "log_to_stderr": "false",
    "err_to_stderr": "false",
    "log_file": "",
    "admin_socket": "",
}

log = structlog.get_logger("kvstore.rados")


@dataclass(frozen=True, slots=True)
class PoolAddress:
    """Where keys lie. ``ceph_conf``: file with the monitors' addresses; ``user``: without
    ``client.``; ``keyring``: file of its key, None where the cluster wants none, or ``ceph_conf``
    says where it is."""

    ceph_conf: str
    user: str
    keyring: str | None
    pool: str
    namespace: str


@dataclass(frozen=True, slots=True)
class OpenPool:
    """A namespace that is one of ours. ``fsid``: of the cluster; ``made``: just now, by us."""

    objects: native.Pool
    marker: Marker
    fsid: str
    made: bool


Unmarked = Callable[[native.Pool, PoolAddress, str], Marker | None]
"""What becomes of a namespace without a marker: it is made, or None: look again."""


def open_pool(address: PoolAddress) -> OpenPool:
    """Connect, and find or make the marker. Waits: on a thread of its own.

    Raises ConfigurationError for what an operator has to mend, UnavailableError for a cluster that
    doesn't answer, NoSpaceError for one without room for a marker, and CorruptionError for a marker
    that is damaged.
    """
    return _opened(address, _made_marker)


def find_pool(address: PoolAddress) -> OpenPool:
    """The same of a namespace that is a store already: nothing is written.

    Raises ConfigurationError where there is none, too.
    """
    return _opened(address, _no_marker)


def _opened(address: PoolAddress, unmarked: Unmarked) -> OpenPool:
    find_librados()
    check_readable(address)
    objects = _client(address, OPTIONS)
    try:
        marker, made = _marker(objects, address, unmarked)
    except Error:
        objects.close()
        raise
    return OpenPool(objects, marker, objects.fsid(), made)


def _client(address: PoolAddress, options: Mapping[str, str]) -> native.Pool:
    """One that has opened the pool."""
    try:
        objects = native.Pool(f"client.{address.user}")
    except OSError as error:
        raise ConfigurationError(f"no client of RADOS can be made: {error}") from error
    try:
        _configure(objects, address, options)
        _connect(objects, address)
    except Error:
        objects.close()
        raise
    return objects


def find_librados() -> None:
    """Raises ConfigurationError where it isn't installed."""
    try:
        native.load(LIBRARY)
    except OSError as error:
        raise ConfigurationError(
            f"a pool of RADOS needs librados (Debian's and Red Hat's package {PACKAGE}): {error}"
        ) from error


def check_readable(address: PoolAddress) -> None:
    """Raises ConfigurationError for a file that can't be read."""
    for key, file in (("ceph_conf", address.ceph_conf), ("keyring", address.keyring)):
        if file is not None:
            try:
                read_small(file)
            except OSError as error:
                raise ConfigurationError(
                    f"failed to read {key} = {file}: {error.strerror or error}"
                ) from error


def _configure(objects: native.Pool, address: PoolAddress, options: Mapping[str, str]) -> None:
    try:
        objects.read_configuration(address.ceph_conf)
    except OSError as error:
        raise ConfigurationError(
            f"ceph_conf = {address.ceph_conf} is no configuration of Ceph's: "
            f"{os.strerror(error.errno or 0)}"
        ) from error
    for option, value in options.items():
        objects.set_option(option, value)
    if address.keyring is not None:
        objects.set_option("keyring", address.keyring)


def _connect(objects: native.Pool, address: PoolAddress) -> None:
    user = f"client.{address.user}"
    began = time.monotonic()
    try:
        objects.connect()
    except OSError as error:
        match error.errno:
            case errno.EACCES | errno.EPERM | errno.EKEYREJECTED:
                words = f"the monitors refuse {user}: no such user, or its keyring has another key"
                raise ConfigurationError(words) from error
            case errno.ENOENT if not objects.option("mon_host"):
                words = f"{address.ceph_conf} names no monitor (mon host), and DNS none either"
                raise ConfigurationError(words) from error
            case errno.ENOENT:
                words = f"no key of {user} was found; give its file as keyring"
                raise ConfigurationError(words) from error
            case errno.EINVAL:
                words = f"{address.ceph_conf} or the key of {user} can't be used"
                raise ConfigurationError(words) from error
            case _:
                hosts = objects.option("mon_host") or "none are given"
                passed_s = time.monotonic() - began
                raise UnavailableError(
                    f"no monitor answered {user} in {passed_s:.0f} s (mon host: {hosts}): "
                    f"{os.strerror(error.errno or 0)}"
                ) from error
    try:
        objects.open(address.pool, address.namespace)
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise ConfigurationError(
                f"there is no pool {address.pool!r}; 'ceph osd pool create' makes one"
            ) from error
        raise UnavailableError(
            f"pool {address.pool!r} can't be opened: {os.strerror(error.errno or 0)}"
        ) from error


def _marker(objects: native.Pool, address: PoolAddress, unmarked: Unmarked) -> tuple[Marker, bool]:
    """The namespace's marker, and whether it was made here and now."""
    where = f"pool {address.pool!r}, namespace {address.namespace!r}"
    for _ in range(2):
        found = _wait(objects, objects.read_pairs(MARKER_NAME, [MARKER_KEY]), where)
        if found.code == 0:
            try:
                return decode_marker((found.pairs or {}).get(MARKER_KEY, b"")), False
            except ConfigurationError as error:
                raise ConfigurationError(f"{where} is not for this kvstore: {error}") from error
            except CorruptionError as error:
                raise CorruptionError(f"{where}: {error}", code=error.code) from error
        if found.code != -errno.ENOENT:
            raise _refused(found.code, address, where)
        marker = unmarked(objects, address, where)
        if marker is not None:
            return marker, True
        # Another gateway was there first.
    raise UnavailableError(f"{where}: its marker comes and goes")


def _made_marker(objects: native.Pool, address: PoolAddress, where: str) -> Marker | None:
    """Of a namespace that is empty; None if another one has made it."""
    if not _is_empty(address, where):
        if _wait(objects, objects.read_pairs(MARKER_NAME, [MARKER_KEY]), where).code == 0:
            return None  # of another gateway, which was there in between
        raise ConfigurationError(
            f"{where} holds objects and no marker of kvstore's: they are somebody else's; give "
            "a namespace that is empty"
        )
    marker = Marker(os.urandom(16), os.urandom(16))
    pairs = {MARKER_KEY: encode_marker(marker)}
    made = _wait(objects, objects.write(MARKER_NAME, ABSENT, pairs, None, None, None), where)
    if made.code not in (0, *CONFLICTS):
        raise _refused(made.code, address, where)
    return None if made.code else marker


def _no_marker(objects: native.Pool, address: PoolAddress, where: str) -> Marker | None:
    raise ConfigurationError(f"{where} holds no store of kvstore's")


def _is_empty(address: PoolAddress, where: str) -> bool:
    """Whether there are no objects in the namespace. Raises UnavailableError.

    All placement groups are asked, in which objects of other namespaces lie as well: as long as it
    takes, but no answer may take longer than :data:`ANSWER_S`. Only librados can end a listing, and
    by an option for all that a client does: so it is another client's.
    """
    log.info("first start", pool=address.pool, namespace=address.namespace)
    asking = _client(address, {**OPTIONS, "rados_osd_op_timeout": f"{ANSWER_S:.0f}"})
    try:
        return not native.Listing(asking).names(LISTED)
    except OSError as error:
        if error.errno == errno.ETIMEDOUT:
            raise UnavailableError(_silent(where)) from error
        raise UnavailableError(f"{where}: {os.strerror(error.errno or 0)}") from error
    finally:
        asking.close()


def _silent(where: str) -> str:
    return f"{where} did not answer in {ANSWER_S:.0f} s: its placement groups may be inactive"


def _refused(code: int, address: PoolAddress, where: str) -> Error:
    if code in (-errno.EPERM, -errno.EACCES):
        return ConfigurationError(
            f"client.{address.user} may not read and write {where}: give it the capability "
            f"'osd \"allow rw pool={address.pool}\"'"
        )
    if is_full(code):
        return NoSpaceError(f"{where}: {NO_ROOM}")
    if code == -errno.EOPNOTSUPP:
        return ConfigurationError(
            f"{where} takes no omap, as erasure-coded pools don't: it has to be a replicated pool"
        )
    return UnavailableError(f"{where}: {os.strerror(-code)}")


def _wait(objects: native.Pool, operation: native.Operation, where: str) -> native.Operation:
    """Until it is finished. Raises UnavailableError if it isn't in time."""
    ready = select.poll()
    ready.register(objects.fileno(), select.POLLIN)
    until = time.monotonic() + ANSWER_S
    while not operation.finished:
        left = until - time.monotonic()
        if left <= 0:
            operation.cancel()
            ready.poll(1000)
            objects.drain()
            raise UnavailableError(_silent(where))
        ready.poll(left * 1000)
        objects.drain()
    return operation
