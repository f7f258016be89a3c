"""Types of session_pb2_grpc.py, by tools/generate_stubs.py. Do not edit."""

from collections.abc import Awaitable

import grpc
import grpc.aio

from kvstore.api.v1 import session_pb2

class SessionsStub:
    def __init__(self, channel: grpc.Channel | grpc.aio.Channel) -> None: ...
    Open: grpc.UnaryUnaryMultiCallable[session_pb2.OpenSessionRequest, session_pb2.OpenSessionResponse]

# The same class over a grpc.aio channel; a name for type checkers only.
class SessionsAsyncStub:
    Open: grpc.aio.UnaryUnaryMultiCallable[session_pb2.OpenSessionRequest, session_pb2.OpenSessionResponse]

class SessionsServicer:
    def Open(
        self,
        request: session_pb2.OpenSessionRequest,
        context: grpc.aio.ServicerContext[session_pb2.OpenSessionRequest, session_pb2.OpenSessionResponse],
    ) -> Awaitable[session_pb2.OpenSessionResponse]: ...

def add_SessionsServicer_to_server(
    servicer: SessionsServicer, server: grpc.Server | grpc.aio.Server
) -> None: ...
