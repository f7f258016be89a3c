"""Whether a certificate and a key belong together; each complaint names the file."""

from __future__ import annotations

import ssl

from kvstore.errors import ConfigurationError
from kvstore.pem import read_pem


def check_pair(certificate_path: str, key_path: str) -> None:
    """Let OpenSSL load both: it tells a broken certificate from a key of another certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    def no_password() -> str:
        raise ConfigurationError(
            f"failed to read TLS private key PEM from {key_path}: it is protected by a password"
        )

    try:
        context.load_cert_chain(certificate_path, key_path, password=no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigurationError(
                f"failed to read TLS private key PEM from {key_path}: "
                f"it does not belong to the certificate in {certificate_path}"
            ) from error
        culprit = _culprit(certificate_path, key_path)
        raise ConfigurationError(f"failed to read TLS {culprit}: {_why(error)}") from error
    except OSError as error:
        # One of them was there a moment ago: they are being exchanged.
        raise ConfigurationError(
            f"failed to read TLS certificate and key from {certificate_path} and {key_path}: "
            f"{error.strerror}"
        ) from error


def check_authorities(path: str) -> None:
    """Let OpenSSL load the authorities in a file. Raises ConfigurationError naming it."""
    read_pem("certificate authority", path)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError as error:
        raise ConfigurationError(
            f"failed to read TLS certificate authority PEM from {path}: no usable PEM in it"
        ) from error
    except OSError as error:
        raise ConfigurationError(
            f"failed to read TLS certificate authority PEM from {path}: {error.strerror}"
        ) from error


def _why(error: ssl.SSLError) -> str:
    """OpenSSL's reason where it says more than that it couldn't read."""
    reason = error.reason or ""
    if reason.endswith(("_TOO_SMALL", "_TOO_WEAK")):
        return reason.lower().replace("_", " ")
    return "no usable PEM in it"


def _culprit(certificate_path: str, key_path: str) -> str:
    """Say which file of a pair that OpenSSL refuses is the bad one."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(certificate_path)
    except ssl.SSLError:
        return f"certificate PEM from {certificate_path}"
    return f"private key PEM from {key_path}"
