"""Calls that go out, and what comes of them."""


cdef inline uint32_t status_of_http(int http_status) noexcept nogil:
    """gRPC's http-grpc-status-mapping.md, for answers that no gRPC server gave."""
    if http_status == 400:
        return STATUS_INTERNAL
    if http_status == 401:
        return STATUS_UNAUTHENTICATED
    if http_status == 403:
        return STATUS_PERMISSION_DENIED
    if http_status == 404:
        return STATUS_UNIMPLEMENTED
    if http_status == 429 or 502 <= http_status <= 504:
        return STATUS_UNAVAILABLE
    return STATUS_UNKNOWN


cdef inline uint32_t status_of_reset(uint32_t h2_code) noexcept nogil:
    """gRPC's PROTOCOL-HTTP2.md, "Errors"."""
    if h2_code == NGHTTP2_REFUSED_STREAM:
        return STATUS_UNAVAILABLE
    if h2_code == NGHTTP2_CANCEL:
        return STATUS_CANCELLED
    if h2_code == NGHTTP2_ENHANCE_YOUR_CALM:
        return STATUS_RESOURCE_EXHAUSTED
    if h2_code == NGHTTP2_INADEQUATE_SECURITY:
        return STATUS_PERMISSION_DENIED
    return STATUS_INTERNAL


cdef inline int decoded_number(const uint8_t* value, size_t size) noexcept nogil:
    """Of at most three digits; -1: isn't."""
    cdef int number = 0
    cdef size_t i
    if not 1 <= size <= 3:
        return -1
    for i in range(size):
        if not c"0" <= value[i] <= c"9":
            return -1
        number = number * 10 + (value[i] - c"0")
    return number


cdef enum:
    AUTHORITY_BYTES_MAX = 1024
    PATH_BYTES_MAX = 4096
    # What a server allows that hasn't said yet: as many as every one should.
    STREAMS_AT_FIRST = 100


@cython.no_gc_clear
cdef class ClientSession(_Session):
    """See the stub."""

    def __dealloc__(self):
        self.forget_streams()

    def __init__(self, Limits limits not None, Budget received not None, Budget unsent not None,
                 str authority not None, str scheme not None,
                 str user_agent not None="grpc-python-kvstore"):
        if self.limits is not None:
            raise RuntimeError("a session begins once")
        if TARGET.fullmatch(authority) is None or len(authority) > AUTHORITY_BYTES_MAX:
            raise ValueError(f"no authority: {authority[:AUTHORITY_BYTES_MAX]!r}")
        if scheme not in ("http", "https"):
            raise ValueError(f"no scheme of HTTP/2: {scheme!r}")
        user_agent = user_agent.strip(" ")
        if VALUE.fullmatch(user_agent) is None or len(user_agent) > AUTHORITY_BYTES_MAX:
            raise ValueError(f"no user agent: {user_agent[:AUTHORITY_BYTES_MAX]!r}")
        self.user_agent = user_agent.encode()
        self.authority = authority.encode()
        self.scheme = scheme.encode()
        self.calls = {}
        self.open(limits, received, unsent, False)

    @property
    def accepting(self):
        return self.may_begin()

    @property
    def peer_streams_max(self):
        return self.allowed_streams()

    cdef bint may_begin(self) noexcept:
        return (self.h2 != NULL and self.why is None and not self.draining
                and nghttp2_session_get_next_stream_id(self.h2) <= 0x7fffffff)

    cdef int64_t allowed_streams(self) noexcept:
        if self.h2 == NULL:
            return 0
        if not self.settings_came:
            return STREAMS_AT_FIRST
        return nghttp2_session_get_remote_settings(
            self.h2, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS)

    def call(self, str path not None, metadata, timeout_s, bytes message, bint unary):
        cdef Fields block
        cdef Stream stream
        cdef nghttp2_data_provider provider
        cdef double timeout = -1
        cdef uint8_t[10] timeout_text
        cdef bytes path_bytes
        cdef list pairs
        cdef int32_t number
        if (not self.may_begin() or self.streams >= self.limits.streams_max
                or self.streams >= self.allowed_streams()):
            return 0
        if timeout_s is not None:
            timeout = timeout_s
            if not timeout > 0:
                timeout = 0     # also for what is no number
        if message is not None and PyBytes_GET_SIZE(message) > MESSAGE_BYTES_BOUND:
            raise ValueError(f"a message of more than {MESSAGE_BYTES_BOUND} bytes")
        if len(path) > PATH_BYTES_MAX or path[:1] != "/" or TARGET.fullmatch(path) is None:
            raise ValueError(f"no path of a call: {path[:PATH_BYTES_MAX]!r}")
        path_bytes = path.encode()
        pairs = encoded_pairs(metadata, self.limits.header_bytes_max) if metadata else None
        stream = Stream.__new__(Stream)
        stream.unary = unary
        stream.started = True
        stream.received_status = -1
        block.count = 0
        add_fixed(&block, call_pairs, 1)
        add_field(&block, ":scheme", 7, <const uint8_t*> PyBytes_AS_STRING(self.scheme),
                  PyBytes_GET_SIZE(self.scheme))
        add_field(&block, ":path", 5, <const uint8_t*> PyBytes_AS_STRING(path_bytes),
                  PyBytes_GET_SIZE(path_bytes))
        add_field(&block, ":authority", 10, <const uint8_t*> PyBytes_AS_STRING(self.authority),
                  PyBytes_GET_SIZE(self.authority))
        add_fixed(&block, call_pairs + 1, 3)
        add_field(&block, "user-agent", 10, <const uint8_t*> PyBytes_AS_STRING(self.user_agent),
                  PyBytes_GET_SIZE(self.user_agent))
        if timeout >= 0:
            add_field(&block, "grpc-timeout", 12, timeout_text,
                      encoded_timeout(timeout, timeout_text))
        if pairs is not None:
            add_encoded(&block, pairs)
        if message is not None:
            if not self.take_unsent(stream, PyBytes_GET_SIZE(message) + PREFIX_BYTES):
                return 0
            queue_message(stream, message)
            stream.ended = unary
        provider.source.ptr = <void*> stream
        provider.read_callback = read_messages
        number = nghttp2_submit_request(self.h2, NULL, block.fields, block.count, &provider,
                                        <void*> stream)
        if number < 0:
            self.give_back_unsent(stream, stream.unsent)
            check(number)
            return 0
        self.adopt(stream, number)
        self.calls[number] = stream
        return number

    def half_close(self, int32_t number):
        cdef Stream stream = self.find(number)
        if stream is not None and not stream.ended:
            stream.ended = True
            self.wake(stream)

    def cancel(self, int32_t number):
        cdef Stream stream = self.find(number)
        if stream is not None and not stream.told:
            stream.told = True
            self.give_up(stream)

    def close(self, str details not None):
        cdef void* at = self.first
        cdef list streams = []
        cdef Stream stream
        while at != NULL:
            stream = <Stream> at
            at = stream.after
            streams.append(stream)
        for stream in reversed(streams):
            self.tell(stream, STATUS_UNAVAILABLE, details, not stream.sent)
        events = self.events
        self.events = []
        self.close_h2()
        return events

    cdef Stream find(self, int32_t number):
        """HTTP/2 doesn't know a stream before its first header block is sent; this does."""
        cdef object stream
        if self.h2 == NULL or self.why is not None:
            return None
        stream = self.calls.get(number)
        return <Stream> stream if stream is not None else None

    cdef int release(self, Stream stream) except -1:
        self.calls.pop(stream.stream, None)
        return _Session.release(self, stream)

    cdef int tell(self, Stream stream, uint32_t status, str details, bint unprocessed) except -1:
        """The last event of a call, if it wasn't told yet."""
        if stream.told:
            return 0
        stream.told = stream.deaf = True
        trailer = stream.received_trailer if stream.received_trailer is not None else ()
        if stream.unary:
            self.events.append((
                EVENT_ANSWER, stream.stream, status, stream.answer if status == 0 else None,
                details, trailer, stream.initial if stream.initial is not None else (),
                unprocessed))
        else:
            self.events.append((EVENT_FINISHED, stream.stream, status, details, trailer,
                                unprocessed))
        stream.answer = None
        return 0

    cdef int give_up(self, Stream stream) except -1:
        """Nothing more of the call matters to us."""
        stream.deaf = stream.ended = True
        stream.incoming = None
        self.give_back(stream, stream.held)
        self.drop_unsent(stream)
        return self.reset_stream(stream.stream, NGHTTP2_CANCEL)

    cdef int refuse(self, Stream stream, Status status, str details, list pairs) except -1:
        self.tell(stream, status, details, False)
        return self.give_up(stream)

    cdef int take_field(self, const uint8_t* name, size_t name_size, const uint8_t* value,
                        size_t value_size) except -1:
        cdef HeaderBlock* block = &self.block
        if name[0] == c":":
            if is_name(name, name_size, ":status", 7):
                block.http_status = decoded_number(value, value_size)
        elif is_name(name, name_size, "grpc-status", 11):
            block.grpc_status = decoded_number(value, value_size)
            if not 0 <= block.grpc_status <= STATUS_UNAUTHENTICATED:
                block.grpc_status = STATUS_UNKNOWN
        elif is_name(name, name_size, "grpc-message", 12):
            self.block_details = decoded_details(value, value_size)
        elif is_name(name, name_size, "content-type", 12):
            block.is_grpc = is_grpc_type(value, value_size)
        elif not (is_name(name, name_size, "grpc-accept-encoding", 20)
                  or is_name(name, name_size, "grpc-encoding", 13)):
            # A binary value that isn't base64 is left out.
            append_pair(self.block_pairs, name, name_size, value, value_size)
        return 0

    cdef int block_came(self, int32_t number, bint is_first, bint is_last) except -1:
        cdef HeaderBlock* block = &self.block
        cdef void* found = nghttp2_session_get_stream_user_data(self.h2, number)
        cdef Stream stream
        if found == NULL or (<Stream> found).told or 100 <= block.http_status <= 199:
            return 0
        stream = <Stream> found
        if block.size > self.limits.header_bytes_max:
            return self.refuse(
                stream, STATUS_RESOURCE_EXHAUSTED,
                f"metadata of {block.size} bytes: at most {self.limits.header_bytes_max} are taken",
                None)
        pairs = tuple(self.block_pairs) if len(self.block_pairs) else ()
        if stream.http_status == 0:
            stream.http_status = block.http_status
            if not is_last:
                if block.http_status != 200:
                    return self.refuse(stream, <Status> status_of_http(block.http_status),
                                       f"HTTP status {block.http_status}", None)
                if not block.is_grpc:
                    return self.refuse(stream, STATUS_UNKNOWN, "the answer is none of gRPC", None)
                stream.initial = pairs
                if not stream.unary:
                    self.events.append((EVENT_HEADERS, number, pairs))
                return 0
        stream.received_status = block.grpc_status
        stream.received_trailer = pairs
        stream.details = self.block_details
        return 0

    cdef int message_came(self, Stream stream, const uint8_t* data, size_t size,
                          bytes whole) except -1:
        if stream.unary and stream.whole > 1:
            return self.refuse(stream, STATUS_INTERNAL, "more than one answer to a call", None)
        if whole is None:
            whole = PyBytes_FromStringAndSize(<const char*> data, size)
        if stream.unary:
            stream.answer = whole
            return 0
        stream.waiting += 1
        self.events.append((EVENT_MESSAGE, stream.stream, whole))
        return 0

    cdef int remote_end(self, Stream stream) except -1:
        cdef uint32_t status = <uint32_t> stream.received_status
        cdef str details = stream.details
        if stream.told:
            return 0
        if stream.received_status < 0:
            status = status_of_http(stream.http_status)
            details = (f"HTTP status {stream.http_status}" if stream.http_status != 200
                       else "the answer has no status")
        elif status == STATUS_OK and stream.prefix_bytes:
            status = STATUS_INTERNAL
            details = "an answer ends too early"
        elif status == STATUS_OK and stream.unary and stream.answer is None:
            status = STATUS_INTERNAL
            details = "no answer in an answered call"
        self.tell(stream, status, "" if details is None else details, False)
        return 0 if stream.closing else self.give_up(stream)

    cdef int stream_closed(self, Stream stream, uint32_t h2_code) except -1:
        return self.tell(
            stream, status_of_reset(h2_code),
            f"the call was reset: {nghttp2_http2_strerror(h2_code).decode()}"
            if not stream.told else None,
            h2_code == NGHTTP2_REFUSED_STREAM)

    cdef int block_sent(self, int32_t number, bint is_last) except -1:
        cdef void* found = nghttp2_session_get_stream_user_data(self.h2, number)
        if found != NULL:
            (<Stream> found).sent = True
        return 0

    cdef int goaway_came(self, int32_t last_stream) except -1:
        """What the server won't look at, and what it wasn't told of yet."""
        cdef void* at = self.first
        cdef Stream stream
        while at != NULL:
            stream = <Stream> at
            at = stream.after
            if stream.stream > last_stream or not stream.sent:
                self.tell(stream, STATUS_UNAVAILABLE, "the server takes no more calls", True)
                self.give_up(stream)
        return 0
