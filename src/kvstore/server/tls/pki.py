"""A certificate authority for one cluster, kept in a directory of PEM files.

There are two authorities, because a client must never pass for a member::

    ca.pem, ca.key             signs what clients meet: servers, and clients themselves
    peer-ca.pem, peer-ca.key   signs members and nothing else
    cluster.txt                the cluster id, one line
    member-3/server.pem .key   for the client listener (tls_cert, tls_key)
    member-3/peer.pem   .key   for other members ([peer_tls] cert, key)
    client-alice.pem    .key   for a client, where the server asks for one (tls_client_ca)

Keys are P-256 in PKCS #8, mode 0600. Files are replaced by renaming, so that a kvd that is
watching them sees the old or the new one. The two authorities' keys belong on no server.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kvstore.api.operator_access import OPERATOR_NAME
from kvstore.errors import ConfigurationError
from kvstore.server.config.cluster_config import check_cluster_id
from kvstore.server.config.private_files import replace_private
from kvstore.server.peers.names import member_name

# Machines whose clocks run a little behind must not refuse what was just signed.
_BACKDATED = datetime.timedelta(hours=1)

_BEGUN = "unfinished"

_CLIENT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}")

_SERVER = (ExtendedKeyUsageOID.SERVER_AUTH,)
_CLIENT = (ExtendedKeyUsageOID.CLIENT_AUTH,)
_PEER = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """What an operator wants to know of a certificate file. ``names`` as in its SAN."""

    path: str
    subject: str
    issuer: str
    names: tuple[str, ...]
    authority: bool
    not_before: datetime.datetime
    not_after: datetime.datetime
    fingerprint_sha256: str

    def days_left(self, now: datetime.datetime) -> int:
        """Whole days until it expires; negative when it has."""
        return (self.not_after - now) // datetime.timedelta(days=1)


class Authority:
    """The two authorities of a cluster in a directory that :func:`init` made."""

    def __init__(self, directory: Path) -> None:
        """Open ``directory``. Raises ConfigurationError when it isn't one of ours."""
        self.directory = directory
        try:
            self.cluster_id = (directory / "cluster.txt").read_text("utf-8").strip()
        except OSError as error:
            raise ConfigurationError(
                f"{directory} holds no certificate authority; make one with kvctl pki init"
            ) from error

    def issue_member(self, member: int, hosts: Sequence[str], days: int) -> list[Path]:
        """Write certificates and keys of a member reached at ``hosts``; return the certificates.

        Raises ConfigurationError for a host that is neither a name nor an address.
        """
        directory = self.directory / f"member-{member}"
        _make_private(directory)
        identity = member_name(self.cluster_id, member)
        self._sign("ca", directory / "server", f"kvstore server {member}", hosts, _SERVER, days)
        self._sign("peer-ca", directory / "peer", identity, [identity, *hosts], _PEER, days)
        return [directory / "server.pem", directory / "peer.pem"]

    def issue_client(self, name: str, days: int, *, operator: bool = False) -> list[Path]:
        """Write a certificate and key for a client called ``name``.

        An ``operator`` may change the members and read everything.
        """
        if not _CLIENT_NAME.fullmatch(name):
            raise ConfigurationError(
                f"client name {name!r} must be 1 to 63 letters, digits or any of . _ - @"
            )
        stem = self.directory / f"client-{name}"
        names = [OPERATOR_NAME] if operator else []
        self._sign("ca", stem, name, names, _CLIENT, days)
        return [Path(f"{stem}.pem")]

    def issued(self) -> list[Path]:
        """The certificates that were issued here, authorities not included."""
        return sorted(
            [*self.directory.glob("member-*/*.pem"), *self.directory.glob("client-*.pem")]
        )

    def renew(self, path: Path, days: int) -> None:
        """Replace a certificate of :meth:`issued` by one for the same names, with a new key."""
        old = _load(path)
        usage = old.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        authority = "peer-ca" if path.name == "peer.pem" else "ca"
        subject = old.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
        names = list(_alternative_names(old))
        self._sign(authority, path.with_suffix(""), str(subject), names, tuple(usage), days)

    def _sign(
        self,
        authority: str,
        stem: Path,
        subject: str,
        names: Sequence[str],
        usage: Sequence[x509.ObjectIdentifier],
        days: int,
    ) -> None:
        """Make a key and have ``authority`` sign a certificate for it."""
        issuer = _load(self.directory / f"{authority}.pem")
        issuer_key = _load_key(self.directory / f"{authority}.key")
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        # An authority can't vouch beyond its own end.
        end = min(now + datetime.timedelta(days=days), issuer.not_valid_after_utc)
        builder = (
            _builder(subject, issuer.subject, key.public_key(), now - _BACKDATED, end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usage), critical=False)
            .add_extension(_authority_key(issuer_key), critical=False)
        )
        if names:
            general = [_general_name(name) for name in dict.fromkeys(names)]
            builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=False)
        # The key first: between the two renames a reader finds a pair that doesn't match and waits
        # for the next look; it never finds a certificate without any key.
        _write(Path(f"{stem}.key"), _key_pem(key), mode=0o600)
        _write(Path(f"{stem}.pem"), _pem(builder.sign(issuer_key, hashes.SHA256())), mode=0o644)


def init(directory: Path, cluster_id: str, days: int) -> Authority:
    """Make the two authorities. Raises ConfigurationError when ``directory`` holds some already."""
    # What was begun and not ended has signed nothing: that needs cluster.txt, which comes last.
    begun = directory / _BEGUN
    is_there = (directory / "cluster.txt").exists()
    if is_there or ((directory / "ca.key").exists() and not begun.exists()):
        raise ConfigurationError(
            f"{directory} holds a certificate authority already; nothing was changed"
        )
    check_cluster_id(cluster_id)
    _make_private(directory)
    _write(begun, b"", mode=0o600)
    for stem, title in (("ca", "clients and servers"), ("peer-ca", "members")):
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        end = now + datetime.timedelta(days=days)
        name = _name(f"kvstore {cluster_id}: {title}"[:64])
        certificate = (
            _builder(None, name, key.public_key(), now - _BACKDATED, end)
            .subject_name(name)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(authority=True), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .sign(key, hashes.SHA256())
        )
        _write(directory / f"{stem}.key", _key_pem(key), mode=0o600)
        _write(directory / f"{stem}.pem", _pem(certificate), mode=0o644)
    _write(directory / "cluster.txt", f"{cluster_id}\n".encode(), mode=0o644)
    begun.unlink()
    return Authority(directory)


def facts(path: Path) -> CertificateFacts:
    """Return what the first certificate in a PEM file says. Raises ConfigurationError."""
    certificate = _load(path)
    return CertificateFacts(
        path=str(path),
        subject=certificate.subject.rfc4514_string(),
        issuer=certificate.issuer.rfc4514_string(),
        names=tuple(_alternative_names(certificate)),
        authority=_is_authority(certificate),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        fingerprint_sha256=certificate.fingerprint(hashes.SHA256()).hex(),
    )


def _builder(
    subject: str | None,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    start: datetime.datetime,
    end: datetime.datetime,
) -> x509.CertificateBuilder:
    builder = (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )
    return builder if subject is None else builder.subject_name(_name(subject))


def _name(common: str) -> x509.Name:
    # X.520 bounds a common name at 64; what is longer stands in full among the SANs.
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common[:64])])


def _general_name(host: str) -> x509.GeneralName:
    bare = host.strip("[]")
    try:
        return x509.IPAddress(ipaddress.ip_address(bare))
    except ValueError:
        pass
    if not re.fullmatch(r"[A-Za-z0-9_*]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?", bare):
        raise ConfigurationError(f"host {host!r} is neither a host name nor an IP address")
    return x509.DNSName(bare)


def _alternative_names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in names]


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _authority_key(key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _load(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"failed to read certificate {path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigurationError(f"{path} holds no certificate in PEM form") from error


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise ConfigurationError(f"failed to read key {path}: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"{path} holds no private key in plain PEM form") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigurationError(f"{path} is not an elliptic curve key, as kvctl pki init makes")
    return key


def _make_private(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"failed to make {directory}: {error.strerror}") from error


def _write(path: Path, data: bytes, *, mode: int) -> None:
    try:
        replace_private(path, data, mode=mode)
    except OSError as error:
        raise ConfigurationError(f"failed to write {path}: {error.strerror}") from error
