"""The bounds of sessions: bytes that many share, those of one connection, and rates."""

from libc.stdint cimport int64_t, uint32_t

cdef class Budget:
    cdef public int64_t limit
    cdef readonly int64_t used

cdef class Limits:
    cdef readonly int64_t message_bytes_max
    cdef readonly int64_t header_bytes_max
    cdef readonly int64_t streams_max
    cdef readonly int64_t unsent_bytes_max
    cdef readonly int64_t received_bytes_max
    cdef readonly int64_t resets_max
    cdef readonly int64_t pings_max
    cdef readonly int64_t settings_max
    cdef readonly int64_t idle_frames_max
    cdef readonly int64_t window_bytes
    cdef readonly int64_t connection_window_bytes


cdef struct Bucket:
    # Tokens: `size` at first and at most, `size` more each second.
    double size
    double tokens
    double filled_at        # when tokens were added last, in seconds of a monotonic clock
