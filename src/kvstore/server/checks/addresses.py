"""Addresses: whether this machine has them, whether they are free, whether names lead anywhere.

Nothing is bound and nobody is called but the resolver.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from kvstore.addresses import HostPort
from kvstore.server.checks.findings import Finding, fault, warning

__all__ = ["check_dialled_addresses", "check_listen_address", "check_pulse_address"]

RESOLVE_TIMEOUT_S = 5.0

# Tables of /proc/net, and the state of a socket there that takes whatever comes to its port.
_LISTENING = (("tcp", "0A"), ("tcp6", "0A"))
_RECEIVING = (("udp", "07"), ("udp6", "07"))
_CAP_NET_BIND_SERVICE = 1 << 10


def check_listen_address(
    address: str, *, running: bool, of: str = "gRPC server"
) -> Iterator[Finding]:
    """``host:port`` that a kvd is to listen on; ``running``: that a kvd does is no fault."""
    listened = HostPort.parse(address)
    if listened is None:
        yield _start_fault(of, address, "malformed address; expected host:port")
        return
    host, port = listened.host, listened.port
    try:
        found = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_ADDRCONFIG
        )
    except OSError as error:
        yield _start_fault(of, address, f"cannot resolve {host!r}: {error.strerror}")
        return
    for _, _, _, _, endpoint in found:
        why = _unbindable(ipaddress.ip_address(str(endpoint[0]).partition("%")[0]), port, running)
        if why:
            yield _start_fault(of, address, why)
            return


def _start_fault(of: str, address: str, why: str) -> Finding:
    return fault(f"failed to start {of} on {address}: {why}")


def check_pulse_address(peer_address: str, *, running: bool) -> Iterator[Finding]:
    """UDP at the port of ``peer_address``; kvd goes on without, so that it is no fault."""
    asked = HostPort.parse(peer_address)
    if asked is None or not asked.port or running:
        return
    with contextlib.suppress(OSError):  # said of the listen address
        _, _, _, _, endpoint = socket.getaddrinfo(
            asked.host, asked.port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE
        )[0]
        address = ipaddress.ip_address(str(endpoint[0]).partition("%")[0])
        if _is_taken(address, asked.port, _RECEIVING):
            yield warning(f"no pulses on {peer_address}: its UDP port is already in use")


def check_dialled_addresses(addresses: Sequence[str]) -> Iterator[Finding]:
    """``host:port`` of other members: names that don't resolve (yet)."""
    parsed = [HostPort.parse(address) for address in addresses]
    hosts = sorted({address.host for address in parsed if address is not None})
    reasons: dict[str, str] = dict.fromkeys(hosts, f"no answer within {RESOLVE_TIMEOUT_S:g} s")

    def resolve(host: str) -> None:
        try:
            socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            reasons[host] = ""
        except OSError as error:
            reasons[host] = error.strerror or str(error)

    # In threads of their own, all at once: a resolver that hangs can't be interrupted.
    resolving = [threading.Thread(target=resolve, args=(host,), daemon=True) for host in hosts]
    for thread in resolving:
        thread.start()
    for thread in resolving:
        thread.join(RESOLVE_TIMEOUT_S)
    for host, why in reasons.items():
        if why:
            yield warning(f"cannot resolve {host!r}, where a member should be: {why}")


Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _unbindable(address: Address, port: int, running: bool) -> str | None:
    if not _is_local(address):
        return "no such address on this machine"
    if not port:
        return None
    if _is_privileged(port):
        return "no permission to use that port"
    if not running and _is_taken(address, port, _LISTENING):
        return "address already in use"
    return None


def _is_local(address: Address) -> bool:
    """Whether a packet to the address would come from it: so only to one's own. None is sent."""
    if address.is_unspecified:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((str(address), 9))
        except OSError:
            return False
        return ipaddress.ip_address(str(probe.getsockname()[0]).partition("%")[0]) == address


def _is_privileged(port: int) -> bool:
    first = _read("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    if not first or port >= int(first):
        return False
    for line in _read("/proc/self/status").splitlines():
        if line.startswith("CapEff:"):
            return not int(line.split()[1], 16) & _CAP_NET_BIND_SERVICE
    return False


def _is_taken(address: Address, port: int, tables: Sequence[tuple[str, str]]) -> bool:
    """Whether some process of this machine has the address, or all of them."""
    return any(
        at.is_unspecified or address.is_unspecified or at == address
        for at in _listened_on(port, tables)
    )


def _listened_on(port: int, tables: Sequence[tuple[str, str]]) -> Iterator[Address]:
    """Where some process of this machine listens on ``port``, by these tables and states."""
    for table, wanted in tables:
        for line in _read(f"/proc/net/{table}").splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            host, _, at = local.partition(":")
            if state == wanted and int(at, 16) == port:
                yield _address(host)


def _address(digits: str) -> Address:
    """An address as /proc has it: words of four bytes in the machine's order."""
    words = [digits[at : at + 8] for at in range(0, len(digits), 8)]
    packed = b"".join(int(word, 16).to_bytes(4, sys.byteorder) for word in words)
    address = ipaddress.ip_address(packed)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return address if mapped is None else mapped


def _read(path: str) -> str:
    try:
        return Path(path).read_text("ascii")
    except OSError:
        return ""
