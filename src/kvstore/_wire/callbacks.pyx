"""What nghttp2 calls: each finds the session and the stream, and hands on.

A session that is broken stops nghttp2 with NGHTTP2_ERR_CALLBACK_FAILURE without an exception.
"""

from kvstore._engine.primitives.native cimport kv_calloc, kv_free, kv_malloc, kv_realloc


cdef void* h2_malloc(size_t size, void* unused) noexcept nogil:
    return kv_malloc(size)

cdef void h2_free(void* memory, void* unused) noexcept nogil:
    kv_free(memory)

cdef void* h2_calloc(size_t count, size_t size, void* unused) noexcept nogil:
    return kv_calloc(count, size)

cdef void* h2_realloc(void* memory, size_t size, void* unused) noexcept nogil:
    return kv_realloc(memory, size)


cdef inline int check(int result) except -1:
    """Of a function that fails for want of memory alone, or since the stream is gone already."""
    if result == NGHTTP2_ERR_NOMEM:
        raise MemoryError("no memory for HTTP/2")
    return 0


cdef inline int outcome(_Session session) noexcept:
    return 0 if session.why is None else NGHTTP2_ERR_CALLBACK_FAILURE


cdef int on_begin_headers(
    nghttp2_session* h2, const nghttp2_frame* frame, void* user_data
) except? NGHTTP2_ERR_CALLBACK_FAILURE:
    cdef _Session session = <_Session> user_data
    session.in_block = True
    session.block = HeaderBlock(0, -1, False, False, False, False, False, False, 0, INFINITY, 0, -1)
    session.block_path = session.block_details = None
    if len(session.block_pairs):
        session.block_pairs = []
    return outcome(session)


cdef int on_header(
    nghttp2_session* h2, const nghttp2_frame* frame, const uint8_t* name, size_t name_size,
    const uint8_t* value, size_t value_size, uint8_t flags, void* user_data,
) except? NGHTTP2_ERR_CALLBACK_FAILURE:
    cdef _Session session = <_Session> user_data
    session.block.size += <int64_t> (name_size + value_size + PAIR_OVERHEAD)
    if session.block.size > session.limits.header_bytes_max:
        if session.block.size > session.limits.header_bytes_max * HEADER_EXCESS:
            session.break_off(NGHTTP2_ENHANCE_YOUR_CALM, "too_many_header_bytes")
        return outcome(session)
    session.take_field(name, name_size, value, value_size)
    return outcome(session)


cdef int on_data_chunk_recv(
    nghttp2_session* h2, uint8_t flags, int32_t number, const uint8_t* data, size_t size,
    void* user_data,
) except? NGHTTP2_ERR_CALLBACK_FAILURE:
    cdef _Session session = <_Session> user_data
    cdef void* found = nghttp2_session_get_stream_user_data(h2, number)
    cdef Stream stream
    # Windows of streams and the budget bound what is held; the connection's window must not stand
    # still for a stream that nobody reads.
    nghttp2_session_consume_connection(h2, size)
    if found == NULL:
        return outcome(session)
    stream = <Stream> found
    if stream.deaf:
        return outcome(session)
    session.data_came(stream, data, size)
    if not flags & NGHTTP2_FLAG_END_STREAM and not stream.deaf:
        stream.uncredited += size
        if stream.waiting == 0:
            nghttp2_session_consume_stream(h2, number, stream.uncredited)
            stream.uncredited = 0
    return outcome(session)


cdef int on_frame_recv(
    nghttp2_session* h2, const nghttp2_frame* frame, void* user_data
) except? NGHTTP2_ERR_CALLBACK_FAILURE:
    cdef _Session session = <_Session> user_data
    cdef uint8_t kind = frame.hd.type
    cdef bint is_last = frame.hd.flags & NGHTTP2_FLAG_END_STREAM != 0
    cdef void* found
    if kind == NGHTTP2_DATA or kind == NGHTTP2_HEADERS:
        if kind == NGHTTP2_HEADERS:
            session.in_block = False
            session.block_came(frame.hd.stream_id,
                               frame.headers.cat == NGHTTP2_HCAT_REQUEST, is_last)
        elif frame.hd.length == frame.data.padlen and not is_last:
            session.spend(&session.idle_frames, "too_many_empty_frames")
        if is_last:
            found = nghttp2_session_get_stream_user_data(h2, frame.hd.stream_id)
            if found != NULL:
                (<Stream> found).remote_ended = True
                session.remote_end(<Stream> found)
    elif kind == NGHTTP2_RST_STREAM:
        found = nghttp2_session_get_stream_user_data(h2, frame.hd.stream_id)
        if found != NULL and not (<Stream> found).closing:
            session.spend(&session.resets, "too_many_resets")
        else:
            session.spend(&session.idle_frames, "too_many_idle_frames")
    elif kind == NGHTTP2_PING:
        if not frame.hd.flags & NGHTTP2_FLAG_ACK:
            session.spend(&session.pings, "too_many_pings")
        elif session.pings_out > 0:
            session.pings_out -= 1
            session.events.append((EVENT_PONG,))
        else:
            session.spend(&session.idle_frames, "too_many_idle_frames")
    elif kind == NGHTTP2_SETTINGS:
        if not frame.hd.flags & NGHTTP2_FLAG_ACK:
            session.settings_came = True
            session.spend(&session.settings, "too_many_settings")
    elif kind == NGHTTP2_GOAWAY:
        session.spend(&session.settings, "too_many_goaways")
        session.draining = True
        session.events.append((
            EVENT_GOAWAY, frame.goaway.last_stream_id, frame.goaway.error_code,
            PyBytes_FromStringAndSize(
                <const char*> frame.goaway.opaque_data,
                min(frame.goaway.opaque_data_len, <size_t> DEBUG_BYTES_MAX)),
        ))
        session.goaway_came(frame.goaway.last_stream_id)
    elif kind == NGHTTP2_WINDOW_UPDATE or kind == NGHTTP2_PRIORITY:
        session.spend(&session.idle_frames, "too_many_idle_frames")
    return outcome(session)


cdef int on_extension_recv(
    nghttp2_session* h2, void** payload, const nghttp2_frame_hd* head, void* user_data
) except? NGHTTP2_ERR_CALLBACK_FAILURE:
    """A frame that HTTP/2 itself doesn't know: left alone, but not for nothing."""
    cdef _Session session = <_Session> user_data
    session.spend(&session.idle_frames, "too_many_idle_frames")
    return NGHTTP2_ERR_CANCEL if session.why is None else NGHTTP2_ERR_CALLBACK_FAILURE


cdef int on_invalid_frame_recv(
    nghttp2_session* h2, const nghttp2_frame* frame, int error, void* user_data
) except? NGHTTP2_ERR_CALLBACK_FAILURE:
    """A call beyond streams_max, or one that breaks HTTP/2's rules: nghttp2 resets it, and as many
    of these would make as much work as the peer's own resets."""
    cdef _Session session = <_Session> user_data
    session.in_block = False
    session.spend(&session.resets, "too_many_resets")
    return outcome(session)


cdef int on_frame_send(
    nghttp2_session* h2, const nghttp2_frame* frame, void* user_data
) except? NGHTTP2_ERR_CALLBACK_FAILURE:
    cdef _Session session = <_Session> user_data
    cdef uint8_t kind = frame.hd.type
    if kind == NGHTTP2_DATA or kind == NGHTTP2_HEADERS:
        # Peers measure how much is on its way by a PING for what comes, as grpc-go does.
        add_tokens(&session.pings, 2)
    if kind == NGHTTP2_DATA:
        # The peer tells what it read of it, of the stream and of the connection.
        add_tokens(&session.idle_frames, 2)
    elif kind == NGHTTP2_HEADERS:
        session.block_sent(frame.hd.stream_id, frame.hd.flags & NGHTTP2_FLAG_END_STREAM != 0)
    elif kind == NGHTTP2_GOAWAY and frame.goaway.error_code != NGHTTP2_NO_ERROR:
        if not session.said_goaway:
            # nghttp2's own: it saw a breach of HTTP/2 and takes no more.
            session.why = (
                PyBytes_FromStringAndSize(<const char*> frame.goaway.opaque_data,
                                          frame.goaway.opaque_data_len).decode("utf-8", "replace")
                or nghttp2_http2_strerror(frame.goaway.error_code).decode())
    return 0


cdef int on_frame_not_send(
    nghttp2_session* h2, const nghttp2_frame* frame, int error, void* user_data
) except? NGHTTP2_ERR_CALLBACK_FAILURE:
    if frame.hd.type == NGHTTP2_HEADERS and frame.headers.cat != NGHTTP2_HCAT_REQUEST:
        # An answer that can't go out, for want of memory: the peer mustn't wait for it.
        check(nghttp2_submit_rst_stream(
            h2, NGHTTP2_FLAG_NONE, frame.hd.stream_id, NGHTTP2_INTERNAL_ERROR))
    return 0


cdef int on_stream_close(
    nghttp2_session* h2, int32_t number, uint32_t h2_code, void* user_data
) except? NGHTTP2_ERR_CALLBACK_FAILURE:
    cdef _Session session = <_Session> user_data
    cdef void* found = nghttp2_session_get_stream_user_data(h2, number)
    cdef Stream stream
    if found != NULL:
        stream = <Stream> found
        session.stream_closed(stream, h2_code)
        nghttp2_session_set_stream_user_data(h2, number, NULL)
        session.release(stream)
    return 0


cdef ssize_t read_messages(
    nghttp2_session* h2, int32_t number, uint8_t* frame, size_t size, uint32_t* flags,
    nghttp2_data_source* source, void* user_data,
) except? NGHTTP2_ERR_CALLBACK_FAILURE:
    """Fill a DATA frame of a stream; the server's trailers are submitted with its last one."""
    cdef _Session session = <_Session> user_data
    cdef Stream stream = <Stream> source.ptr
    cdef size_t filled = fill_frame(stream, frame, size)
    session.give_back_unsent(stream, filled)
    if has_unsent(stream):
        return filled
    if stream.ended:
        flags[0] = NGHTTP2_DATA_FLAG_EOF
        stream.closing = True
        if session.is_server:
            flags[0] |= NGHTTP2_DATA_FLAG_NO_END_STREAM
            submit_trailer(h2, stream)
    elif filled == 0:
        stream.deferred = True
        return NGHTTP2_ERR_DEFERRED
    return filled


cdef class Callbacks:
    """nghttp2's table of them, and the options of either side, for the process's life."""
    cdef nghttp2_session_callbacks* table
    cdef nghttp2_option* server
    cdef nghttp2_option* client

    def __cinit__(self):
        if (nghttp2_session_callbacks_new(&self.table) or nghttp2_option_new(&self.server)
                or nghttp2_option_new(&self.client)):
            raise MemoryError("no memory for HTTP/2")
        nghttp2_session_callbacks_set_on_begin_headers_callback(self.table, on_begin_headers)
        nghttp2_session_callbacks_set_on_header_callback(self.table, on_header)
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(self.table, on_data_chunk_recv)
        nghttp2_session_callbacks_set_on_frame_recv_callback(self.table, on_frame_recv)
        nghttp2_session_callbacks_set_unpack_extension_callback(self.table, on_extension_recv)
        nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(
            self.table, on_invalid_frame_recv)
        nghttp2_session_callbacks_set_on_frame_send_callback(self.table, on_frame_send)
        nghttp2_session_callbacks_set_on_frame_not_send_callback(self.table, on_frame_not_send)
        nghttp2_session_callbacks_set_on_stream_close_callback(self.table, on_stream_close)
        set_options(self.server)
        set_options(self.client)
        # Requests are judged in request_fields.pyx: older clients of etcd break a rule of theirs.
        nghttp2_option_set_no_http_messaging(self.server, 1)

    def __dealloc__(self):
        nghttp2_session_callbacks_del(self.table)
        nghttp2_option_del(self.server)
        nghttp2_option_del(self.client)


cdef void set_options(nghttp2_option* option) noexcept:
    cdef int kind
    for kind in range(NGHTTP2_CONTINUATION + 1, 256):
        nghttp2_option_set_user_recv_extension_type(option, <uint8_t> kind)
    nghttp2_option_set_no_auto_window_update(option, 1)
    nghttp2_option_set_no_closed_streams(option, 1)
    nghttp2_option_set_max_outbound_ack(option, OUTBOUND_ACKS_MAX)
    nghttp2_option_set_max_settings(option, FIELDS_PER_SETTINGS_MAX)
    set_no_reset_limit(option)
    nghttp2_option_set_max_reserved_remote_streams(option, 0)


cdef Callbacks callbacks = Callbacks()


cdef nghttp2_session* new_h2(void* session, bint is_server) except NULL:
    cdef nghttp2_mem memory
    cdef nghttp2_session* h2 = NULL
    memory.mem_user_data = NULL
    memory.malloc = h2_malloc
    memory.free = h2_free
    memory.calloc = h2_calloc
    memory.realloc = h2_realloc
    if (nghttp2_session_server_new3 if is_server else nghttp2_session_client_new3)(
            &h2, callbacks.table, session,
            callbacks.server if is_server else callbacks.client, &memory):
        raise MemoryError("no memory for HTTP/2")
    return h2
