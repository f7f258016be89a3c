"""One kvd from start to end: bind, open, announce, serve, drain."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc.aio
import structlog
import uvloop
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from kvstore.api.handlers.admin import AdminHandlers
from kvstore.api.handlers.kv import KVHandlers
from kvstore.api.v1 import admin_pb2, admin_pb2_grpc, kv_pb2, kv_pb2_grpc
from kvstore.server.config.data_directory import DataDirectory
from kvstore.server.config.options import ServerOptions
from kvstore.server.health import HealthWatch
from kvstore.server.listener import bind, new_server
from kvstore.server.logs import configure_logs
from kvstore.server.metrics.switch import open_metrics
from kvstore.server.nodes.node import Node
from kvstore.server.supervisor import notify
from kvstore.server.tls.certificate_files import CertificateFiles

# From the first signal to the exit, at most: calls under way get DRAIN_S, closing gets the rest.
STOP_S = 5.0
DRAIN_S = 4.0

# Hardly anything here is cyclic. With Python's own thresholds the oldest generation, hundreds of
# thousands of remembered requests, would be walked every second or two, 80 ms at a time.
GC_THRESHOLDS = (10_000, 20, 200)

# How a mode's node is made, on the running event loop, from what the data directory holds.
OpenNode = Callable[[ServerOptions, Path], Awaitable[Node]]

log = structlog.get_logger("kvstore.server")


def serve(options: ServerOptions, open_node: OpenNode) -> None:
    """Serve what ``open_node`` opens until a signal asks for an end.

    Raises ConfigurationError when it can't start and whatever made the node fail while serving.
    """
    configure_logs(options.log_level, options.log_format)
    certificates = None
    if options.tls_profile == "secure":
        assert options.tls_cert is not None
        assert options.tls_key is not None
        certificates = CertificateFiles(
            cert=options.tls_cert, key=options.tls_key, ca=options.tls_client_ca
        )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(options, certificates, open_node))


async def _serve(
    options: ServerOptions, certificates: CertificateFiles | None, open_node: OpenNode
) -> None:
    stop = _stop_on_signals()
    credentials = None if certificates is None else certificates.server_credentials()
    with open_metrics(options.metrics_addr, certificates) as metrics:
        listener = new_server(metrics.interceptors)
        # The address first: if it can't be had, nothing was written.
        address = bind(listener, options.listen_addr, credentials)
        try:
            with DataDirectory(options.data_path, options.mode) as directory:
                node = await open_node(options, directory.path.resolve())
                try:
                    with metrics.of(node):
                        await _serve_node(options, listener, address, node, stop)
                finally:
                    await node.close()
        finally:
            await listener.stop(grace=None)
    log.info("stopped")


async def _serve_node(
    options: ServerOptions,
    listener: grpc.aio.Server,
    address: str,
    node: Node,
    stop: asyncio.Event,
) -> None:
    """Answer clients until ``stop`` or the node's failure, which is raised."""
    health = HealthWatch(node.leader)
    _add_services(listener, node, health)
    await health.start()
    await listener.start()
    print(
        f"kvd listening on {address} (requested={options.listen_addr}, "
        f"tls_profile={options.tls_profile}, data_dir={options.data_dir})",
        flush=True,
    )
    log.info("started", mode=node.mode, address=address, pid=os.getpid())
    notify("READY=1")
    # What lives now lives until the end: the collector need not walk it again and again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    asked_to_stop = asyncio.create_task(stop.wait(), name="stop")
    ends: list[asyncio.Future[Any]] = [asked_to_stop, node.failed]
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if node.failed.done():
            raise node.failed.result()
        log.info("stopping: finishing the calls under way", drain_s=DRAIN_S)
        notify("STOPPING=1")
        await health.stop()
        await listener.stop(grace=DRAIN_S)
    finally:
        asked_to_stop.cancel()
        await health.stop()


def _add_services(listener: grpc.aio.Server, node: Node, health: HealthWatch) -> None:
    kv_pb2_grpc.add_KVServicer_to_server(KVHandlers(node.service, node.forward), listener)
    admin_pb2_grpc.add_AdminServicer_to_server(AdminHandlers(node), listener)
    health_pb2_grpc.add_HealthServicer_to_server(health.servicer, listener)
    reflection.enable_server_reflection(
        [
            kv_pb2.DESCRIPTOR.services_by_name["KV"].full_name,
            admin_pb2.DESCRIPTOR.services_by_name["Admin"].full_name,
            health_pb2.DESCRIPTOR.services_by_name["Health"].full_name,
            reflection.SERVICE_NAME,
        ],
        listener,
    )


def _stop_on_signals() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set; the second signal ends the process at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(number: signal.Signals) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()
        # Should draining or closing hang, the promise of an end is kept all the same. What was
        # acknowledged is on disk already.
        loop.call_later(STOP_S, os._exit, 0)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    return stop
