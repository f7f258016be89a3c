"""Certificates as the other side will judge them: by handshakes in memory."""

from __future__ import annotations

import contextlib
import datetime
import ssl
from collections.abc import Generator, Iterator, Sequence

from kvstore.errors import ConfigurationError
from kvstore.pem import read_pem
from kvstore.server.checks.findings import Finding, fault, refusal, warning
from kvstore.server.config.private_files import refuse_readable_by_others
from kvstore.server.tls.certificate_files import EXPIRY_WARNING
from kvstore.server.tls.pem_files import check_authorities, check_pair
from kvstore.server.tls.validity import validities

__all__ = ["check_client_certificates", "check_peer_certificates"]

# Times are judged by themselves, so that they don't hide what else is wrong.
_NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME

# A handshake takes three flights at most, whoever speaks.
_FLIGHTS_MAX = 8


def check_peer_certificates(cert: str, key: str, ca: str, name: str) -> Iterator[Finding]:
    """Files of mutual TLS between members; ``name`` is the one that stands for this member."""
    usable = yield from _files(cert, key, ca)
    if not usable:
        return
    own, authority = _context(cert, key, None), _context(cert, key, ca)
    refused = _refused(server=own, client=authority)
    if refused is not None:
        yield fault(f"certificate {cert} isn't one that members with {ca} accept: {refused}")
        return
    refused = _refused(server=own, client=authority, name=name)
    if refused is not None:
        yield fault(f"certificate {cert} is not this member's, whose name is {name}: {refused}")
    # The other way round: what a member shows that dials.
    refused = _refused(server=_asking(cert, key, ca), client=authority)
    if refused is not None:
        yield fault(f"certificate {cert} doesn't let this member dial others: {refused}")


def check_client_certificates(
    cert: str, key: str, ca: str | None, hosts: Sequence[str]
) -> Iterator[Finding]:
    """Files of the clients' port; ``hosts`` are the names and addresses that clients dial."""
    usable = yield from _files(cert, key, ca)
    if not usable:
        return
    own, trusting = _context(cert, key, None), _context(cert, key, cert)
    # It is its own authority here: which one clients trust isn't known.
    trusting.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    refused = _refused(server=own, client=trusting)
    if refused is not None:
        yield fault(f"certificate {cert} is none of a server: {refused}")
        return
    for host in hosts:
        refused = _refused(server=own, client=trusting, name=host)
        if refused is not None:
            yield warning(f"clients that dial {host} refuse certificate {cert}: {refused}")


def _files(cert: str, key: str, ca: str | None) -> Generator[Finding, None, bool]:
    """What is wrong with each file; returns whether handshakes make sense."""
    wrong = refusal(read_pem, "certificate", cert)
    if not wrong:
        yield from _times("certificate", cert, only_first=True)
    wrong += refusal(read_pem, "private key", key)
    if not wrong:
        wrong += refusal(check_pair, cert, key)
    usable = not wrong
    yield from wrong
    yield from refusal(refuse_readable_by_others, "TLS private key PEM", key)
    if ca is not None:
        wrong = refusal(check_authorities, ca)
        yield from wrong or _times("certificate authority", ca, only_first=False)
        usable = usable and not wrong
    return usable


def _times(what: str, path: str, *, only_first: bool) -> Iterator[Finding]:
    """Of one's own certificate the first in the file; of authorities, one that is good will do."""
    try:
        periods = validities(read_pem(what, path))
    except ConfigurationError as error:
        yield fault(f"{what} {path}: {error}")
        return
    if only_first:
        periods = periods[:1]
    now = datetime.datetime.now(datetime.UTC)
    good = any(start <= now < end for start, end in periods)
    for start, end in periods:
        if end <= now:
            text = f"{what} {path} has expired on {end:%Y-%m-%d %H:%M} UTC"
        elif start > now:
            text = f"{what} {path} is not valid before {start:%Y-%m-%d %H:%M} UTC"
        elif end - now <= EXPIRY_WARNING:
            text = f"{what} {path} expires in {(end - now).days} days"
        else:
            continue
        yield warning(text) if good else fault(text)


def _context(cert: str, key: str, ca: str | None) -> ssl.SSLContext:
    """Shows ``cert`` to whoever asks, and as a client trusts those of ``ca``."""
    kind = ssl.PROTOCOL_TLS_SERVER if ca is None else ssl.PROTOCOL_TLS_CLIENT
    context = ssl.SSLContext(kind)
    context.load_cert_chain(cert, key)
    if ca is not None:
        context.load_verify_locations(ca)
        context.verify_flags |= _NO_CHECK_TIME
    return context


def _asking(cert: str, key: str, ca: str) -> ssl.SSLContext:
    """A server that asks for a certificate of ``ca``."""
    context = _context(cert, key, None)
    context.load_verify_locations(ca)
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= _NO_CHECK_TIME
    return context


def _refused(
    *, server: ssl.SSLContext, client: ssl.SSLContext, name: str | None = None
) -> str | None:
    """Why one refuses the other, who should be called ``name``; None when they agree."""
    client.check_hostname = name is not None
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = (
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    try:
        for _ in range(_FLIGHTS_MAX):
            for side in sides:
                with contextlib.suppress(ssl.SSLWantReadError):
                    side.do_handshake()
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    except ssl.SSLError as error:
        return (error.reason or str(error)).lower().replace("_", " ")
    return None
