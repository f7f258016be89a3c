"""Types of kv_pb2_grpc.py, by tools/generate_stubs.py. Do not edit."""

from collections.abc import Awaitable

import grpc
import grpc.aio

from kvstore.api.v1 import kv_pb2

class KVStub:
    def __init__(self, channel: grpc.Channel | grpc.aio.Channel) -> None: ...
    Put: grpc.UnaryUnaryMultiCallable[kv_pb2.PutRequest, kv_pb2.PutResponse]
    Get: grpc.UnaryUnaryMultiCallable[kv_pb2.GetRequest, kv_pb2.GetResponse]
    Delete: grpc.UnaryUnaryMultiCallable[kv_pb2.DeleteRequest, kv_pb2.DeleteResponse]

# The same class over a grpc.aio channel; a name for type checkers only.
class KVAsyncStub:
    Put: grpc.aio.UnaryUnaryMultiCallable[kv_pb2.PutRequest, kv_pb2.PutResponse]
    Get: grpc.aio.UnaryUnaryMultiCallable[kv_pb2.GetRequest, kv_pb2.GetResponse]
    Delete: grpc.aio.UnaryUnaryMultiCallable[kv_pb2.DeleteRequest, kv_pb2.DeleteResponse]

class KVServicer:
    def Put(
        self,
        request: kv_pb2.PutRequest,
        context: grpc.aio.ServicerContext[kv_pb2.PutRequest, kv_pb2.PutResponse],
    ) -> Awaitable[kv_pb2.PutResponse]: ...
    def Get(
        self,
        request: kv_pb2.GetRequest,
        context: grpc.aio.ServicerContext[kv_pb2.GetRequest, kv_pb2.GetResponse],
    ) -> Awaitable[kv_pb2.GetResponse]: ...
    def Delete(
        self,
        request: kv_pb2.DeleteRequest,
        context: grpc.aio.ServicerContext[kv_pb2.DeleteRequest, kv_pb2.DeleteResponse],
    ) -> Awaitable[kv_pb2.DeleteResponse]: ...

def add_KVServicer_to_server(
    servicer: KVServicer, server: grpc.Server | grpc.aio.Server
) -> None: ...
