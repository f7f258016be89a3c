"""The shared secret of a cluster's members, and what it proves.

Without certificates it is what tells a member from a stranger that knows the cluster's name. Each
introduction carries an HMAC of itself; the called one's holds the caller's random number as well,
so that its answer is of this very call. Nothing else is encrypted or signed: who can change what is
on the wire between two members needs to be kept out by TLS.
"""

from __future__ import annotations

import errno
import hmac
import os
import secrets
from pathlib import Path

from kvstore.api.v1 import raft_pb2
from kvstore.errors import ConfigurationError
from kvstore.server.config.private_files import refuse_readable_by_others, replace_private
from kvstore.small_files import read_small

__all__ = ["NONCE_BYTES", "is_proved", "make_secret_file", "prove", "read_secret"]

NONCE_BYTES = 16
SECRET_BYTES_MIN = 16
SECRET_BYTES_MAX = 4096

_DOMAIN = b"kvstore introduction 1\0"


def make_secret_file(path: Path) -> None:
    """Write a new random secret, readable by its owner only. Raises ConfigurationError."""
    try:
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        # Whole or not there: what a crash left of it would stand in the way of the next try.
        replace_private(path, f"{secrets.token_hex(32)}\n".encode())
    except OSError as error:
        raise ConfigurationError(f"failed to write {path}: {error.strerror}") from error


def read_secret(path: str) -> bytes:
    """The secret in a file, without white space around it. Raises ConfigurationError."""
    try:
        secret = read_small(path).strip()
    except OSError as error:
        raise ConfigurationError(f"failed to read peer secret {path}: {error.strerror}") from error
    if not SECRET_BYTES_MIN <= len(secret) <= SECRET_BYTES_MAX:
        raise ConfigurationError(
            f"failed to read peer secret {path}: it has {len(secret)} bytes; {SECRET_BYTES_MIN} to "
            f"{SECRET_BYTES_MAX} are possible ('kvctl pki secret' makes one)"
        )
    refuse_readable_by_others("peer secret", path)
    return secret


def prove(secret: bytes, introduction: raft_pb2.Introduction) -> None:
    """Put the proof into ``introduction``, whose other fields are complete."""
    introduction.proof = _proof(secret, introduction)


def is_proved(secret: bytes, introduction: raft_pb2.Introduction) -> bool:
    """Whether whoever made ``introduction`` knows the secret."""
    return hmac.compare_digest(introduction.proof, _proof(secret, introduction))


def _proof(secret: bytes, introduction: raft_pb2.Introduction) -> bytes:
    said = raft_pb2.Introduction()
    said.CopyFrom(introduction)
    said.proof = b""
    return hmac.digest(secret, _DOMAIN + said.SerializeToString(deterministic=True), "sha256")
