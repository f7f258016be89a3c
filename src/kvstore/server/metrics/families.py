"""The series that are read, not counted: a moment of a node in Prometheus' words."""

from __future__ import annotations

import dataclasses
import datetime
import errno
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from kvstore.beyond.rados import RadosFigures
from kvstore.errors import StorageError
from kvstore.replica import ReplicaStatus
from kvstore.replica.comparing import ComparisonFigures
from kvstore.replica.counters import ReplicaCounters
from kvstore.replica.directory import MemberDirectory
from kvstore.replica.durations import BOUNDS_S, Histogram
from kvstore.replica.options import ROLES
from kvstore.replica.scrub import ScrubFigures
from kvstore.server.metrics.front_figures import FrontFigures
from kvstore.server.nodes.driver import LoopFigures
from kvstore.server.nodes.node import NodeFigures
from kvstore.server.peers.link import LinkFigures
from kvstore.server.peers.pulse_thread import PulseFigures
from kvstore.server.tls.handshakes import Handshakes
from kvstore.service.etcd.hub import HubFigures
from kvstore.service.etcd.leases import LeaseFigures
from kvstore.service.etcd.quota import QuotaFigures
from kvstore.state.mvcc.requests import AlarmKind
from kvstore.version import version

__all__ = ["Moment", "families_of", "take_moment"]


@dataclasses.dataclass(frozen=True, slots=True)
class MemberMoment:
    """A member at one moment; sizes on the disk are read from ``directory`` later."""

    directory: MemberDirectory
    status: ReplicaStatus
    counters: ReplicaCounters
    comparison: ComparisonFigures
    scrub: ScrubFigures
    voters: int
    log_sync: Histogram
    commit: Histogram
    apply: Histogram


@dataclasses.dataclass(frozen=True, slots=True)
class Moment:
    """What was read on the event loop.

    ``waiting``, ``saved_at``: as NodeFigures has them. By use, ``expiries``: when each
    certificate ends; ``handshakes``: how many were begun and refused (None: nobody knows).
    ``front``: None of a grpcio listener.
    """

    members: tuple[MemberMoment, ...]
    loop: LoopFigures
    links: Mapping[int, LinkFigures]
    expiries: Mapping[str, datetime.datetime]
    handshakes: Mapping[str, tuple[int, int | None]]
    exposed: Sequence[str] = ()
    pulses: PulseFigures | None = None
    front: FrontFigures | None = None
    watches: HubFigures | None = None
    leases: LeaseFigures | None = None
    quota: QuotaFigures | None = None
    waiting: Mapping[str, int] = dataclasses.field(default_factory=dict)
    saved_at: float = 0.0
    rados: RadosFigures | None = None


def take_moment(figures: NodeFigures, front: FrontFigures | None = None) -> Moment:
    """Copy what is to be told. On the event loop's thread."""
    return Moment(
        tuple(
            MemberMoment(
                replica.directory,
                replica.status(),
                dataclasses.replace(replica.counters),
                replica.comparing.figures(),
                replica.scrub.figures(),
                len(replica.membership.voters),
                replica.durations.log_sync.copy(),
                replica.durations.commit.copy(),
                replica.durations.apply.copy(),
            )
            for replica in figures.replicas
        ),
        figures.loop,
        figures.links,
        {use: files.expires() for use, files in figures.certificates.items()},
        {
            use: (files.handshakes.begun, _refused(use, files.handshakes))
            for use, files in figures.certificates.items()
        },
        figures.exposed,
        figures.pulses,
        front,
        figures.watches,
        figures.leases,
        figures.quota,
        figures.waiting,
        figures.saved_at,
        figures.rados,
    )


def _refused(use: str, handshakes: Handshakes) -> int | None:
    # With grpcio it is those that no call followed, and clients may connect and stay silent.
    return handshakes.refused if handshakes.exact or use == "peer" else None


class _Book:
    """Families in the order of their first sample."""

    def __init__(self) -> None:
        self.families: dict[str, Metric] = {}

    def gauge(self, name: str, text: str, value: float, **labels: object) -> None:
        self._add(GaugeMetricFamily, name, text, value, labels)

    def counter(self, name: str, text: str, value: float, **labels: object) -> None:
        self._add(CounterMetricFamily, name, text, value, labels)

    def histogram(self, name: str, text: str, value: Histogram, **labels: object) -> None:
        family: Any = self._family(HistogramMetricFamily, name, text, labels)
        bounds = [*map(str, BOUNDS_S), "+Inf"]
        buckets = list(zip(bounds, itertools.accumulate(value.buckets), strict=True))
        family.add_metric([str(label) for label in labels.values()], buckets, value.sum_s)

    def _add(
        self, kind: Any, name: str, text: str, value: float, labels: Mapping[str, object]
    ) -> None:
        family = self._family(kind, name, text, labels)
        family.add_metric([str(label) for label in labels.values()], value)

    def _family(self, kind: Any, name: str, text: str, labels: Mapping[str, object]) -> Any:
        family = self.families.get(name)
        if family is None:
            family = self.families[name] = kind(f"kvstore_{name}", text, labels=list(labels))
        return family


def families_of(moment: Moment) -> list[Metric]:
    """The series. Reads sizes on the disk: not on the event loop's thread."""
    book = _Book()
    book.gauge("build_info", "Always 1", 1, version=version())
    book.gauge("loop_turn_seconds_max", "Longest turn of members, lately", moment.loop.turn_s)
    book.gauge("loop_late_seconds_max", "Most that a tick came late, lately", moment.loop.late_s)
    for what in moment.exposed:
        book.gauge("exposed", "1: open to whoever reaches it", 1, what=what)
    for member in moment.members:
        _raft(book, member.status)
        of = member.status.raft.id
        book.gauge("raft_voters", "Members that vote, as it knows", member.voters, member=of)
        _durations(book, member)
        _counters(book, member.status.raft.id, member.counters)
        _comparison(book, member.status.raft.id, member.comparison)
        _scrub(book, member.status.raft.id, member.scrub)
        _disk(book, member.status.raft.id, member.directory)
        _engine(book, member.status.raft.id, member.status.engine)
    for api, waiting in moment.waiting.items():
        book.gauge("queued_calls", "Calls that wait for their answer", waiting, api=api)
    if moment.saved_at:
        text = "When a backup of it was last taken whole, since 1970"
        book.gauge("backup_last_success_timestamp_seconds", text, moment.saved_at)
    for peer, link in moment.links.items():
        book.gauge("peer_connected", "1: the stream to it is open", link.connected, peer=peer)
        book.counter("peer_sent_frames", "Frames sent to it", link.frames, peer=peer)
        book.counter("peer_sent_messages", "Messages sent to it", link.messages, peer=peer)
        book.counter("peer_sent_bytes", "Bytes of messages sent to it", link.bytes, peer=peer)
        book.counter("peer_dropped_messages", "Messages dropped", link.dropped, peer=peer)
    pulses = moment.pulses
    if pulses is not None:
        book.gauge("pulse_listening", "1: sends and answers pulses", pulses.listening)
        book.counter("pulse_sent", "Pulses and answers sent", pulses.sent)
        book.counter("pulse_heard", "Pulses and answers of members", pulses.heard)
        book.counter("pulse_dropped", "Datagrams of strangers, or doubled", pulses.dropped)
    now = datetime.datetime.now(datetime.UTC)
    for use, end in moment.expiries.items():
        left = (end - now).total_seconds()
        book.gauge("certificate_expiry_seconds", "Until it ends; below 0: ended", left, use=use)
    for use, (begun, refused) in moment.handshakes.items():
        book.counter("tls_handshakes", "Begun by whoever connected", begun, use=use)
        if refused is not None:
            text = "That failed, or that no call followed"
            book.counter("tls_handshakes_refused", text, refused, use=use)
    if moment.front is not None:
        _front(book, moment.front)
    if moment.watches is not None:
        _watches(book, moment.watches)
    if moment.leases is not None:
        _leases(book, moment.leases)
    if moment.quota is not None:
        _quota(book, moment.quota)
    if moment.rados is not None:
        _rados(book, moment.rados)
    return list(book.families.values())


def _rados(book: _Book, rados: RadosFigures) -> None:
    book.gauge("rados_reads", "Gets that the pool is asked for", rados.reads)
    book.gauge("rados_turns", "Buckets that are written", rados.turns)
    book.gauge("rados_write_bytes", "Of writes that are held", rados.write_bytes)
    book.gauge("rados_abandoned", "Not answered by the pool, and given up", rados.abandoned)
    book.gauge("rados_abandoned_bytes", "Bytes of values of these", rados.abandoned_bytes)
    book.gauge("rados_silent_seconds", "Since the pool answered last", rados.silent_s)
    book.counter("rados_conflicts", "Turns that lost a race and began anew", rados.conflicts)
    for number, count in sorted(rados.failures.items()):
        name = errno.errorcode.get(number, str(number))
        book.counter("rados_failures", "Operations that came to nothing", count, errno=name)


def _front(book: _Book, front: FrontFigures) -> None:
    book.gauge("connections", "Connections of clients", front.connections)
    book.gauge("connections_half_open", "That haven't shaken hands yet", front.half_open)
    book.gauge("calls", "Calls of clients under way", front.calls)
    book.gauge("received_bytes", "Of requests that wait", front.received_bytes)
    book.gauge("received_bytes_limit", "Bound of them", front.received_bytes_max)
    book.gauge("unsent_bytes", "Of answers that wait", front.unsent_bytes)
    book.gauge("unsent_bytes_limit", "Bound of them", front.unsent_bytes_max)
    book.counter("connections_accepted", "Connections taken", front.accepted)
    book.counter("connections_refused", "Closed at once: too many", front.refused_connections)
    for why, number in front.cut.items():
        book.counter("connections_cut", "Ended by this server", number, why=why)
    book.counter("calls_refused", "Refused: too many at one time", front.refused_calls)
    book.counter("answers_unread", "Given up: the client didn't read", front.unread_answers)
    book.counter("requests_slow", "Given up: took too long to come", front.slow_requests)


def _watches(book: _Book, watches: HubFigures) -> None:
    book.gauge("watch_streams", "Streams of watches", watches.streams)
    book.gauge("watches", "Watches", watches.watches)
    book.gauge("watches_behind", "That get older events from history", watches.behind)
    book.gauge("watch_held_bytes", "Of events that wait for streams", watches.held_bytes)
    book.counter("watch_events", "Events handed to watches", watches.events)
    book.counter("watches_fell_behind", "Whose streams had no room", watches.fell_behind)
    book.counter("watch_streams_parked", "Whose events were let go of", watches.parked)
    book.counter("watches_compacted", "Ended: history was compacted", watches.compacted)


def _leases(book: _Book, leases: LeaseFigures) -> None:
    book.gauge("leases", "Leases that are there", leases.leases)
    book.gauge("leases_ending", "Run out, and not gone yet; the leader's", leases.ending)
    book.gauge("lease_calls_waiting", "Keep-alives and the like under way", leases.waiting)
    book.counter("leases_expired", "Revoked here, having run out", leases.expired)
    book.counter("leases_renewed", "Renewals told here", leases.renewed)
    book.counter("lease_rounds", "Asked of a majority for all of them", leases.rounds)
    book.counter("lease_stalls", "This process stood still", leases.stalls)


def _quota(book: _Book, quota: QuotaFigures) -> None:
    book.gauge("quota_bytes", "Beyond it the store takes no puts; 0: no bound", quota.quota_bytes)
    book.gauge("stored_bytes", "Of the store, as the quota counts them", quota.stored_bytes)
    kinds = [kind for _, kind in quota.alarms]
    for kind in (AlarmKind.NOSPACE, AlarmKind.CORRUPT, AlarmKind.DIFFERS):
        book.gauge("alarms", "That stand, of whichever member", kinds.count(kind), kind=kind.name)


def _raft(book: _Book, status: ReplicaStatus) -> None:
    raft = status.raft
    member = raft.id
    for name in ROLES:
        has = name == status.role
        book.gauge("raft_role", "1 for the role that it has", has, member=member, role=name)
    book.gauge("raft_term", "Term", raft.term, member=member)
    book.gauge("raft_leader", "Leader that it knows; 0: none", raft.leader, member=member)
    book.gauge("raft_commit_index", "Known to be committed", raft.commit, member=member)
    book.gauge("raft_applied_index", "In its state", status.applied, member=member)
    book.gauge("raft_last_index", "Last in its log", raft.last_index, member=member)
    requests, request_bytes, sessions = status.remembered
    book.gauge("remembered_requests", "Requests outside of sessions", requests, member=member)
    book.gauge("remembered_requests_bytes", "Their memory", request_bytes, member=member)
    book.gauge("sessions", "Sessions of clients", sessions, member=member)
    contact = raft.has_quorum_contact
    book.gauge("raft_quorum_contact", "1: hears a majority or a leader", contact, member=member)
    well = not status.storage_trouble and status.failure is None
    book.gauge("storage_well", "1: its storage takes writes", well, member=member)
    repairs = bool(status.repair)
    book.gauge("repair_under_way", "1: its damaged state is made anew", repairs, member=member)
    for peer in raft.peers:
        if peer.member != member:
            lag = max(0, raft.last_index - peer.match)
            book.gauge(
                "raft_peer_lag_entries",
                "Entries that a peer lacks, as its leader knows",
                lag,
                member=member,
                peer=peer.member,
            )


def _durations(book: _Book, member: MemberMoment) -> None:
    of = member.status.raft.id
    text = "From handing something to the log to knowing it durable"
    book.histogram("raft_log_sync_duration_seconds", text, member.log_sync, member=of)
    text = "From proposing an entry, as leader, to knowing it committed"
    book.histogram("raft_commit_duration_seconds", text, member.commit, member=of)
    text = "To apply a slice of committed entries"
    book.histogram("apply_duration_seconds", text, member.apply, member=of)


def _counters(book: _Book, member: int, counters: ReplicaCounters) -> None:
    for name, text in (
        ("leader_changes", "Other leaders that it came to know"),
        ("snapshots_sent", "Snapshots that a peer has whole"),
        ("snapshot_sent_bytes", "Bytes of snapshots that peers have"),
        ("snapshots_received", "Snapshots received whole"),
        ("snapshot_received_bytes", "Bytes of snapshots received"),
        ("log_read_back_bytes", "Bytes of the log's tail read for members that were away"),
        ("log_tails_lost", "Times that the log's tail was damaged and given up"),
        ("repairs_started", "Repairs of damage that were begun"),
        ("repairs_done", "Repairs after which it was whole again"),
        ("repairs_failed", "Tries of a repair that came to nothing"),
        ("repairs_by_range", "Repairs done by rows of other members, not by their whole state"),
        ("repair_received_bytes", "Bytes of such rows"),
    ):
        book.counter(f"raft_{name}", text, getattr(counters, name), member=member)


def _comparison(book: _Book, member: int, figures: ComparisonFigures) -> None:
    compared_s = -1.0 if figures.compared_s is None else figures.compared_s
    for name, text, value in (
        ("compared_seconds", "Since its state was found to be the others'; -1: none", compared_s),
        ("differing_members", "Whose states it finds to differ", len(figures.accused)),
        ("uncompared_members", "Whose states it couldn't compare", len(figures.uncompared)),
    ):
        book.gauge(f"state_{name}", text, value, member=member)
    book.counter("state_comparisons", "Begun by it as leader", figures.rounds, member=member)
    book.counter("state_differences", "Found in them", figures.differences, member=member)


def _scrub(book: _Book, member: int, figures: ScrubFigures) -> None:
    text = "Of the round of checks under way; -1: there are none"
    book.gauge("scrub_progress_ratio", text, figures.progress, member=member)
    text = "Since a round ended last; -1: none did yet"
    book.gauge("scrub_ended_seconds", text, figures.ended_s, member=member)
    book.counter("scrub_rounds", "Rounds that ended", figures.rounds, member=member)
    book.counter("scrub_bytes", "Bytes that were read and checked", figures.bytes, member=member)
    book.counter("scrub_damages", "Damages that were found", figures.damages, member=member)


def _disk(book: _Book, member: int, directory: MemberDirectory) -> None:
    try:
        log, free = directory.log_bytes(), directory.free_bytes()
    except StorageError:
        return  # closed or gone since; the other series still tell
    book.gauge("log_disk_bytes", "Log on disk, reserved segments included", log, member=member)
    book.gauge("disk_free_bytes", "Left on the disk", free, member=member)


def _engine(book: _Book, member: int, engine: Any) -> None:
    for name, text in (
        ("table_bytes", "Tables on disk"),
        ("memtable_bytes", "Writes in memory, not in tables yet"),
        ("frozen_memtables", "Memtables that wait for a flush"),
        ("compaction_score", "Most urgent compaction; from 1 on it is due"),
        ("write_amplification", "Bytes written to tables for each byte written"),
        ("space_amplification", "Bytes of all levels for each of the lowest"),
    ):
        book.gauge(f"engine_{name}", text, engine[name], member=member)
    for name, text in (
        ("user_bytes", "Keys and values written"),
        ("flushes", "Memtables written to tables"),
        ("flushed_bytes", "Bytes that flushes wrote"),
        ("compactions", "Compactions"),
        ("compaction_read_bytes", "Bytes that compactions read"),
        ("compacted_bytes", "Bytes that compactions wrote"),
        ("slowdowns", "Writes delayed for compactions"),
        ("stalls", "Writes that waited for compactions"),
        ("stall_seconds", "Time that writes waited"),
    ):
        book.counter(f"engine_{name}", text, engine[name], member=member)
    cache = engine["cache"]
    book.gauge("block_cache_bytes", "Blocks in the cache", cache["used_bytes"], member=member)
    book.gauge(
        "block_cache_capacity_bytes", "Bound of the cache", cache["capacity_bytes"], member=member
    )
    for name in ("hits", "misses", "evictions"):
        book.counter(f"block_cache_{name}", f"Block cache {name}", cache[name], member=member)
