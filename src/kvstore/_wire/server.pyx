"""Calls that come, and their answers."""

cdef double UNSAID_TIMEOUT_S = 10.0  # of a call that has none of its own

cdef enum:
    # An answer of so many bytes, which may say that a write was done, finds room in any case.
    UNASKED_BYTES_MAX = 256

cdef list COME_AGAIN = encoded_pairs((("grpc-retry-pushback-ms", "250"),), 1024)


cdef inline bint is_grpc_type(const uint8_t* value, size_t size) noexcept nogil:
    """application/grpc, +proto, ;charset or the like."""
    return (size >= 16 and memcmp(value, <const char*> "application/grpc", 16) == 0
            and (size == 16 or value[16] == c"+" or value[16] == c";"))


cdef inline bytes field_bytes(const Field* field):
    return PyBytes_FromStringAndSize(<const char*> field.data, field.size) if field.size else b""


@cython.no_gc
@cython.final
cdef class HotCall(Stream):
    """See the stub."""

    @property
    def session(self):
        # An answered call's stream may live on until the answer was written.
        return None if self.home == NULL or self.ended else <object> self.home

    @property
    def answered(self):
        return self.ended

    def put_answer(self, bint overwritten):
        if self.home != NULL and not self.ended:
            self.give(write_bool_answer(self.head, overwritten), None)

    def delete_answer(self, bint deleted):
        if self.home != NULL and not self.ended:
            self.give(write_bool_answer(self.head, deleted), None)

    def get_answer(self, bytes value):
        cdef Py_ssize_t size = 0 if value is None else PyBytes_GET_SIZE(value)
        if size > MESSAGE_BYTES_BOUND:
            raise ValueError(f"a value of more than {MESSAGE_BYTES_BOUND} bytes")
        if self.home == NULL or self.ended:
            return
        if value is None:
            write_prefix(self.head, 0)
            self.give(PREFIX_BYTES, None)
        else:
            self.give(write_get_answer(self.head, <uint32_t> size), value if size else None)

    def whole_answer(self, bytes message not None):
        if self.home == NULL or self.ended:
            return True
        return self.give_whole(message)

    def reset(self):
        if self.home != NULL and not self.ended:
            (<ServerSession> self.home).reset(self.stream, NGHTTP2_CANCEL)

    def fail(self, uint32_t status, str details not None, trailer=()):
        if self.home != NULL and not self.ended:
            session = <ServerSession> self.home
            session.end_call(self, <Status> status, details,
                             encoded_pairs(trailer, session.limits.header_bytes_max))

    cdef int give(self, uint32_t head_bytes, bytes body) except -1:
        """The message in `head` and `body` is the answer of this call, which has none yet."""
        cdef ServerSession session = <ServerSession> self.home
        cdef int64_t size = head_bytes
        if body is None:
            # A few bytes, which may say that a write was done: who hears that a bound was reached
            # takes it for not done.
            session.count_unsent(self, size)
        else:
            size += PyBytes_GET_SIZE(body)
            if not session.take_unsent(self, size):
                return session.end_call(self, STATUS_RESOURCE_EXHAUSTED,
                                        "too many bytes of answers wait already", COME_AGAIN)
        self.head_bytes = <uint8_t> head_bytes
        self.body = body
        self.ended = True
        self.status = STATUS_OK
        return submit_answer_begin(session.h2, self, None)

    cdef bint give_whole(self, bytes message) except -1:
        """The message is the answer of this call, which has none yet. False: over the budget."""
        cdef ServerSession session = <ServerSession> self.home
        cdef Py_ssize_t size = PyBytes_GET_SIZE(message)
        if size > MESSAGE_BYTES_BOUND:
            raise ValueError(f"a message of more than {MESSAGE_BYTES_BOUND} bytes")
        if size <= UNASKED_BYTES_MAX:
            session.count_unsent(self, PREFIX_BYTES + size)
        elif not session.take_unsent(self, PREFIX_BYTES + size):
            return False
        write_prefix(self.head, <uint32_t> size)
        self.head_bytes = PREFIX_BYTES
        self.body = message if size else None
        self.ended = True
        self.status = STATUS_OK
        submit_answer_begin(session.h2, self, None)
        return True


cdef inline HotCall hot_call(object call):
    """Not None either, which a type of Cython's lets pass."""
    if type(call) is not HotCall:
        raise TypeError("hot calls, and nothing else")
    return <HotCall> call


cdef inline bint is_living(HotCall call) noexcept:
    return call.home != NULL and not call.ended


def living(list calls not None):
    return [call for call in calls if is_living(hot_call(call))]


def answer_all(list calls not None, list results not None, set owners not None):
    cdef list left = []
    cdef Py_ssize_t place
    cdef HotCall call
    if len(calls) != len(results):
        raise ValueError("as many results as calls")
    for place in range(len(calls)):
        call = hot_call(calls[place])
        result = results[place]
        if call.method == METHOD_GET:
            if result is not None and type(result) is not bytes:
                left.append(place)
                continue
        elif call.method >= METHODS:
            if type(result) is not bytes:
                left.append(place)
                continue
        elif result is not True and result is not False:
            left.append(place)
            continue
        if not is_living(call):
            continue
        owners.add((<ServerSession> call.home).owner)
        if call.method >= METHODS:
            if not call.give_whole(<bytes> result):
                left.append(place)
        elif call.method == METHOD_GET:
            call.get_answer(<bytes> result)
        else:
            call.give(write_bool_answer(call.head, result is True), None)
    return left


@cython.no_gc_clear
cdef class ServerSession(_Session):
    """See the stub."""

    def __dealloc__(self):
        self.forget_streams()

    def __init__(self, Limits limits not None, Budget received not None, Budget unsent not None,
                 tuple hot=(), list hot_calls=None, dict hot_refused=None, tuple whole=(),
                 tuple once=()):
        if self.limits is not None:
            raise RuntimeError("a session begins once")
        if len(hot) > METHODS:
            raise ValueError("paths of Put, Get and Delete, and no others")
        self.hot_paths = tuple(path.encode() for path in hot)
        self.whole_paths = tuple(path.encode() for path in whole + once)
        self.once_from = METHODS + <int> len(whole)
        self.fresh = []
        self.hot_calls = [] if hot_calls is None else hot_calls
        self.hot_refused = {} if hot_refused is None else hot_refused
        self.open(limits, received, unsent, True)

    def start(self, int32_t number, metadata):
        cdef Stream stream = self.find(number)
        if stream is not None and not stream.started and not stream.ended:
            submit_answer_begin(self.h2, stream,
                                encoded_pairs(metadata, self.limits.header_bytes_max))

    def finish(self, int32_t number, uint32_t status, str details not None, trailer=()):
        cdef Stream stream = self.find(number)
        if stream is not None:
            if stream.is_hot and not (stream.remote_ended or stream.ended):
                self.count_refused((<HotCall> stream).method, <Status> status)
            self.end_call(stream, <Status> status, details,
                          encoded_pairs(trailer, self.limits.header_bytes_max))

    def respond(self, int32_t number, bytes data not None, trailer=(), initial=()):
        cdef Stream stream = self.find(number)
        if stream is None or stream.ended:
            return True
        first = encoded_pairs(initial, self.limits.header_bytes_max) if initial else None
        last = encoded_pairs(trailer, self.limits.header_bytes_max) if trailer else None
        if not self.queue(stream, data):
            return False
        if not stream.started:
            submit_answer_begin(self.h2, stream, first)
        self.end_call(stream, STATUS_OK, "", last)
        return True

    def reset(self, int32_t number, uint32_t h2_code):
        cdef Stream stream = self.find(number)
        if stream is not None:
            stream.ended = stream.deaf = True
            self.drop_unsent(stream)
            self.reset_stream(number, h2_code)

    def allow_streams(self, int64_t streams_max):
        cdef nghttp2_settings_entry[1] entries
        if not 1 <= streams_max <= 1 << 20:
            raise ValueError("streams_max is 1 to 2^20")
        if self.h2 != NULL and self.why is None:
            entries[0].settings_id = NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS
            entries[0].value = <uint32_t> streams_max
            check(nghttp2_submit_settings(self.h2, NGHTTP2_FLAG_NONE, entries, 1))
            self.streams_max = streams_max

    def notify_shutdown(self):
        if self.h2 != NULL and self.why is None:
            check(nghttp2_submit_shutdown_notice(self.h2))

    @property
    def in_headers(self):
        return self.in_block

    def incomplete(self):
        cdef list found = []
        cdef void* at = self.first
        while at != NULL:
            if not (<Stream> at).remote_ended and not (<Stream> at).ended:
                found.append((<Stream> at).stream)
            at = (<Stream> at).after
        return found

    def undelivered(self):
        cdef list found = []
        cdef void* at = self.first
        while at != NULL:
            if (<Stream> at).ended:
                found.append((<Stream> at).stream)
            at = (<Stream> at).after
        return found

    def close(self):
        self.close_h2()
        self.events = []

    cdef int end_call(self, Stream stream, Status status, str details, list pairs) except -1:
        """The last of an answer, after what is queued; the rest of the request doesn't matter."""
        if stream.ended:
            return 0
        stream.ended = stream.deaf = True
        if stream.is_hot:
            (<HotCall> stream).status = status
        if not stream.started:
            stream.started = stream.closing = True
            return submit_only_trailer(self.h2, stream.stream,
                                       status_pairs(status, details, pairs))
        if status != STATUS_OK or pairs:
            stream.trailer = status_pairs(status, details, pairs)
        return self.wake(stream)

    cdef int refuse(self, Stream stream, Status status, str details, list pairs) except -1:
        """End a call that the front needn't, or may no longer, answer."""
        stream.deaf = True
        stream.incoming = None
        self.give_back(stream, stream.held)
        if stream.ended:
            return 0
        if stream.announced:
            self.events.append((EVENT_CLOSED, stream.stream, NGHTTP2_NO_ERROR))
        if stream.is_hot:
            self.count_refused((<HotCall> stream).method, status)
        self.drop_unsent(stream)
        return self.end_call(stream, status, details, pairs)

    cdef int refuse_block(self, int32_t number, Status status, str details, list pairs) except -1:
        if self.block.hot >= 0:
            self.count_refused(self.block.hot, status)
        return submit_only_trailer(self.h2, number, status_pairs(status, details, pairs))

    cdef int count_refused(self, int method, Status status) except -1:
        """A hot call ends that `hot_calls` never had."""
        kind = (method, <int> status)
        self.hot_refused[kind] = self.hot_refused.get(kind, 0) + 1
        return 0

    cdef int take_field(self, const uint8_t* name, size_t name_size, const uint8_t* value,
                        size_t value_size) except -1:
        cdef HeaderBlock* block = &self.block
        cdef bytes path
        cdef int method = 0
        if not is_taken(block, name, name_size, value, value_size):
            return 0
        if name[0] == c":":
            if is_name(name, name_size, ":path", 5):
                for path in self.hot_paths:
                    if is_name(value, value_size, PyBytes_AS_STRING(path),
                               PyBytes_GET_SIZE(path)):
                        block.hot = method
                        return 0
                    method += 1
                method = METHODS
                for path in self.whole_paths:
                    if is_name(value, value_size, PyBytes_AS_STRING(path),
                               PyBytes_GET_SIZE(path)):
                        block.hot = method
                        return 0
                    method += 1
                self.block_path = PyUnicode_DecodeLatin1(<const char*> value, value_size, NULL)
            elif is_name(name, name_size, ":method", 7):
                block.is_post = is_name(value, value_size, "POST", 4)
        elif is_name(name, name_size, "content-type", 12):
            block.is_grpc = is_grpc_type(value, value_size)
        elif is_name(name, name_size, "grpc-timeout", 12):
            block.timeout_s = decoded_timeout(value, value_size)
            block.is_malformed |= block.timeout_s < 0
        elif is_name(name, name_size, "grpc-encoding", 13):
            block.is_encoded = not is_name(value, value_size, "identity", 8)
        elif (is_name(name, name_size, "te", 2)
                or is_name(name, name_size, "grpc-accept-encoding", 20)):
            pass
        elif 0 <= block.hot < METHODS and name_size > 4 and memcmp(
                name + name_size - 4, <const char*> "-bin", 4) == 0:
            # Nothing reads it, but it breaks the rules of hot calls as of all others.
            block.is_malformed |= not append_pair([], name, name_size, value, value_size)
        elif (not 0 <= block.hot < METHODS
                or (name_size > 8 and memcmp(name, <const char*> "kvstore-", 8) == 0)
                or is_name(name, name_size, "grpc-previous-rpc-attempts", 26)
                or is_name(name, name_size, "token", 5)
                or is_name(name, name_size, "authorization", 13)
                or is_name(name, name_size, "traceparent", 11)):
            if not append_pair(self.block_pairs, name, name_size, value, value_size):
                block.is_malformed = True
        return 0

    cdef int block_came(self, int32_t number, bint is_first, bint is_last) except -1:
        cdef HeaderBlock* block = &self.block
        cdef HotCall hot
        cdef Stream stream
        if not is_first:
            # What follows a request's messages has no meaning in gRPC.
            if block.is_broken or block.pseudo or not is_last:
                return self.refuse_broken(number)
            return 0
        if self.said_goaway and number > self.goaway_last:
            # nghttp2 takes calls until the GOAWAY is given out, which says that this one isn't.
            return self.reset_stream(number, NGHTTP2_REFUSED_STREAM)
        if block.size > self.limits.header_bytes_max:
            return self.refuse_block(
                number, STATUS_RESOURCE_EXHAUSTED,
                f"metadata of {block.size} bytes: at most {self.limits.header_bytes_max} are taken",
                None)
        if block.is_broken or block.pseudo & PSEUDO_NEEDED != PSEUDO_NEEDED:
            return self.refuse_broken(number)
        if not block.is_post:
            return check(nghttp2_submit_response(self.h2, number, not_post_pairs, 2, NULL))
        if not block.is_grpc:
            return check(nghttp2_submit_response(self.h2, number, not_grpc_pairs, 1, NULL))
        if block.is_malformed:
            return self.refuse_block(number, STATUS_INVALID_ARGUMENT,
                                     "grpc-timeout or a binary value of metadata is malformed", None)
        add_tokens(&self.idle_frames, 2)
        pairs = tuple(self.block_pairs) if len(self.block_pairs) else ()
        if not may_take(self.received_budget,
                        self.received_bytes + block.size + STREAM_OVERHEAD,
                        block.size + STREAM_OVERHEAD, self.limits.received_bytes_max):
            return self.refuse_block(number, STATUS_RESOURCE_EXHAUSTED, self.too_much(),
                                     COME_AGAIN)
        if block.hot >= 0:
            hot = HotCall.__new__(HotCall)
            hot.is_hot = True
            hot.method = block.hot
            hot.received_at = self.now
            hot.timeout_s = block.timeout_s
            hot.metadata = pairs
            hot.status = -1
            hot.deadline = self.now + (UNSAID_TIMEOUT_S if block.timeout_s == INFINITY
                                       else block.timeout_s)
            hot.key = hot.value = hot.request_id = b""
            stream = hot
            if hot.method >= self.once_from:
                self.fresh.append(hot)
        else:
            stream = Stream.__new__(Stream)
            stream.announced = True
            self.events.append((
                EVENT_CALL, number, self.block_path,
                None if block.timeout_s == INFINITY else block.timeout_s, pairs))
        stream.encoded = block.is_encoded
        self.adopt(stream, number)
        self.hold(stream, block.size + STREAM_OVERHEAD)
        nghttp2_session_set_stream_user_data(self.h2, number, <void*> stream)
        return 0

    cdef int refuse_broken(self, int32_t number) except -1:
        """As nghttp2 does with what breaks HTTP/2's rules: these cost as much as the peer's own
        resets."""
        self.spend(&self.resets, "too_many_resets")
        return self.reset_stream(number, NGHTTP2_PROTOCOL_ERROR)

    cdef int message_came(self, Stream stream, const uint8_t* data, size_t size,
                          bytes whole) except -1:
        cdef Request request
        cdef HotCall hot
        if not stream.is_hot:
            stream.waiting += 1
            if whole is None:
                whole = PyBytes_FromStringAndSize(<const char*> data, size)
            self.events.append((EVENT_MESSAGE, stream.stream, whole))
            return 0
        if stream.whole > 1:
            if (<HotCall> stream).method >= self.once_from:
                self.announce(<HotCall> stream)
                return self.message_came(stream, data, size, whole)
            return self.refuse(stream, STATUS_UNIMPLEMENTED,
                               "more than one message in a call that has one", None)
        hot = <HotCall> stream
        if hot.method >= METHODS:
            if whole is None:
                whole = PyBytes_FromStringAndSize(<const char*> data, size)
            hot.message = whole
            return 0
        if decode_request(<HotMethod> hot.method, data, size, &request) < 0:
            return self.refuse(stream, STATUS_INVALID_ARGUMENT,
                               "the request is not a protobuf message", None)
        hot.key = field_bytes(&request.key)
        if hot.method == METHOD_GET:
            return 0
        hot.request_id = field_bytes(&request.request_id)
        if hot.method == METHOD_PUT:
            hot.value = field_bytes(&request.value)
        return 0

    cdef int remote_end(self, Stream stream) except -1:
        if stream.deaf:
            return 0
        if stream.prefix_bytes:
            return self.refuse(stream, STATUS_INVALID_ARGUMENT, "a message ends too early", None)
        if not stream.is_hot:
            self.events.append((EVENT_HALF_CLOSED, stream.stream))
        elif stream.whole == 0:
            if (<HotCall> stream).method >= self.once_from:
                self.announce(<HotCall> stream)
                return self.remote_end(stream)
            return self.refuse(stream, STATUS_UNIMPLEMENTED,
                               "no message in a call that has one", None)
        else:
            self.hot_calls.append(stream)
        return 0

    cdef int announce(self, HotCall call) except -1:
        """A call that streams didn't come all at once: from here on it is one of events."""
        cdef bytes path = self.whole_paths[call.method - METHODS]
        call.is_hot = False
        call.announced = True
        self.events.append((
            EVENT_CALL, call.stream, path.decode(),
            None if call.timeout_s == INFINITY else call.timeout_s, call.metadata))
        if call.message is not None:
            call.waiting += 1
            self.events.append((EVENT_MESSAGE, call.stream, call.message))
            call.message = None
        return 0

    cdef int all_came(self) except -1:
        cdef HotCall call
        if len(self.fresh):
            fresh = self.fresh
            self.fresh = []
            for call in fresh:
                if call.is_hot and is_living(call) and not call.remote_ended:
                    self.announce(call)
        return 0

    cdef int stream_closed(self, Stream stream, uint32_t h2_code) except -1:
        if stream.announced and not stream.ended:
            self.events.append((EVENT_CLOSED, stream.stream, h2_code))
        return 0

    cdef int block_sent(self, int32_t number, bint is_last) except -1:
        if is_last and nghttp2_session_get_stream_remote_close(self.h2, number) == 0:
            # Answered before the request's end: RFC 9113, 8.1.
            return self.reset_stream(number, NGHTTP2_NO_ERROR)
        return 0

    cdef int goaway_came(self, int32_t last_stream) except -1:
        return 0
