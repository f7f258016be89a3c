"""Types of raft_pb2_grpc.py, by tools/generate_stubs.py. Do not edit."""

from collections.abc import AsyncIterator, Awaitable

import grpc
import grpc.aio

from kvstore.api.v1 import raft_pb2

class RaftPeerStub:
    def __init__(self, channel: grpc.Channel | grpc.aio.Channel) -> None: ...
    RequestVote: grpc.UnaryUnaryMultiCallable[raft_pb2.RequestVoteRequest, raft_pb2.RequestVoteResponse]
    AppendEntries: grpc.UnaryUnaryMultiCallable[raft_pb2.AppendEntriesRequest, raft_pb2.AppendEntriesResponse]
    InstallSnapshot: grpc.StreamUnaryMultiCallable[raft_pb2.InstallSnapshotRequest, raft_pb2.InstallSnapshotResponse]
    Messages: grpc.StreamUnaryMultiCallable[raft_pb2.MessageFrame, raft_pb2.MessageFrameReply]
    Register: grpc.UnaryUnaryMultiCallable[raft_pb2.RegisterRequest, raft_pb2.RegisterResponse]

# The same class over a grpc.aio channel; a name for type checkers only.
class RaftPeerAsyncStub:
    RequestVote: grpc.aio.UnaryUnaryMultiCallable[raft_pb2.RequestVoteRequest, raft_pb2.RequestVoteResponse]
    AppendEntries: grpc.aio.UnaryUnaryMultiCallable[raft_pb2.AppendEntriesRequest, raft_pb2.AppendEntriesResponse]
    InstallSnapshot: grpc.aio.StreamUnaryMultiCallable[raft_pb2.InstallSnapshotRequest, raft_pb2.InstallSnapshotResponse]
    Messages: grpc.aio.StreamUnaryMultiCallable[raft_pb2.MessageFrame, raft_pb2.MessageFrameReply]
    Register: grpc.aio.UnaryUnaryMultiCallable[raft_pb2.RegisterRequest, raft_pb2.RegisterResponse]

class RaftPeerServicer:
    def RequestVote(
        self,
        request: raft_pb2.RequestVoteRequest,
        context: grpc.aio.ServicerContext[raft_pb2.RequestVoteRequest, raft_pb2.RequestVoteResponse],
    ) -> Awaitable[raft_pb2.RequestVoteResponse]: ...
    def AppendEntries(
        self,
        request: raft_pb2.AppendEntriesRequest,
        context: grpc.aio.ServicerContext[raft_pb2.AppendEntriesRequest, raft_pb2.AppendEntriesResponse],
    ) -> Awaitable[raft_pb2.AppendEntriesResponse]: ...
    def InstallSnapshot(
        self,
        request_iterator: AsyncIterator[raft_pb2.InstallSnapshotRequest],
        context: grpc.aio.ServicerContext[raft_pb2.InstallSnapshotRequest, raft_pb2.InstallSnapshotResponse],
    ) -> Awaitable[raft_pb2.InstallSnapshotResponse]: ...
    def Messages(
        self,
        request_iterator: AsyncIterator[raft_pb2.MessageFrame],
        context: grpc.aio.ServicerContext[raft_pb2.MessageFrame, raft_pb2.MessageFrameReply],
    ) -> Awaitable[raft_pb2.MessageFrameReply]: ...
    def Register(
        self,
        request: raft_pb2.RegisterRequest,
        context: grpc.aio.ServicerContext[raft_pb2.RegisterRequest, raft_pb2.RegisterResponse],
    ) -> Awaitable[raft_pb2.RegisterResponse]: ...

def add_RaftPeerServicer_to_server(
    servicer: RaftPeerServicer, server: grpc.Server | grpc.aio.Server
) -> None: ...
