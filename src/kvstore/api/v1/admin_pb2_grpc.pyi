"""Types of admin_pb2_grpc.py, by tools/generate_stubs.py. Do not edit."""

from collections.abc import AsyncIterator, Awaitable

import grpc
import grpc.aio

from kvstore.api.v1 import admin_pb2

class AdminStub:
    def __init__(self, channel: grpc.Channel | grpc.aio.Channel) -> None: ...
    Status: grpc.UnaryUnaryMultiCallable[admin_pb2.StatusRequest, admin_pb2.StatusResponse]
    Members: grpc.UnaryUnaryMultiCallable[admin_pb2.MembersRequest, admin_pb2.MembersResponse]
    ChangeMembers: grpc.UnaryUnaryMultiCallable[admin_pb2.ChangeMembersRequest, admin_pb2.MembersResponse]
    TransferLeadership: grpc.UnaryUnaryMultiCallable[admin_pb2.TransferLeadershipRequest, admin_pb2.TransferLeadershipResponse]
    ForgetIntroduction: grpc.UnaryUnaryMultiCallable[admin_pb2.ForgetIntroductionRequest, admin_pb2.ForgetIntroductionResponse]
    Repair: grpc.UnaryUnaryMultiCallable[admin_pb2.RepairRequest, admin_pb2.RepairResponse]
    SaveSnapshot: grpc.UnaryStreamMultiCallable[admin_pb2.SaveSnapshotRequest, admin_pb2.SaveSnapshotResponse]
    SlowCalls: grpc.UnaryUnaryMultiCallable[admin_pb2.SlowCallsRequest, admin_pb2.SlowCallsResponse]

# The same class over a grpc.aio channel; a name for type checkers only.
class AdminAsyncStub:
    Status: grpc.aio.UnaryUnaryMultiCallable[admin_pb2.StatusRequest, admin_pb2.StatusResponse]
    Members: grpc.aio.UnaryUnaryMultiCallable[admin_pb2.MembersRequest, admin_pb2.MembersResponse]
    ChangeMembers: grpc.aio.UnaryUnaryMultiCallable[admin_pb2.ChangeMembersRequest, admin_pb2.MembersResponse]
    TransferLeadership: grpc.aio.UnaryUnaryMultiCallable[admin_pb2.TransferLeadershipRequest, admin_pb2.TransferLeadershipResponse]
    ForgetIntroduction: grpc.aio.UnaryUnaryMultiCallable[admin_pb2.ForgetIntroductionRequest, admin_pb2.ForgetIntroductionResponse]
    Repair: grpc.aio.UnaryUnaryMultiCallable[admin_pb2.RepairRequest, admin_pb2.RepairResponse]
    SaveSnapshot: grpc.aio.UnaryStreamMultiCallable[admin_pb2.SaveSnapshotRequest, admin_pb2.SaveSnapshotResponse]
    SlowCalls: grpc.aio.UnaryUnaryMultiCallable[admin_pb2.SlowCallsRequest, admin_pb2.SlowCallsResponse]

class AdminServicer:
    def Status(
        self,
        request: admin_pb2.StatusRequest,
        context: grpc.aio.ServicerContext[admin_pb2.StatusRequest, admin_pb2.StatusResponse],
    ) -> Awaitable[admin_pb2.StatusResponse]: ...
    def Members(
        self,
        request: admin_pb2.MembersRequest,
        context: grpc.aio.ServicerContext[admin_pb2.MembersRequest, admin_pb2.MembersResponse],
    ) -> Awaitable[admin_pb2.MembersResponse]: ...
    def ChangeMembers(
        self,
        request: admin_pb2.ChangeMembersRequest,
        context: grpc.aio.ServicerContext[admin_pb2.ChangeMembersRequest, admin_pb2.MembersResponse],
    ) -> Awaitable[admin_pb2.MembersResponse]: ...
    def TransferLeadership(
        self,
        request: admin_pb2.TransferLeadershipRequest,
        context: grpc.aio.ServicerContext[admin_pb2.TransferLeadershipRequest, admin_pb2.TransferLeadershipResponse],
    ) -> Awaitable[admin_pb2.TransferLeadershipResponse]: ...
    def ForgetIntroduction(
        self,
        request: admin_pb2.ForgetIntroductionRequest,
        context: grpc.aio.ServicerContext[admin_pb2.ForgetIntroductionRequest, admin_pb2.ForgetIntroductionResponse],
    ) -> Awaitable[admin_pb2.ForgetIntroductionResponse]: ...
    def Repair(
        self,
        request: admin_pb2.RepairRequest,
        context: grpc.aio.ServicerContext[admin_pb2.RepairRequest, admin_pb2.RepairResponse],
    ) -> Awaitable[admin_pb2.RepairResponse]: ...
    def SaveSnapshot(
        self,
        request: admin_pb2.SaveSnapshotRequest,
        context: grpc.aio.ServicerContext[admin_pb2.SaveSnapshotRequest, admin_pb2.SaveSnapshotResponse],
    ) -> AsyncIterator[admin_pb2.SaveSnapshotResponse]: ...
    def SlowCalls(
        self,
        request: admin_pb2.SlowCallsRequest,
        context: grpc.aio.ServicerContext[admin_pb2.SlowCallsRequest, admin_pb2.SlowCallsResponse],
    ) -> Awaitable[admin_pb2.SlowCallsResponse]: ...

def add_AdminServicer_to_server(
    servicer: AdminServicer, server: grpc.Server | grpc.aio.Server
) -> None: ...
