"""gRPC over HTTP/2 without sockets, clock, threads or asyncio: bytes in, events out.

One extension module, ``native``, over nghttp2 (HTTP/2 and HPACK) and the room ``primitives`` of the
engine. It isn't there where nghttp2's header wasn't found when the package was built
(``kvstore.wire.available``). ``kvstore.wire`` drives it.
"""
