"""Who may talk to whom between members, decided before the first message of a call is read.

Both sides introduce themselves: the caller in the call's metadata, the called one in its initial
metadata. Cluster, member id, the name in the certificate and the memory of the other
(peer_registry) must all agree.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from typing import Any, Final

import grpc
import structlog
from google.protobuf.message import DecodeError

from kvstore.api.metadata_keys import INTRODUCTION_KEY, REMOVED_KEY
from kvstore.api.v1 import raft_pb2
from kvstore.errors import Error
from kvstore.server.peers.identity import MemberIdentity
from kvstore.server.peers.names import parse_member_name
from kvstore.server.peers.pulses import Pulses
from kvstore.server.peers.registry import Known, PeerRegistry, StaleMemberError
from kvstore.server.peers.secret import NONCE_BYTES, is_proved, prove
from kvstore.server.peers.streams import has_ended
from kvstore.version import version

log = structlog.get_logger("kvstore.peer")


Introduction = tuple[tuple[str, bytes], ...]
"""Metadata by which a member says who it is."""

MODEL: Final = "model"
"""The feature of a kvd that understands entries of operations (``raft.proto``)."""

NUMBERED: Final = "numbered"
"""The feature of a kvd that understands requests with numbers of sessions, and users, in them."""

ACCUSES: Final = "accuses"
"""The feature of a kvd that understands alarms of members whose states differ, and only tell."""

COMPARES: Final = "compares"
"""The feature of a kvd that takes questions about its state, and answers them."""

MENDS: Final = "mends"
"""The feature of a kvd that gives others the data of entries that is damaged in their logs."""

LENDS: Final = "lends"
"""The feature of a kvd that gives others the rows that a damaged table of theirs lost."""

FEATURES: Final = (MODEL, NUMBERED, ACCUSES)
"""Of this kvd: one for each level of the state (``kvstore.state.mvcc.requests.RaiseLevel``)."""

FEATURES_OF_MAX: Final = 1024
"""Members, and strangers, whose features are remembered."""


class RefusedPeerError(Error):
    """A peer that is not who it should be; ``code`` is what its call ends with.

    ``told`` is what the peer is told, where the message, for this member's log, says more;
    ``removed`` says that it was a member and is none any more.
    """

    def __init__(
        self, code: grpc.StatusCode, message: str, told: str = "", *, removed: bool = False
    ) -> None:
        super().__init__(message)
        self.code = code
        self.told = told or message
        self.removed = removed

    @property
    def trailer(self) -> tuple[tuple[str, str], ...]:
        """Trailing metadata of the call."""
        return ((REMOVED_KEY, "1"),) if self.removed else ()


class Introductions:
    """This member's own words, and its judgement of those of others.

    ``members`` are those of the newest configuration, or to begin with those of the file. With
    ``secret`` both sides must know it. ``pulses`` exchange their keys in introductions.
    """

    def __init__(
        self,
        identity: MemberIdentity,
        registry: PeerRegistry,
        members: Iterable[int],
        secret: bytes | None = None,
        pulses: Pulses | None = None,
    ) -> None:
        self.identity = identity
        self.registry = registry
        self.members = frozenset(members)
        self._secret = secret
        self.pulses = pulses
        self._features: dict[int, frozenset[str]] = {}

    def follow(self, members: Iterable[int]) -> None:
        """Another configuration holds. Raises StorageError when its members can't be noted."""
        self.members = frozenset(members)
        self.registry.settle(self.members)

    @property
    def member(self) -> int:
        """This member's id."""
        return self.identity.member

    def to(self, receiver: int, caller: Iterable[Any] = ()) -> Introduction:
        """Metadata that introduces this member to ``receiver``.

        ``caller``: the metadata of the call that it answers, where it was called.
        """
        introduction = raft_pb2.Introduction(
            cluster_id=self.identity.cluster_id,
            sender=self.member,
            receiver=receiver,
            incarnation=self.identity.incarnation,
            starts=self.identity.starts,
            founders=self.identity.founders,
            version=version(),
            nonce=secrets.token_bytes(NONCE_BYTES),
            features=(*FEATURES, COMPARES, MENDS, LENDS),
        )
        if self.pulses is not None:
            introduction.pulse_key = self.pulses.key_for(receiver)
            introduction.pulse_sequence = self.pulses.sequence
        if caller:
            introduction.answers = _parse(caller).nonce
        if self._secret is not None:
            prove(self._secret, introduction)
        return ((INTRODUCTION_KEY, introduction.SerializeToString()),)

    def judge_caller(self, metadata: Iterable[Any], auth: Mapping[str, Iterable[bytes]]) -> int:
        """The member that calls. ``auth`` is gRPC's auth context.

        Raises RefusedPeerError.
        """
        introduction = _parse(metadata)
        if has_ended(auth):
            raise RefusedPeerError(
                grpc.StatusCode.UNAVAILABLE,
                f"the certificate that member {introduction.sender} made this connection with has "
                "ended: dial again",
            )
        certified = _certified_name(auth)
        if certified is not None and certified != (
            self.identity.cluster_id.lower(),
            introduction.sender,
        ):
            raise RefusedPeerError(
                grpc.StatusCode.PERMISSION_DENIED,
                f"certificate is of member {certified[1]} of cluster {certified[0]!r}, but the "
                f"caller says that it is member {introduction.sender} of "
                f"{introduction.cluster_id!r}",
            )
        if b"ssl" in auth.get("transport_security_type", ()) and certified is None:
            raise RefusedPeerError(
                grpc.StatusCode.PERMISSION_DENIED,
                "certificate names no member; it must carry the DNS name "
                f"member-<id>.{self.identity.cluster_id.lower()}.kvstore",
                "certificate names no member; it must carry the DNS name "
                "member-<id>.<cluster id>.kvstore",
            )
        self._judge(introduction)
        return introduction.sender

    def all_have(self, feature: str, members: Iterable[int]) -> bool:
        """Whether each of ``members`` has said that its kvd, the one that runs now, has it.

        One that was never heard of, by this process, counts as one that hasn't.
        """
        return all(
            member == self.member or feature in self._features.get(member, ()) for member in members
        )

    def refuse_absent(self, member: int) -> None:
        """Raise RefusedPeerError unless the member is one: a certificate is no membership."""
        if member not in self.members:
            raise RefusedPeerError(
                grpc.StatusCode.PERMISSION_DENIED,
                f"{member} is no member of cluster {self.identity.cluster_id!r}",
                f"{member} is no member",
            )

    def judge_called(self, metadata: Iterable[Any], expected: int, said: Iterable[Any]) -> None:
        """The member that was dialled, by its answer to what was ``said``.

        Raises RefusedPeerError unless it is ``expected``.
        """
        introduction = _parse(metadata)
        if self._secret is not None and introduction.answers != _parse(said).nonce:
            raise RefusedPeerError(
                grpc.StatusCode.UNAUTHENTICATED,
                f"who answers at the address of member {expected} answers another call",
            )
        if introduction.sender != expected:
            raise RefusedPeerError(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"member {introduction.sender} answers at the address of member {expected}",
            )
        self._judge(introduction)

    def refuse_removed(self, member: int) -> None:
        """Raise RefusedPeerError when a member was taken out of the cluster."""
        if self.registry.is_removed(member):
            raise RefusedPeerError(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"member {member} was removed from cluster {self.identity.cluster_id!r}; "
                "add it under a new id, with an empty data directory",
                removed=True,
            )

    def _judge(self, introduction: raft_pb2.Introduction) -> None:
        own = self.identity
        sender = introduction.sender
        if self._secret is not None and not is_proved(self._secret, introduction):
            raise RefusedPeerError(
                grpc.StatusCode.UNAUTHENTICATED,
                f"who says that it is member {sender} doesn't know the cluster's secret "
                "(peer_secret_file)",
            )
        if introduction.cluster_id != own.cluster_id:
            raise RefusedPeerError(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"member {sender} belongs to cluster {introduction.cluster_id!r}, this is "
                f"{own.cluster_id!r}",
                # Who only guesses isn't helped: the name opens a port without certificates.
                f"member {sender} belongs to cluster {introduction.cluster_id!r}, this is another",
            )
        if introduction.receiver != own.member:
            raise RefusedPeerError(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"member {sender} looks for member {introduction.receiver}, this is {own.member}",
            )
        if sender == own.member:
            raise RefusedPeerError(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"another kvd says that it is member {sender} too",
            )
        if introduction.founders and own.founders and introduction.founders != own.founders:
            raise RefusedPeerError(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"member {sender} was started with other [[nodes]] than member {own.member}, or "
                "not restored from the same snapshot; all founders need the same list and file, "
                "and one that is added later needs join = true",
            )
        self.refuse_removed(sender)
        try:
            seen = Known(introduction.incarnation, introduction.starts)
            self.registry.admit(sender, seen, present=sender in self.members)
        except StaleMemberError as error:
            raise RefusedPeerError(grpc.StatusCode.ABORTED, str(error)) from error
        if sender in self.members or len(self._features) < FEATURES_OF_MAX:
            self._features[sender] = frozenset(introduction.features)
        if self.pulses is not None:
            self.pulses.learn(sender, introduction.pulse_key, introduction.pulse_sequence)


def introduced(metadata: Iterable[Any]) -> bool:
    """Whether the other side introduced itself at all; a call that failed has no introduction."""
    return any(key == INTRODUCTION_KEY for key, _ in metadata)


def says_removed(trailer: Iterable[Any]) -> bool:
    """Whether a refusal says that this member was taken out of the cluster."""
    return any(key == REMOVED_KEY for key, _ in trailer)


def _parse(metadata: Iterable[Any]) -> raft_pb2.Introduction:
    for key, value in metadata:
        if key == INTRODUCTION_KEY:
            try:
                return raft_pb2.Introduction.FromString(value)
            except DecodeError as error:
                raise RefusedPeerError(
                    grpc.StatusCode.INVALID_ARGUMENT, f"{INTRODUCTION_KEY} can't be read: {error}"
                ) from error
    raise RefusedPeerError(
        grpc.StatusCode.UNAUTHENTICATED,
        f"the other side is no member: {INTRODUCTION_KEY} is missing",
    )


def _certified_name(auth: Mapping[str, Iterable[bytes]]) -> tuple[str, int] | None:
    for name in auth.get("x509_subject_alternative_name", ()):
        parsed = parse_member_name(name.decode("ascii", "replace"))
        if parsed is not None:
            return parsed
    return None
