"""Types of leases_pb2_grpc.py, by tools/generate_stubs.py. Do not edit."""

from collections.abc import Awaitable

import grpc
import grpc.aio

from kvstore.api.v1 import leases_pb2

class LeasePeerStub:
    def __init__(self, channel: grpc.Channel | grpc.aio.Channel) -> None: ...
    AskLessor: grpc.UnaryUnaryMultiCallable[leases_pb2.LessorQuestions, leases_pb2.LessorAnswers]

# The same class over a grpc.aio channel; a name for type checkers only.
class LeasePeerAsyncStub:
    AskLessor: grpc.aio.UnaryUnaryMultiCallable[leases_pb2.LessorQuestions, leases_pb2.LessorAnswers]

class LeasePeerServicer:
    def AskLessor(
        self,
        request: leases_pb2.LessorQuestions,
        context: grpc.aio.ServicerContext[leases_pb2.LessorQuestions, leases_pb2.LessorAnswers],
    ) -> Awaitable[leases_pb2.LessorAnswers]: ...

def add_LeasePeerServicer_to_server(
    servicer: LeasePeerServicer, server: grpc.Server | grpc.aio.Server
) -> None: ...
