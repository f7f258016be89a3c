"""PEM files that can't be used are named, each for its own reason."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from kvstore.errors import ConfigurationError
from kvstore.server.tls.certificate_files import CertificateFiles


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    leaf = trustme.CA().issue_cert("localhost")
    leaf.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    leaf.private_key_pem.write_to_path(tmp_path / "key.pem")
    (tmp_path / "key.pem").chmod(0o600)
    return tmp_path / "cert.pem", tmp_path / "key.pem"


def complaint(certificate: Path, key: Path) -> str:
    with pytest.raises(ConfigurationError) as raised:
        CertificateFiles(cert=str(certificate), key=str(key))
    return str(raised.value)


def test_a_good_pair_is_accepted(pair: tuple[Path, Path]) -> None:
    certificate, key = map(str, pair)
    assert CertificateFiles(cert=certificate, key=key).server_credentials() is not None


def test_a_missing_file_is_named(pair: tuple[Path, Path]) -> None:
    certificate, key = pair
    gone = key.parent / "gone.pem"
    assert complaint(gone, key) == (
        f"failed to read TLS certificate PEM from {gone}: No such file or directory"
    )
    assert complaint(certificate, gone) == (
        f"failed to read TLS private key PEM from {gone}: No such file or directory"
    )


def test_a_directory_is_no_certificate(pair: tuple[Path, Path]) -> None:
    assert complaint(pair[0].parent, pair[1]).endswith(": Is a directory")


def test_a_file_without_pem_is_named(pair: tuple[Path, Path]) -> None:
    certificate, key = pair
    certificate.write_text("hello")
    assert complaint(certificate, key) == (
        f"failed to read TLS certificate PEM from {certificate}: not a PEM file"
    )


@pytest.mark.parametrize("bad", ["cert.pem", "key.pem"])
def test_a_broken_pem_is_named(pair: tuple[Path, Path], bad: str) -> None:
    broken = pair[0].parent / bad
    lines = broken.read_text().splitlines()
    broken.write_text("\n".join([lines[0], *lines[3:]]))
    assert str(broken) in complaint(*pair)


def test_a_key_of_another_certificate_is_named(pair: tuple[Path, Path]) -> None:
    certificate, key = pair
    trustme.CA().issue_cert("localhost").private_key_pem.write_to_path(key)
    assert complaint(certificate, key) == (
        f"failed to read TLS private key PEM from {key}: "
        f"it does not belong to the certificate in {certificate}"
    )


def test_a_key_with_a_password_is_refused_without_asking_for_it(pair: tuple[Path, Path]) -> None:
    certificate, key = pair
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    assert complaint(certificate, key) == (
        f"failed to read TLS private key PEM from {key}: it is protected by a password"
    )


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o620, 0o660, 0o666, 0o777])
def test_a_key_that_others_can_read_or_replace_is_refused(
    pair: tuple[Path, Path], mode: int
) -> None:
    certificate, key = pair
    key.chmod(mode)
    assert complaint(certificate, key).startswith(
        f"failed to read TLS private key PEM from {key}: its mode {mode:04o} lets others"
    )


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o440])
def test_a_key_may_be_read_by_its_group(pair: tuple[Path, Path], mode: int) -> None:
    certificate, key = pair
    key.chmod(mode)
    CertificateFiles(cert=str(certificate), key=str(key))
