"""One kvd from start to end: bind, open, announce, serve, drain."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import os
import select
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import structlog
import uvloop
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from kvstore.addresses import is_loopback
from kvstore.api.handlers.admin import AdminHandlers, everybody
from kvstore.api.handlers.etcd.register import Context
from kvstore.api.handlers.etcd.rights import Rights
from kvstore.api.handlers.gateway.gateway import Gateway
from kvstore.api.handlers.kv import KVHandlers
from kvstore.api.handlers.kv_batches import PATHS, KVBatches
from kvstore.api.handlers.sessions import SessionsHandlers
from kvstore.api.operator_access import is_operator
from kvstore.api.tolerant import tolerant
from kvstore.api.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    kv_pb2,
    kv_pb2_grpc,
    session_pb2,
    session_pb2_grpc,
)
from kvstore.errors import Error, StorageError
from kvstore.server.config.data_directory import DataDirectory
from kvstore.server.config.options import ServerOptions
from kvstore.server.descriptors import client_connections_max, raise_limit
from kvstore.server.etcd_services import EtcdRefusals, EtcdServices
from kvstore.server.exposure import exposures, say
from kvstore.server.health import HealthWatch
from kvstore.server.http.face import HttpFace
from kvstore.server.http.probes import Probes
from kvstore.server.listeners.admin_socket import serve_operators
from kvstore.server.listeners.bounds import MESSAGE_BYTES_MAX
from kvstore.server.listeners.front import Front, Listener, choose_front
from kvstore.server.logs import configure_logs
from kvstore.server.metrics.switch import MetricsSwitch, open_metrics
from kvstore.server.nodes.node import Node
from kvstore.server.slow_calls import SlowCalls, last_entry_of, newest_of
from kvstore.server.supervisor import notify, watch_over
from kvstore.server.tls.certificate_files import CertificateFiles
from kvstore.server.traces.switch import open_traces

# From the first signal to the exit, at most: handing leadership over and calls under way get
# DRAIN_S, of that the former HAND_OVER_S, and closing gets the rest.
STOP_S = 5.0
DRAIN_S = 4.0
HAND_OVER_S = 1.0

# The status that says so, as ``kvstore.cli.exit_codes`` and docs/operations.md have it.
STORAGE_FAILED = 5

# Hardly anything here is cyclic. With Python's own thresholds the oldest generation, hundreds of
# thousands of remembered requests, would be walked every second or two, 80 ms at a time.
GC_THRESHOLDS = (10_000, 20, 200)

# How a mode's node is made, on the running event loop, from what the data directory holds.
OpenNode = Callable[[ServerOptions, Path], Awaitable[Node]]
# The same of a mode that has none.
OpenGateway = Callable[[ServerOptions], Awaitable[Node]]
Opened = Callable[[], contextlib.AbstractAsyncContextManager[tuple[Node, Path | None]]]

# What asks for an end.
_STOPPING = (signal.SIGTERM, signal.SIGINT)
# Among their numbers, for the thread that waits for them.
_FAILED = b"\0"

log = structlog.get_logger("kvstore.server")


def serve(options: ServerOptions, open_node: OpenNode) -> None:
    """Serve what ``open_node`` opens until a signal asks for an end.

    Raises ConfigurationError when it can't start and whatever made the node fail while serving.
    """

    @contextlib.asynccontextmanager
    async def opened() -> AsyncIterator[tuple[Node, Path | None]]:
        with DataDirectory(options.data_path, options.mode) as directory:
            yield await open_node(options, directory.path.resolve()), directory.path

    _run(options, opened)


def serve_gateway(options: ServerOptions, open_gateway: OpenGateway) -> None:
    """The same of what has no data directory, and so no socket for operators in it."""

    @contextlib.asynccontextmanager
    async def opened() -> AsyncIterator[tuple[Node, Path | None]]:
        yield await open_gateway(options), None

    _run(options, opened)


def _run(options: ServerOptions, opened: Opened) -> None:
    configure_logs(options.log_level, options.log_format)
    certificates = None
    if options.tls_profile == "secure":
        assert options.tls_cert is not None
        assert options.tls_key is not None
        certificates = CertificateFiles(
            cert=options.tls_cert, key=options.tls_key, ca=options.tls_client_ca
        )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(options, certificates, opened))


async def _serve(
    options: ServerOptions, certificates: CertificateFiles | None, opened: Opened
) -> None:
    _exit_on_signals()
    front = choose_front(options.front)
    found = exposures(options)
    slow = SlowCalls(options.slow_call_ms / 1000) if options.slow_call_ms else None
    with (
        open_traces(os.environ) as traces,
        open_metrics(options.metrics_addr, certificates, found, slow, traces) as metrics,
    ):
        connections_max = client_connections_max(raise_limit())
        listener = front.open(connections_max, certificates, metrics)
        metrics.watch_front(listener.figures)
        # The address first: if it can't be had, nothing was written.
        address = listener.bind(options.listen_addr)
        try:
            async with opened() as (node, directory):
                try:
                    ending = _Ending()
                    with metrics.of(node):
                        await _serve_node(
                            options,
                            front,
                            listener,
                            address,
                            directory,
                            node,
                            ending,
                            list(found.values()),
                            metrics,
                        )
                finally:
                    await node.close()
        finally:
            await listener.stop(grace=None)
    log.info("stopped")


async def _serve_node(
    options: ServerOptions,
    front: Front,
    listener: Listener,
    address: str,
    directory: Path | None,
    node: Node,
    ending: _Ending,
    warnings: Sequence[str],
    metrics: MetricsSwitch,
) -> None:
    """Answer clients until it is asked to end or the node fails, which is raised."""
    front.say()
    say(options, exposures(options))
    health = HealthWatch(node.leader, node.storage_trouble)
    warnings = [*warnings, *node.exposures().values()]
    allows = everybody if options.admin == "everybody" else is_operator
    etcd: EtcdServices | EtcdRefusals = EtcdRefusals(node.no_etcd)
    if options.etcd_api:
        etcd = EtcdServices(node, address, Rights(allows, _upkeep(options, allows)))
    newest = partial(newest_of, metrics.slow)
    if metrics.slow is not None:
        metrics.slow.last_entry = partial(last_entry_of, node)
    if metrics.traces is not None:
        metrics.traces.last_entry = partial(last_entry_of, node)
        node.trace_by(metrics.traces)
    _add_services(listener, node, health, AdminHandlers(node, allows, warnings, newest), etcd)
    for_operators = AdminHandlers(node, is_operator, warnings, newest)
    add_services = partial(_add_services, node=node, health=health, admin=for_operators, etcd=etcd)
    with contextlib.closing(Gateway(MESSAGE_BYTES_MAX)) as gateway:
        etcd_service = node.etcd if isinstance(etcd, EtcdServices) else None
        probes = Probes(etcd_service, node.leader, node.storage_trouble)
        _serve_http(listener, probes, gateway, etcd)
        metrics.probe_by(probes)
        operators: contextlib.AbstractAsyncContextManager[None] = contextlib.nullcontext()
        if directory is not None:
            operators = serve_operators(directory, front.open, add_services)
        async with watch_over(), operators:
            await _serve_clients(options, listener, address, node, ending, health, etcd, probes)


def _serve_http(
    listener: Listener, probes: Probes, gateway: Gateway, etcd: EtcdServices | EtcdRefusals
) -> None:
    """Have the port of clients answer HTTP/1.1 as well, where that can be."""
    etcd.add(gateway)
    if not listener.serve_http(HttpFace(probes, gateway)):
        log.info("no HTTP/1.1 (/health, JSON): the native front alone has it")


def _upkeep(options: ServerOptions, allows: Callable[[Context], bool]) -> Callable[[Context], bool]:
    """Who may have a member do what is heavy: operators, and whoever there is where nobody from
    elsewhere is, and nobody is asked who they are."""
    if options.tls_profile == "dev" and is_loopback(options.listen_addr):
        return everybody
    return allows


async def _serve_clients(
    options: ServerOptions,
    listener: Listener,
    address: str,
    node: Node,
    ending: _Ending,
    health: HealthWatch,
    etcd: EtcdServices | EtcdRefusals,
    probes: Probes,
) -> None:
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
    asked_to_stop = asyncio.create_task(ending.stop.wait(), name="stop")
    ends: list[asyncio.Future[Any]] = [asked_to_stop, node.failed, health.failed]
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if node.failed.done():
            ending.failed(node.failed.result())
            raise node.failed.result()
        if health.failed.done():
            raise health.failed.result()
        log.info("stopping: finishing the calls under way", drain_s=DRAIN_S)
        notify("STOPPING=1")
        probes.stopping = True
        until = asyncio.get_running_loop().time() + DRAIN_S
        await health.stop()
        # First, and while calls are still taken: whoever comes is told who leads then.
        await _hand_over(node)
        etcd.close()
        await listener.stop(grace=max(0.0, until - asyncio.get_running_loop().time()))
    finally:
        asked_to_stop.cancel()
        await health.stop()


async def _hand_over(node: Node) -> None:
    """Let another member lead before this one goes: its leaving then costs no election timeout."""
    try:
        async with asyncio.timeout(HAND_OVER_S):
            leader = await node.hand_over()
    except (Error, TimeoutError) as error:
        reason = str(error) or "nobody took over in time"
        log.warning("stopping without handing leadership over", reason=reason)
    else:
        if leader:
            log.info("leadership handed over", leader=leader)


def _add_services(
    listener: Listener,
    node: Node,
    health: HealthWatch,
    admin: AdminHandlers,
    etcd: EtcdServices | EtcdRefusals,
) -> None:
    batches = KVBatches(node.service, node.forward, node.guard)
    hot = listener.add_hot_methods(PATHS, batches.take)
    if hot is not None:
        batches.answered_by(hot)
    services = tolerant(listener.services)
    kv_pb2_grpc.add_KVServicer_to_server(
        KVHandlers(node.service, node.forward, node.guard), services
    )
    session_pb2_grpc.add_SessionsServicer_to_server(
        SessionsHandlers(
            node.service,
            node.forward,
            node.guard,
            numbers_operations=lambda: (
                isinstance(etcd, EtcdServices) and node.etcd.numbers_requests
            ),
        ),
        services,
    )
    admin_pb2_grpc.add_AdminServicer_to_server(admin, services)
    health_pb2_grpc.add_HealthServicer_to_server(health.servicer, services)
    reflected = reflection.aio.ReflectionServicer(  # type: ignore[attr-defined]
        (
            kv_pb2.DESCRIPTOR.services_by_name["KV"].full_name,
            session_pb2.DESCRIPTOR.services_by_name["Sessions"].full_name,
            admin_pb2.DESCRIPTOR.services_by_name["Admin"].full_name,
            health_pb2.DESCRIPTOR.services_by_name["Health"].full_name,
            reflection.SERVICE_NAME,
        )
    )
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflected, listener.services)
    etcd.add(listener.services)
    etcd.take_batches(listener)


def _exit_on_signals() -> None:
    """Until it serves, let SIGTERM and SIGINT end the process at once, whatever it does.

    It may wait for other founders, or replay a log, where the loop gets no turn. Nothing depends on
    a clean end: what is on disk then is what a crash would leave.
    """

    def on_signal(number: int, _frame: object) -> None:
        # It may come amid a line that is being logged, which nothing can be put into.
        with contextlib.suppress(RuntimeError):
            log.info("stopped before it served", signal=signal.Signals(number).name)
        notify("STOPPING=1")
        os._exit(0)

    for number in _STOPPING:
        signal.signal(number, on_signal)


class _Ending:
    """The promise of an end, kept by a thread that is there from the start.

    ``stop`` is set by SIGTERM and SIGINT, of which the thread learns from the very handler in C:
    the loop may hang, on a disk say, and then takes nothing in. Should draining or closing hang,
    the thread ends the process STOP_S later; a second signal ends it at once. It needs nothing that
    a system could refuse by then, another thread least of all. What was acknowledged is on disk
    already.
    """

    def __init__(self) -> None:
        """Take the signals from now on. On the main thread, with a running loop."""
        self.stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._reason: Error | None = None
        self._told, self._tell = os.pipe()
        os.set_blocking(self._tell, False)
        for number in _STOPPING:
            signal.signal(number, _leave_to_thread)
        signal.set_wakeup_fd(self._tell, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, name="kvstore-signals", daemon=True).start()

    def failed(self, reason: Error) -> None:
        """The node failed. Its disk may hang, and closing with it.

        The end then has the words and the status of ``reason``.
        """
        self._reason = reason
        # Full, it is full of signals: the thread wakes all the same.
        with contextlib.suppress(BlockingIOError):
            os.write(self._tell, _FAILED)

    def _watch(self) -> None:
        ready = select.poll()  # unlike select() for any descriptor
        ready.register(self._told, select.POLLIN)
        asked = False
        until = math.inf
        while True:
            left = until - time.monotonic()
            if not ready.poll(None if left == math.inf else max(0.0, left * 1000)):
                _give_up(self._reason)
            (number,) = os.read(self._told, 1)
            if number in _STOPPING:
                if asked:
                    os._exit(128 + number)
                asked = True
                # The loop may be closed by now.
                with contextlib.suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(self.stop.set)
            elif self._reason is None:
                continue  # another signal, which somebody else takes
            until = min(until, time.monotonic() + STOP_S)


def _leave_to_thread(number: int, frame: object) -> None:
    """The signal's own handler in Python: without one it would end the process."""


def _give_up(reason: Error | None) -> None:
    log.error("did not stop in time: ended", stop_s=STOP_S)
    if reason is not None:
        print(reason, file=sys.stderr, flush=True)
    os._exit(STORAGE_FAILED if isinstance(reason, StorageError) else 1)
