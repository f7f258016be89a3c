"""Channels to other members."""

from __future__ import annotations

import grpc.aio

from kvstore.server.peers.listener import CHANNEL_OPTIONS
from kvstore.server.peers.names import member_name
from kvstore.server.tls.certificate_files import CertificateFiles

__all__ = ["Dialler"]


class Dialler:
    """Makes channels to members, with what their certificates must say."""

    def __init__(self, cluster_id: str, certificates: CertificateFiles | None) -> None:
        self._cluster_id = cluster_id
        self._certificates = certificates

    def dial(self, member: int, address: str) -> grpc.aio.Channel:
        """A channel to a member; with TLS, nobody else can answer on it."""
        if self._certificates is None:
            return grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
        name = member_name(self._cluster_id, member)
        return grpc.aio.secure_channel(
            address,
            self._certificates.channel_credentials(),
            options=[*CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", name)],
        )
