"""Types of proposals_pb2_grpc.py, by tools/generate_stubs.py. Do not edit."""

from collections.abc import Awaitable

import grpc
import grpc.aio

from kvstore.api.v1 import proposals_pb2

class ProposalPeerStub:
    def __init__(self, channel: grpc.Channel | grpc.aio.Channel) -> None: ...
    Propose: grpc.UnaryUnaryMultiCallable[proposals_pb2.ProposeRequest, proposals_pb2.ProposeResponse]

# The same class over a grpc.aio channel; a name for type checkers only.
class ProposalPeerAsyncStub:
    Propose: grpc.aio.UnaryUnaryMultiCallable[proposals_pb2.ProposeRequest, proposals_pb2.ProposeResponse]

class ProposalPeerServicer:
    def Propose(
        self,
        request: proposals_pb2.ProposeRequest,
        context: grpc.aio.ServicerContext[proposals_pb2.ProposeRequest, proposals_pb2.ProposeResponse],
    ) -> Awaitable[proposals_pb2.ProposeResponse]: ...

def add_ProposalPeerServicer_to_server(
    servicer: ProposalPeerServicer, server: grpc.Server | grpc.aio.Server
) -> None: ...
