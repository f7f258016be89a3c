"""``etcdserverpb.Cluster``: who belongs to the cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from kvstore.api.etcd import etcd_pb2 as pb
from kvstore.api.handlers.etcd.asking import Asking
from kvstore.api.handlers.etcd.register import Context

__all__ = ["ClusterHandlers", "ClusterMember"]


class ClusterMember(NamedTuple):
    """As clients see it; the URLs have their scheme."""

    id: int
    name: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    is_learner: bool


class ClusterHandlers:
    """Tells clients the members that this one knows."""

    def __init__(self, asking: Asking, members: Callable[[], Sequence[ClusterMember]]) -> None:
        self._asking = asking
        self._members = members

    async def MemberList(
        self, request: pb.MemberListRequest, context: Context
    ) -> pb.MemberListResponse:
        if request.linearizable:
            await self._asking.read_point(context)
        return pb.MemberListResponse(
            header=self._asking.header(0), members=[_message(one) for one in self._members()]
        )


def _message(member: ClusterMember) -> pb.Member:
    return pb.Member(
        ID=member.id,
        name=member.name,
        peerURLs=member.peer_urls,
        clientURLs=member.client_urls,
        isLearner=member.is_learner,
    )
