"""A connection's HTTP/2 as nghttp2 does it, with gRPC's messages and our bounds on top."""

import cython

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.math cimport INFINITY

CALL = EVENT_CALL
MESSAGE = EVENT_MESSAGE
HALF_CLOSED = EVENT_HALF_CLOSED
CLOSED = EVENT_CLOSED
HEADERS = EVENT_HEADERS
FINISHED = EVENT_FINISHED
ANSWER = EVENT_ANSWER
GOAWAY = EVENT_GOAWAY
PONG = EVENT_PONG
PUT = METHOD_PUT
GET = METHOD_GET
DELETE = METHOD_DELETE
WHOLE = METHODS

cdef enum:
    OUTBOUND_ACKS_MAX = 64          # answers to SETTINGS and PING that wait to be sent
    FIELDS_PER_SETTINGS_MAX = 16
    DEBUG_BYTES_MAX = 128           # of what a GOAWAY says in words
    FRAME_BYTES_MAX = 16384 + 32   # what nghttp2 makes at a time
    # A block of more than so many times header_bytes_max ends the connection, not the call.
    HEADER_EXCESS = 8
    # Frames but DATA that wait to be sent: so many a stream, and for the connection.
    FRAMES_OF_STREAM = 4
    OUTBOUND_FRAMES = 1000
    # What a call takes of the budget of received bytes beside its metadata and messages.
    STREAM_OVERHEAD = 1024
    SEND_BYTES_MAX = 48 << 10       # of one `send`


@cython.no_gc_clear
cdef class _Session:
    """See the stub. Each side's __dealloc__ forgets the streams, while its own fields are there."""

    def __init__(self):
        raise TypeError("either side has its own class")

    def __dealloc__(self):
        if self.h2 != NULL:
            nghttp2_session_del(self.h2)

    cdef int open(self, Limits limits, Budget received, Budget unsent, bint is_server) except -1:
        cdef nghttp2_settings_entry[3] entries
        self.limits = limits
        self.received_budget = received
        self.unsent_budget = unsent
        self.is_server = is_server
        self.streams_max = limits.streams_max
        self.events = []
        self.block_pairs = []
        self.resets = new_bucket(limits.resets_max)
        self.pings = new_bucket(limits.pings_max)
        self.settings = new_bucket(limits.settings_max)
        self.idle_frames = new_bucket(limits.idle_frames_max)
        self.h2 = new_h2(<void*> self, is_server)
        entries[0].settings_id = NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE
        entries[0].value = <uint32_t> limits.window_bytes
        entries[1].settings_id = NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE
        entries[1].value = <uint32_t> limits.header_bytes_max
        if is_server:
            entries[2].settings_id = NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS
            entries[2].value = <uint32_t> limits.streams_max
        else:
            entries[2].settings_id = NGHTTP2_SETTINGS_ENABLE_PUSH
            entries[2].value = 0
        check(nghttp2_submit_settings(self.h2, NGHTTP2_FLAG_NONE, entries, 3))
        check(nghttp2_session_set_local_window_size(
            self.h2, NGHTTP2_FLAG_NONE, 0, <int32_t> limits.connection_window_bytes))
        return 0

    # What users call on either side.

    def receive(self, data, double now):
        cdef Py_buffer view
        cdef ssize_t taken = 0
        if self.busy:
            raise RuntimeError("receive within receive or send")
        if self.h2 != NULL and self.why is None:
            PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
            self.now = now
            self.busy = True
            try:
                taken = nghttp2_session_mem_recv(self.h2, <const uint8_t*> view.buf, view.len)
                if taken < 0 and self.why is None:
                    self.break_off(NGHTTP2_PROTOCOL_ERROR, nghttp2_strerror(<int> taken).decode())
                elif (<int64_t> nghttp2_session_get_outbound_queue_size(self.h2)
                        > FRAMES_OF_STREAM * self.streams_max + OUTBOUND_FRAMES):
                    self.break_off(NGHTTP2_ENHANCE_YOUR_CALM, "too_many_unread_frames")
            except MemoryError:
                self.break_off(NGHTTP2_INTERNAL_ERROR, "no memory")
            finally:
                self.busy = False
                PyBuffer_Release(&view)
            self.close_if_wanted()
            self.all_came()
        events = self.events
        if events:
            self.events = []
            return events
        return []

    def send(self, Py_ssize_t bytes_max):
        cdef uint8_t[SEND_BYTES_MAX + FRAME_BYTES_MAX] out
        cdef size_t wanted = min(max(bytes_max, 0), <Py_ssize_t> SEND_BYTES_MAX)
        cdef size_t at = 0
        cdef ssize_t some
        cdef const uint8_t* frame
        if self.why is not None:
            words = self.last_words
            self.last_words = None
            return b"" if words is None else words
        if self.busy or self.h2 == NULL:
            return b""
        self.busy = True
        try:
            while at < wanted:
                some = nghttp2_session_mem_send(self.h2, &frame)
                if some > FRAME_BYTES_MAX:
                    some = NGHTTP2_ERR_NOMEM
                if some <= 0:
                    if some < 0 and self.why is None:
                        self.break_off(NGHTTP2_INTERNAL_ERROR, nghttp2_strerror(<int> some).decode())
                    break
                memcpy(out + at, frame, some)
                at += some
        except MemoryError:
            self.break_off(NGHTTP2_INTERNAL_ERROR, "no memory")
        finally:
            self.busy = False
        self.close_if_wanted()
        return PyBytes_FromStringAndSize(<char*> out, at)

    def message(self, int32_t number, bytes data not None):
        cdef Stream stream = self.find(number)
        if stream is None or stream.ended:
            return True
        if not self.queue(stream, data):
            return False
        if not stream.started:
            submit_answer_begin(self.h2, stream, None)
        return True

    def writable(self, int32_t number):
        cdef Stream stream = self.find(number)
        return stream is not None and not has_unsent(stream)

    def consumed(self, int32_t number, uint32_t message_bytes):
        cdef Stream stream = self.find(number)
        cdef int64_t credit
        if stream is None or stream.waiting == 0:
            return
        stream.waiting -= 1
        self.give_back(stream, <int64_t> message_bytes + MESSAGE_OVERHEAD)
        credit = stream.uncredited
        if stream.waiting:
            credit = min(credit, <int64_t> message_bytes + PREFIX_BYTES)
        stream.uncredited -= credit
        if credit and not stream.remote_ended:
            nghttp2_session_consume_stream(self.h2, number, credit)

    def ping(self):
        if self.h2 != NULL and self.why is None:
            check(nghttp2_submit_ping(self.h2, NGHTTP2_FLAG_NONE, NULL))
            self.pings_out += 1

    def goaway(self, uint32_t h2_code=0):
        if self.h2 != NULL and self.why is None:
            self.goaway_last = self.last_taken()
            self.draining = self.said_goaway = True
            check(nghttp2_submit_goaway(
                self.h2, NGHTTP2_FLAG_NONE, self.goaway_last, h2_code, NULL, 0))

    @property
    def wants_write(self):
        if self.why is not None:
            return self.last_words is not None
        return self.h2 != NULL and nghttp2_session_want_write(self.h2) != 0

    @property
    def established(self):
        return self.settings_came

    @property
    def broken(self):
        return self.why

    @property
    def finished(self):
        if self.why is not None:
            return self.last_words is None
        return self.h2 == NULL or not (
            nghttp2_session_want_read(self.h2) or nghttp2_session_want_write(self.h2))

    # The end of a connection.

    cdef int close_h2(self) except -1:
        """Forget the streams and HTTP/2's state, now or when nghttp2 is done."""
        if self.busy:
            self.close_wanted = True
            return 0
        self.forget_streams()
        self.last_words = None
        if self.h2 != NULL:
            nghttp2_session_del(self.h2)
            self.h2 = NULL
        return 0

    cdef int close_if_wanted(self) except -1:
        if self.close_wanted:
            self.close_wanted = False
            self.close_h2()
        return 0

    cdef int break_off(self, uint32_t h2_code, str why) except -1:
        """The peer broke a rule or a bound: nothing more of it counts, and a GOAWAY says so."""
        cdef bytes debug = why.encode()[:DEBUG_BYTES_MAX]
        cdef int32_t last = self.last_taken()
        if self.why is None:
            self.why = why
            self.last_words = (
                (8 + len(debug)).to_bytes(3, "big") + bytes((NGHTTP2_GOAWAY, 0)) + bytes(4)
                + last.to_bytes(4, "big") + h2_code.to_bytes(4, "big") + debug)
        return 0

    cdef int32_t last_taken(self) noexcept:
        """The last of the peer's streams that is, or was, looked at."""
        if self.said_goaway:
            return self.goaway_last
        return nghttp2_session_get_last_proc_stream_id(self.h2)

    cdef int spend(self, Bucket* bucket, str what) except -1:
        if not take_token(bucket, self.now):
            self.break_off(NGHTTP2_ENHANCE_YOUR_CALM, what)
        return 0

    # Streams.

    cdef int adopt(self, Stream stream, int32_t number) except -1:
        """Keep a stream alive until HTTP/2 forgets it."""
        stream.stream = number
        stream.home = <void*> self
        stream.after = self.first
        if self.first != NULL:
            (<Stream> self.first).before = <void*> stream
        self.first = <void*> stream
        self.streams += 1
        Py_INCREF(stream)
        return 0

    cdef int release(self, Stream stream) except -1:
        if stream.home == NULL:
            return 0
        self.give_back(stream, stream.held)
        self.drop_unsent(stream)
        if stream.before != NULL:
            (<Stream> stream.before).after = stream.after
        else:
            self.first = stream.after
        if stream.after != NULL:
            (<Stream> stream.after).before = stream.before
        stream.before = stream.after = stream.home = NULL
        stream.incoming = None
        stream.deaf = stream.ended = True
        self.streams -= 1
        Py_DECREF(stream)
        return 0

    cdef int forget_streams(self) except -1:
        cdef Stream stream
        while self.first != NULL:
            stream = <Stream> self.first
            if self.h2 != NULL:
                nghttp2_session_set_stream_user_data(self.h2, stream.stream, NULL)
            self.release(stream)
        return 0

    cdef Stream find(self, int32_t number):
        """The stream while it is under way, else None."""
        cdef void* stream
        if self.h2 == NULL or self.why is not None or number <= 0:
            return None
        stream = nghttp2_session_get_stream_user_data(self.h2, number)
        return None if stream == NULL else <Stream> stream

    cdef int reset_stream(self, int32_t number, uint32_t h2_code) except -1:
        check(nghttp2_submit_rst_stream(self.h2, NGHTTP2_FLAG_NONE, number, h2_code))
        return 0

    # Budgets.

    cdef bint hold(self, Stream stream, int64_t size) noexcept:
        """Take of the budget of received bytes. False: over it."""
        if not may_take(self.received_budget, self.received_bytes + size, size,
                        self.limits.received_bytes_max):
            return False
        self.received_bytes += size
        self.received_budget.used += size
        stream.held += size
        return True

    cdef int give_back(self, Stream stream, int64_t size) noexcept:
        size = min(size, stream.held)
        self.received_bytes -= size
        self.received_budget.used -= size
        stream.held -= size
        return 0

    cdef bint take_unsent(self, Stream stream, int64_t size) noexcept:
        if not may_take(self.unsent_budget, self.unsent_bytes + size, size,
                        self.limits.unsent_bytes_max):
            return False
        self.count_unsent(stream, size)
        return True

    cdef int count_unsent(self, Stream stream, int64_t size) noexcept:
        self.unsent_bytes += size
        self.unsent_budget.used += size
        stream.unsent += size
        return 0

    cdef int give_back_unsent(self, Stream stream, int64_t size) noexcept:
        self.unsent_bytes -= size
        self.unsent_budget.used -= size
        stream.unsent -= size
        return 0

    cdef int drop_unsent(self, Stream stream) except -1:
        self.give_back_unsent(stream, stream.unsent)
        forget_unsent(stream)
        return 0

    cdef int wake(self, Stream stream) except -1:
        """Something is queued, or the end is known: HTTP/2 may ask for data again."""
        if stream.deferred:
            stream.deferred = False
            nghttp2_session_resume_data(self.h2, stream.stream)
        return 0

    cdef bint queue(self, Stream stream, bytes data) except -1:
        if PyBytes_GET_SIZE(data) > MESSAGE_BYTES_BOUND:
            raise ValueError(f"a message of more than {MESSAGE_BYTES_BOUND} bytes")
        if not self.take_unsent(stream, PyBytes_GET_SIZE(data) + PREFIX_BYTES):
            return False
        queue_message(stream, data)
        self.wake(stream)
        return True

    # Messages that come.

    cdef int data_came(self, Stream stream, const uint8_t* data, size_t size) except -1:
        """Cut a stream's bytes into messages."""
        cdef size_t some
        while size and not stream.deaf:
            if stream.prefix_bytes < PREFIX_BYTES:
                some = min(size, <size_t> (PREFIX_BYTES - stream.prefix_bytes))
                memcpy(stream.prefix + stream.prefix_bytes, data, some)
                stream.prefix_bytes += <uint8_t> some
                data += some
                size -= some
                if stream.prefix_bytes < PREFIX_BYTES:
                    return 0
                self.message_begins(stream)
                if stream.deaf:
                    return 0
            some = min(size, <size_t> (stream.incoming_bytes - stream.incoming_at))
            if not self.make_room(stream, some):
                return self.refuse(stream, STATUS_RESOURCE_EXHAUSTED, self.too_much(), COME_AGAIN)
            if some == stream.incoming_bytes:
                stream.prefix_bytes = 0
                stream.whole += 1
                self.message_came(stream, data, some, None)
            elif some:
                memcpy(PyBytes_AS_STRING(stream.incoming) + stream.incoming_at, data, some)
                stream.incoming_at += <uint32_t> some
                if stream.incoming_at == stream.incoming_bytes:
                    whole = stream.incoming
                    stream.incoming = None
                    stream.prefix_bytes = 0
                    stream.whole += 1
                    self.message_came(stream, <const uint8_t*> PyBytes_AS_STRING(whole),
                                      stream.incoming_bytes, whole)
            data += some
            size -= some
        return 0

    cdef int message_begins(self, Stream stream) except -1:
        """Its prefix is there, which says whether the message is refused."""
        cdef uint8_t* prefix = stream.prefix
        cdef int64_t size = (<int64_t> prefix[1] << 24 | <int64_t> prefix[2] << 16
                             | <int64_t> prefix[3] << 8 | prefix[4])
        if prefix[0] > 1:
            return self.refuse(stream, STATUS_INTERNAL, "a message begins with an unknown flag", None)
        if prefix[0] == 1:
            # Without grpc-encoding it breaks gRPC's compression.md.
            return self.refuse(stream, STATUS_UNIMPLEMENTED if stream.encoded else STATUS_INTERNAL,
                               "compressed messages are not understood", None)
        if size > self.limits.message_bytes_max:
            return self.refuse(
                stream, STATUS_RESOURCE_EXHAUSTED,
                # grpcio's words, which clients know.
                f"Received message larger than max ({size} vs. {self.limits.message_bytes_max})",
                None)
        if not self.hold(stream, MESSAGE_OVERHEAD):
            return self.refuse(stream, STATUS_RESOURCE_EXHAUSTED, self.too_much(), COME_AGAIN)
        stream.incoming_bytes = <uint32_t> size
        stream.incoming_at = 0
        return 0

    cdef bint make_room(self, Stream stream, size_t some) except -1:
        """Room for `some` bytes more of the message under way. False: over the budget.

        It grows as bytes come, at most to twice as many: what is only declared is no memory.
        """
        cdef int64_t has = 0 if stream.incoming is None else PyBytes_GET_SIZE(stream.incoming)
        cdef int64_t wanted = <int64_t> stream.incoming_at + <int64_t> some
        cdef PyObject* grown
        if wanted <= has:
            return True
        wanted = min(max(wanted, 2 * has), <int64_t> stream.incoming_bytes)
        if not self.hold(stream, wanted - has):
            return False
        if some == stream.incoming_bytes:
            return True         # whole in one piece: nothing is gathered
        if stream.incoming is None:
            stream.incoming = PyBytes_FromStringAndSize(NULL, wanted)
            return True
        # In place, which for large ones is a matter of pages and not of bytes. Nobody else has it.
        grown = <PyObject*> stream.incoming
        Py_INCREF(stream.incoming)
        stream.incoming = None
        _PyBytes_Resize(&grown, wanted)
        stream.incoming = <bytes> grown
        Py_DECREF(stream.incoming)
        return True

    cdef str too_much(self):
        return ("too many bytes of requests wait already" if self.is_server
                else "too many bytes of answers wait already")

    cdef int take_field(self, const uint8_t* name, size_t name_size, const uint8_t* value,
                        size_t value_size) except -1:
        raise NotImplementedError

    cdef int block_came(self, int32_t number, bint is_first, bint is_last) except -1:
        raise NotImplementedError

    cdef int message_came(self, Stream stream, const uint8_t* data, size_t size,
                          bytes whole) except -1:
        raise NotImplementedError

    cdef int refuse(self, Stream stream, Status status, str details, list pairs) except -1:
        raise NotImplementedError

    cdef int remote_end(self, Stream stream) except -1:
        raise NotImplementedError

    cdef int stream_closed(self, Stream stream, uint32_t h2_code) except -1:
        raise NotImplementedError

    cdef int block_sent(self, int32_t number, bint is_last) except -1:
        raise NotImplementedError

    cdef int goaway_came(self, int32_t last_stream) except -1:
        raise NotImplementedError

    cdef int all_came(self) except -1:
        return 0
