"""Why there is no connection, in words that say what to do: those of either wire, made one.

The native wire says what the system and OpenSSL do, grpcio what gRPC's core does; neither of them
helps whoever only gave a wrong file or name.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

__all__ = ["never_left", "unreachable"]

_NATIVE = re.compile(r"cannot connect to (?P<where>\S+): (?P<why>.+)", re.DOTALL)

# What gRPC says, less the words that help nobody. It writes an address of IPv6 as a part of a URI.
_GRPCIO = re.compile(
    r"failed to connect to all addresses; last error: [A-Z_]+: "
    r"(?:ipv[46]:)?(?P<where>\S+): (?:Failed to connect to remote host: )?(?P<why>.+)",
    re.DOTALL,
)
_GRPCIO_NAMES = re.compile(
    r"(?:errors resolving|DNS resolution failed for) (?P<where>\S+): (?P<why>.+)", re.DOTALL
)

_TRUST = "the server's certificate can't be trusted: "

# Compiled when they are needed, which they seldom are.
_WORDS: tuple[tuple[str, str], ...] = (
    (
        r".*Too many open files.*",
        "this process, or machine, has no file descriptors left (ulimit -n)",
    ),
    (
        r".*(Temporary failure in name resolution|contact(ing)? DNS"
        r"|names are being resolved).*",
        "the name can't be resolved now: no name server answers",
    ),
    (
        r"the name can't be resolved: .*|.*(hostname lookup|address lookup failed).*",
        "the name can't be resolved: there is no such host; is it spelt right?",
    ),
    (
        r"Socket closed|Connection reset by peer|recvmsg:.*",
        "Socket closed; does the server talk TLS (--tls-ca), or refuse the certificate?",
    ),
    (
        r".*(WRONG_VERSION_NUMBER|RECORD_LAYER_FAILURE|HTTP_REQUEST).*",
        "the server talks no TLS there: leave out tls= (--tls-ca), or take its port of TLS",
    ),
    (
        r".*certificate has expired.*",
        _TRUST + "it has expired; renew it there (kvctl pki renew)",
    ),
    (
        r".*certificate is not yet valid.*",
        _TRUST + "it isn't valid yet; are the clocks of both machines right?",
    ),
    (
        r".*(Hostname mismatch|IP address mismatch|Hostname Verification Check failed).*",
        _TRUST + "it is another name's; connect to a name that it has, or say which it has with "
        "server_name= (--tls-server-name)",
    ),
    (
        r".*(the server's certificate can't be trusted|CERTIFICATE_VERIFY_FAILED).*",
        _TRUST + "none of the known authorities signed it; give the one that did with ca= "
        "(--tls-ca)",
    ),
    (
        r".*(CERTIFICATE_REQUIRED|TSI_DATA_CORRUPTED|UNKNOWN_CA|BAD_CERTIFICATE"
        r"|CERTIFICATE_UNKNOWN|CERTIFICATE_EXPIRED|certificate required|unknown ca).*",
        "the server asks for a client's certificate, and trusts none that it got: give one "
        "that its authority signed with cert= and key= (--tls-cert, --tls-key)",
    ),
    (
        r".*(SETTINGS expected|Failed parsing HTTP/2|\(ALPN\)|BAD_CLIENT_MAGIC).*",
        "what answers there is no gRPC server; is it the right port?",
    ),
    (
        r".*(before receiving SETTINGS|handshaker shutdown|no answer within).*",
        "it accepts connections, and answers nothing",
    ),
)


def unreachable(details: str) -> str | None:
    """``details`` in our words; None: they don't say that a connection came to nothing."""
    for form in (_NATIVE, _GRPCIO, _GRPCIO_NAMES):
        found = form.fullmatch(details)
        if found is not None:
            return f"cannot connect to {unquote(found['where'])}: {_why(found['why'])}"
    return None


def never_left(details: str) -> bool:
    """Whether it is grpcio that says so, of a call that it never sent."""
    return any(form.fullmatch(details) for form in (_GRPCIO, _GRPCIO_NAMES))


def _why(said: str) -> str:
    for pattern, words in _WORDS:
        if re.fullmatch(pattern, said, re.DOTALL):
            return words
    return said
