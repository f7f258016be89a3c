"""The servers that are measured, as real processes on loopback."""

from benchmarks.servers.running import EmbeddedKvd, Etcd, KvdCluster, Server, side_by_side

__all__ = ["EmbeddedKvd", "Etcd", "KvdCluster", "Server", "side_by_side"]
