"""Who is at the other end: the names that gRPC gives for an address and for a certificate."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Mapping
from typing import Any

__all__ = ["INSECURE", "AuthContext", "address_key", "authenticated", "peer_name"]

AuthContext = Mapping[str, list[bytes]]

INSECURE: AuthContext = {
    "transport_security_type": [b"insecure"],
    "security_level": [b"TSI_SECURITY_NONE"],
}

# How a subject's attributes are abbreviated in RFC 2253; others by their long name.
_ATTRIBUTES = {
    "commonName": "CN",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "streetAddress": "STREET",
    "domainComponent": "DC",
    "userId": "UID",
}
_PEERS = {"DNS": "peer_dns", "IP Address": "peer_ip", "email": "peer_email", "URI": "peer_uri"}


def peer_name(address: Any) -> str:
    """gRPC's name for the other end of a socket: ``ipv4:…``, ``ipv6:…`` or ``unix:``."""
    if not isinstance(address, tuple):
        return "unix:"
    host, port = address[0], address[1]
    if ":" not in host:
        return f"ipv4:{host}:{port}"
    return f"ipv6:%5B{host.replace('%', '%25')}%5D:{port}"


def address_key(address: Any) -> str:
    """What connections are counted under: a host, of IPv6 its /64, which one machine has whole."""
    if not isinstance(address, tuple):
        return "unix"
    host: str = address[0].partition("%")[0]
    if ":" not in host:
        return host
    v6 = ipaddress.IPv6Address(host)
    if v6.ipv4_mapped is not None:
        return str(v6.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(v6) >> 64 << 64, 64)))


def authenticated(tls: ssl.SSLObject) -> AuthContext:
    """What a handshake proved, under the keys of grpcio's ``auth_context``."""
    found: dict[str, list[bytes]] = {
        "transport_security_type": [b"ssl"],
        "security_level": [b"TSI_PRIVACY_AND_INTEGRITY"],
        "ssl_session_reused": [b"true" if tls.session_reused else b"false"],
        "ssl_tls_version": [(tls.version() or "").encode()],
    }
    der = tls.getpeercert(binary_form=True)
    certificate: Any = tls.getpeercert()
    if not der or not certificate:
        return found
    subject = [pair for parts in certificate.get("subject", ()) for pair in parts]
    found["x509_subject"] = [
        ",".join(f"{_ATTRIBUTES.get(name, name)}={value}" for name, value in subject[::-1]).encode()
    ]
    common = [value for name, value in subject if name == "commonName"]
    found["x509_common_name"] = [(common[0] if common else "").encode()]
    found["x509_pem_cert"] = [ssl.DER_cert_to_PEM_cert(der).encode()]
    for kind, value in certificate.get("subjectAltName", ()):
        if kind not in _PEERS:
            continue
        name = str(ipaddress.ip_address(value)) if kind == "IP Address" else value
        found.setdefault("x509_subject_alternative_name", []).append(name.encode())
        found.setdefault(_PEERS[kind], []).append(name.encode())
    return found
