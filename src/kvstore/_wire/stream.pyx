"""Queues of messages to be sent, and their way into DATA frames."""

import cython

from libc.string cimport memcpy


@cython.no_gc
@cython.freelist(256)
cdef class Stream:
    """See stream.pxd. Its objects are bytes, text and pairs of them: no cycle goes through it."""

    def __init__(self):
        raise TypeError("sessions make streams")


cdef bint take_next_message(Stream stream):
    """Make the queue's next message the one under way. False: none is left."""
    cdef list queue = stream.queue
    if queue is None or stream.queue_at == <size_t> len(queue):
        return False
    stream.body = queue[stream.queue_at]
    queue[stream.queue_at] = None
    stream.queue_at += 1
    if stream.queue_at == <size_t> len(queue):
        queue.clear()
        stream.queue_at = 0
    elif stream.queue_at >= 64 and stream.queue_at * 2 >= <size_t> len(queue):
        del queue[:stream.queue_at]
        stream.queue_at = 0
    stream.body_at = 0
    write_prefix(stream.head, <uint32_t> PyBytes_GET_SIZE(stream.body))
    stream.head_at = 0
    stream.head_bytes = PREFIX_BYTES
    return True


cdef inline bint has_unsent(Stream stream):
    return (stream.head_at < stream.head_bytes or stream.body is not None
            or (stream.queue is not None and stream.queue_at < <size_t> len(stream.queue)))


cdef void queue_message(Stream stream, bytes data):
    if stream.head_at < stream.head_bytes or stream.body is not None:
        if stream.queue is None:
            stream.queue = []
        stream.queue.append(data)
        return
    write_prefix(stream.head, <uint32_t> PyBytes_GET_SIZE(data))
    stream.head_at = 0
    stream.head_bytes = PREFIX_BYTES
    stream.body = data
    stream.body_at = 0


cdef size_t fill_frame(Stream stream, uint8_t* frame, size_t size):
    """As much of what is queued as the frame takes; how much."""
    cdef size_t at = 0
    cdef size_t some
    while at < size:
        if stream.head_at < stream.head_bytes:
            some = min(size - at, <size_t> (stream.head_bytes - stream.head_at))
            memcpy(frame + at, stream.head + stream.head_at, some)
            stream.head_at += <uint8_t> some
            at += some
        elif stream.body is not None:
            some = min(size - at, <size_t> PyBytes_GET_SIZE(stream.body) - stream.body_at)
            memcpy(frame + at, PyBytes_AS_STRING(stream.body) + stream.body_at, some)
            stream.body_at += some
            at += some
            if stream.body_at == <size_t> PyBytes_GET_SIZE(stream.body):
                stream.body = None
        elif not take_next_message(stream):
            break
    return at


cdef void forget_unsent(Stream stream):
    """Drop what is queued."""
    stream.head_at = stream.head_bytes
    stream.body = None
    stream.queue = None
    stream.queue_at = 0
