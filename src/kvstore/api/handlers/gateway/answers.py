"""What calls of the gateway end with: gRPC's codes as HTTP's, and errors in JSON."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Final

import grpc

__all__ = ["error_of", "http_status_of", "stream_error_of"]

# grpc-gateway's, of the version in etcd 3.5.
_STATUSES: Final = {
    grpc.StatusCode.OK: HTTPStatus.OK,
    grpc.StatusCode.CANCELLED: HTTPStatus.REQUEST_TIMEOUT,
    grpc.StatusCode.INVALID_ARGUMENT: HTTPStatus.BAD_REQUEST,
    grpc.StatusCode.DEADLINE_EXCEEDED: HTTPStatus.GATEWAY_TIMEOUT,
    grpc.StatusCode.NOT_FOUND: HTTPStatus.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS: HTTPStatus.CONFLICT,
    grpc.StatusCode.PERMISSION_DENIED: HTTPStatus.FORBIDDEN,
    grpc.StatusCode.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
    grpc.StatusCode.RESOURCE_EXHAUSTED: HTTPStatus.TOO_MANY_REQUESTS,
    grpc.StatusCode.FAILED_PRECONDITION: HTTPStatus.BAD_REQUEST,
    grpc.StatusCode.ABORTED: HTTPStatus.CONFLICT,
    grpc.StatusCode.OUT_OF_RANGE: HTTPStatus.BAD_REQUEST,
    grpc.StatusCode.UNIMPLEMENTED: HTTPStatus.NOT_IMPLEMENTED,
    grpc.StatusCode.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
}


def http_status_of(code: grpc.StatusCode) -> HTTPStatus:
    """Unknown, internal and of lost data are 500."""
    return _STATUSES.get(code, HTTPStatus.INTERNAL_SERVER_ERROR)


def error_of(code: grpc.StatusCode, details: str) -> bytes:
    """The body of a call that ends with ``code``."""
    return _json({"error": details, "code": code.value[0], "message": details})


def stream_error_of(code: grpc.StatusCode, details: str) -> bytes:
    """The last line of a stream that ends with ``code``."""
    status = http_status_of(code)
    error = {
        "grpc_code": code.value[0],
        "http_code": int(status),
        "message": details,
        "http_status": status.phrase,
    }
    return _json({"error": error}) + b"\n"


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
