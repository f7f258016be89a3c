"""All checks of one kvd, as it is configured."""

from __future__ import annotations

import importlib.util
import os
import resource
from collections.abc import Iterator
from pathlib import Path

from kvstore.addresses import HostPort
from kvstore.beyond.rados.opening import check_readable, find_librados
from kvstore.extras import install_line
from kvstore.replica import ReplicaOptions
from kvstore.server.checks.addresses import (
    check_dialled_addresses,
    check_listen_address,
    check_pulse_address,
)
from kvstore.server.checks.certificates import check_client_certificates, check_peer_certificates
from kvstore.server.checks.directory import check_directory, check_identity
from kvstore.server.checks.findings import Finding, fault, refusal, warning
from kvstore.server.config.cluster_config import ClusterConfig
from kvstore.server.config.options import ServerOptions
from kvstore.server.config.rados_config import RadosConfig
from kvstore.server.descriptors import FEW
from kvstore.server.exposure import exposures, peer_exposures
from kvstore.server.listeners.front import choose_front
from kvstore.server.nodes.cluster_node import SEGMENT_BYTES
from kvstore.server.nodes.embedded import MEMBERS
from kvstore.server.peers.names import member_name
from kvstore.server.peers.secret import read_secret
from kvstore.server.traces.switch import check_exporters

__all__ = ["check_cluster_node", "check_embedded", "check_process", "check_rados"]


def check_embedded(options: ServerOptions, *, running: bool) -> Iterator[Finding]:
    """Flags that are right in themselves, held against this machine.

    ``running``: a kvd that has directory and addresses is no fault.
    """
    yield from refusal(choose_front, options.front)
    yield from map(warning, exposures(options).values())
    if options.tls_cert and options.tls_key:
        yield from check_client_certificates(
            options.tls_cert, options.tls_key, options.tls_client_ca, _named(options.listen_addr)
        )
    yield from check_directory(
        options.data_path,
        "embedded",
        range(1, MEMBERS + 1),
        ReplicaOptions().segment_bytes,
        running=running,
    )
    yield from check_listen_address(options.listen_addr, running=running)
    if options.metrics_addr is not None:
        yield from check_listen_address(options.metrics_addr, running=running, of="metrics")


def check_cluster_node(config: ClusterConfig, *, running: bool) -> Iterator[Finding]:
    """The same for a member; what of ``config`` is missing or wrong (empty, 0) is passed over."""
    yield from refusal(choose_front, config.front)
    if config.peer_addr:
        yield from map(warning, peer_exposures(config).values())
    yield from _certificates(config)
    if config.peer_secret_file is not None:
        yield from refusal(read_secret, config.peer_secret_file)
    if config.data_dir:
        path = Path(config.data_dir)
        members = range(config.self_id, config.self_id + 1)
        yield from check_directory(path, "cluster-node", members, SEGMENT_BYTES, running=running)
        if config.cluster_id and config.self_id:
            yield from check_identity(path, config)
    for address in (config.client_addr, config.peer_addr):
        if address:
            yield from check_listen_address(address, running=running)
    if config.metrics_address:
        yield from check_listen_address(config.metrics_address, running=running, of="metrics")
    if config.peer_addr:
        yield from check_pulse_address(config.peer_addr, running=running)
    yield from check_dialled_addresses([node.peer_addr for node in config.nodes])


def check_rados(config: RadosConfig, *, running: bool) -> Iterator[Finding]:
    """The same for a gateway; the cluster isn't asked."""
    yield from refusal(choose_front, config.front)
    yield from refusal(find_librados)
    yield from refusal(check_readable, config.address)
    if config.tls_cert and config.tls_key:
        yield from check_client_certificates(
            config.tls_cert, config.tls_key, config.tls_client_ca, _named(config.client_addr)
        )
    yield from check_listen_address(config.client_addr, running=running)
    if config.metrics_address:
        yield from check_listen_address(config.metrics_address, running=running, of="metrics")


def check_process(metrics_addr: str | None) -> Iterator[Finding]:
    """What kvd needs of the system and of Python, whatever its mode."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FEW:
        yield warning(
            f"at most {hard} file descriptors: raise the hard limit (LimitNOFILE, ulimit -Hn)"
        )
    if metrics_addr is not None and importlib.util.find_spec("prometheus_client") is None:
        yield fault(
            f"--metrics_addr needs the 'prometheus_client' package: {install_line('metrics')}"
        )
    yield from refusal(check_exporters, os.environ)


def _certificates(config: ClusterConfig) -> Iterator[Finding]:
    own = config.node(config.self_id)
    if config.tls_cert and config.tls_key:
        hosts = [] if own is None else _named(own.client_addr)
        yield from check_client_certificates(
            config.tls_cert, config.tls_key, config.tls_client_ca, hosts
        )
    if config.peer_tls is not None and config.cluster_id and config.self_id:
        tls = config.peer_tls
        name = member_name(config.cluster_id, config.self_id)
        yield from check_peer_certificates(tls.cert, tls.key, tls.ca, name)


def _named(*addresses: str) -> list[str]:
    """The hosts of addresses that a certificate can be for."""
    parsed = [HostPort.parse(address) for address in addresses]
    return [a.host for a in parsed if a is not None and not a.is_wildcard]
