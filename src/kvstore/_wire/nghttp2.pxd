"""What is used of nghttp2 (1.43 and newer), and the header pairs that never change.

Its functions are called with the GIL, since its callbacks, which are ours, make Python objects. A
callback that raises returns NGHTTP2_ERR_CALLBACK_FAILURE, which nghttp2 hands on to whoever called.
"""

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

cdef extern from "nghttp2/nghttp2.h":
    enum:
        NGHTTP2_ERR_CANCEL
        NGHTTP2_ERR_DEFERRED
        NGHTTP2_ERR_NOMEM
        NGHTTP2_ERR_CALLBACK_FAILURE
        NGHTTP2_FLAG_NONE
        NGHTTP2_FLAG_ACK
        NGHTTP2_FLAG_END_STREAM
        NGHTTP2_NV_FLAG_NONE
        NGHTTP2_NV_FLAG_NO_COPY_NAME
        NGHTTP2_NV_FLAG_NO_COPY_VALUE
        NGHTTP2_DATA_FLAG_EOF
        NGHTTP2_DATA_FLAG_NO_END_STREAM
        NGHTTP2_HCAT_REQUEST
        NGHTTP2_DATA
        NGHTTP2_HEADERS
        NGHTTP2_PRIORITY
        NGHTTP2_RST_STREAM
        NGHTTP2_SETTINGS
        NGHTTP2_PING
        NGHTTP2_GOAWAY
        NGHTTP2_WINDOW_UPDATE
        NGHTTP2_CONTINUATION
        NGHTTP2_NO_ERROR
        NGHTTP2_PROTOCOL_ERROR
        NGHTTP2_INTERNAL_ERROR
        NGHTTP2_REFUSED_STREAM
        NGHTTP2_CANCEL
        NGHTTP2_ENHANCE_YOUR_CALM
        NGHTTP2_INADEQUATE_SECURITY
        NGHTTP2_SETTINGS_ENABLE_PUSH
        NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS
        NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE
        NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE

    ctypedef struct nghttp2_session:
        pass
    ctypedef struct nghttp2_session_callbacks:
        pass
    ctypedef struct nghttp2_option:
        pass

    ctypedef struct nghttp2_nv:
        uint8_t* name
        uint8_t* value
        size_t namelen
        size_t valuelen
        uint8_t flags

    ctypedef struct nghttp2_settings_entry:
        int32_t settings_id
        uint32_t value

    ctypedef struct nghttp2_frame_hd:
        size_t length
        int32_t stream_id
        uint8_t type
        uint8_t flags

    ctypedef struct nghttp2_data:
        nghttp2_frame_hd hd
        size_t padlen
    ctypedef struct nghttp2_headers:
        nghttp2_frame_hd hd
        int cat
    ctypedef struct nghttp2_rst_stream:
        nghttp2_frame_hd hd
        uint32_t error_code
    ctypedef struct nghttp2_goaway:
        nghttp2_frame_hd hd
        int32_t last_stream_id
        uint32_t error_code
        uint8_t* opaque_data
        size_t opaque_data_len

    ctypedef union nghttp2_frame:
        nghttp2_frame_hd hd
        nghttp2_data data
        nghttp2_headers headers
        nghttp2_rst_stream rst_stream
        nghttp2_goaway goaway

    ctypedef union nghttp2_data_source:
        int fd
        void* ptr

    ctypedef ssize_t (*nghttp2_data_source_read_callback)(
        nghttp2_session*, int32_t, uint8_t*, size_t, uint32_t*, nghttp2_data_source*, void*,
    ) except? NGHTTP2_ERR_CALLBACK_FAILURE

    ctypedef struct nghttp2_data_provider:
        nghttp2_data_source source
        nghttp2_data_source_read_callback read_callback

    ctypedef struct nghttp2_mem:
        void* mem_user_data
        void* (*malloc)(size_t, void*) noexcept nogil
        void (*free)(void*, void*) noexcept nogil
        void* (*calloc)(size_t, size_t, void*) noexcept nogil
        void* (*realloc)(void*, size_t, void*) noexcept nogil

    int nghttp2_session_callbacks_new(nghttp2_session_callbacks**) noexcept
    void nghttp2_session_callbacks_del(nghttp2_session_callbacks*) noexcept
    void nghttp2_session_callbacks_set_on_begin_headers_callback(
        nghttp2_session_callbacks*,
        int (*)(nghttp2_session*, const nghttp2_frame*, void*)
            except? NGHTTP2_ERR_CALLBACK_FAILURE) noexcept
    void nghttp2_session_callbacks_set_on_header_callback(
        nghttp2_session_callbacks*,
        int (*)(nghttp2_session*, const nghttp2_frame*, const uint8_t*, size_t, const uint8_t*,
                size_t, uint8_t, void*) except? NGHTTP2_ERR_CALLBACK_FAILURE) noexcept
    void nghttp2_session_callbacks_set_on_data_chunk_recv_callback(
        nghttp2_session_callbacks*,
        int (*)(nghttp2_session*, uint8_t, int32_t, const uint8_t*, size_t, void*)
            except? NGHTTP2_ERR_CALLBACK_FAILURE) noexcept
    void nghttp2_session_callbacks_set_on_frame_recv_callback(
        nghttp2_session_callbacks*,
        int (*)(nghttp2_session*, const nghttp2_frame*, void*)
            except? NGHTTP2_ERR_CALLBACK_FAILURE) noexcept
    void nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(
        nghttp2_session_callbacks*,
        int (*)(nghttp2_session*, const nghttp2_frame*, int, void*)
            except? NGHTTP2_ERR_CALLBACK_FAILURE) noexcept
    void nghttp2_session_callbacks_set_on_frame_send_callback(
        nghttp2_session_callbacks*,
        int (*)(nghttp2_session*, const nghttp2_frame*, void*)
            except? NGHTTP2_ERR_CALLBACK_FAILURE) noexcept
    void nghttp2_session_callbacks_set_on_frame_not_send_callback(
        nghttp2_session_callbacks*,
        int (*)(nghttp2_session*, const nghttp2_frame*, int, void*)
            except? NGHTTP2_ERR_CALLBACK_FAILURE) noexcept
    void nghttp2_session_callbacks_set_on_stream_close_callback(
        nghttp2_session_callbacks*,
        int (*)(nghttp2_session*, int32_t, uint32_t, void*)
            except? NGHTTP2_ERR_CALLBACK_FAILURE) noexcept

    void nghttp2_session_callbacks_set_unpack_extension_callback(
        nghttp2_session_callbacks*,
        int (*)(nghttp2_session*, void**, const nghttp2_frame_hd*, void*)
            except? NGHTTP2_ERR_CALLBACK_FAILURE) noexcept

    int nghttp2_option_new(nghttp2_option**) noexcept
    void nghttp2_option_set_user_recv_extension_type(nghttp2_option*, uint8_t) noexcept
    void nghttp2_option_del(nghttp2_option*) noexcept
    void nghttp2_option_set_no_http_messaging(nghttp2_option*, int) noexcept
    int nghttp2_check_header_name(const uint8_t*, size_t) noexcept
    int nghttp2_check_header_value(const uint8_t*, size_t) noexcept
    void nghttp2_option_set_no_auto_window_update(nghttp2_option*, int) noexcept
    void nghttp2_option_set_no_closed_streams(nghttp2_option*, int) noexcept
    void nghttp2_option_set_max_outbound_ack(nghttp2_option*, size_t) noexcept
    void nghttp2_option_set_max_settings(nghttp2_option*, size_t) noexcept
    void nghttp2_option_set_max_reserved_remote_streams(nghttp2_option*, uint32_t) noexcept

    int nghttp2_session_server_new3(
        nghttp2_session**, const nghttp2_session_callbacks*, void*, const nghttp2_option*,
        nghttp2_mem*) noexcept
    int nghttp2_session_client_new3(
        nghttp2_session**, const nghttp2_session_callbacks*, void*, const nghttp2_option*,
        nghttp2_mem*) noexcept
    void nghttp2_session_del(nghttp2_session*) noexcept

    ssize_t nghttp2_session_mem_recv(
        nghttp2_session*, const uint8_t*, size_t) except? NGHTTP2_ERR_CALLBACK_FAILURE
    ssize_t nghttp2_session_mem_send(
        nghttp2_session*, const uint8_t**) except? NGHTTP2_ERR_CALLBACK_FAILURE
    int nghttp2_session_want_read(nghttp2_session*) noexcept
    int nghttp2_session_want_write(nghttp2_session*) noexcept
    int nghttp2_session_resume_data(nghttp2_session*, int32_t) noexcept
    int nghttp2_session_consume_connection(nghttp2_session*, size_t) noexcept
    int nghttp2_session_consume_stream(nghttp2_session*, int32_t, size_t) noexcept
    int nghttp2_session_set_local_window_size(
        nghttp2_session*, uint8_t, int32_t, int32_t) noexcept
    void* nghttp2_session_get_stream_user_data(nghttp2_session*, int32_t) noexcept
    int nghttp2_session_set_stream_user_data(nghttp2_session*, int32_t, void*) noexcept
    int nghttp2_session_get_stream_remote_close(nghttp2_session*, int32_t) noexcept
    size_t nghttp2_session_get_outbound_queue_size(nghttp2_session*) noexcept
    int32_t nghttp2_session_get_last_proc_stream_id(nghttp2_session*) noexcept
    uint32_t nghttp2_session_get_next_stream_id(nghttp2_session*) noexcept
    uint32_t nghttp2_session_get_remote_settings(nghttp2_session*, int32_t) noexcept

    int nghttp2_submit_settings(
        nghttp2_session*, uint8_t, const nghttp2_settings_entry*, size_t) noexcept
    int32_t nghttp2_submit_request(
        nghttp2_session*, const void*, const nghttp2_nv*, size_t, const nghttp2_data_provider*,
        void*) noexcept
    int nghttp2_submit_response(
        nghttp2_session*, int32_t, const nghttp2_nv*, size_t,
        const nghttp2_data_provider*) noexcept
    int nghttp2_submit_trailer(nghttp2_session*, int32_t, const nghttp2_nv*, size_t) noexcept
    int nghttp2_submit_rst_stream(nghttp2_session*, uint8_t, int32_t, uint32_t) noexcept
    int nghttp2_submit_ping(nghttp2_session*, uint8_t, const uint8_t*) noexcept
    int nghttp2_submit_goaway(
        nghttp2_session*, uint8_t, int32_t, uint32_t, const uint8_t*, size_t) noexcept
    int nghttp2_submit_shutdown_notice(nghttp2_session*) noexcept
    int nghttp2_check_header_name(const uint8_t*, size_t) noexcept
    const char* nghttp2_strerror(int) noexcept
    const char* nghttp2_http2_strerror(uint32_t) noexcept


cdef extern from *:
    """
    /* Not in every nghttp2 that we build with. It would end a connection with INTERNAL_ERROR when a
       client gives up more than 33 calls a second for half a minute, which many at their deadline
       are; Limits.resets_max is the bound here. */
    extern "C" void nghttp2_option_set_stream_reset_rate_limit(nghttp2_option*, uint64_t, uint64_t)
        __attribute__((weak));
    static inline void kv_set_no_reset_limit(nghttp2_option* option) {
        if (nghttp2_option_set_stream_reset_rate_limit) {
            nghttp2_option_set_stream_reset_rate_limit(option, UINT64_MAX, UINT64_MAX);
        }
    }
    """
    void set_no_reset_limit "kv_set_no_reset_limit"(nghttp2_option*) noexcept


cdef extern from *:
    """
    #define KV_PAIR(name, value) {(uint8_t*) name, (uint8_t*) value, sizeof(name) - 1, \\
        sizeof(value) - 1, NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE}
    static const nghttp2_nv kv_answer_pairs[] = {
        KV_PAIR(":status", "200"), KV_PAIR("content-type", "application/grpc"),
        KV_PAIR("grpc-accept-encoding", "identity"),
    };
    static const nghttp2_nv kv_ok_pairs[] = {KV_PAIR("grpc-status", "0")};
    static const nghttp2_nv kv_not_post_pairs[] = {
        KV_PAIR(":status", "405"), KV_PAIR("allow", "POST"),
    };
    static const nghttp2_nv kv_not_grpc_pairs[] = {KV_PAIR(":status", "415")};
    static const nghttp2_nv kv_call_pairs[] = {
        KV_PAIR(":method", "POST"), KV_PAIR("te", "trailers"),
        KV_PAIR("content-type", "application/grpc"),
        KV_PAIR("grpc-accept-encoding", "identity"),
    };
    """
    const nghttp2_nv answer_pairs "kv_answer_pairs"[3]
    const nghttp2_nv ok_pairs "kv_ok_pairs"[1]
    const nghttp2_nv not_post_pairs "kv_not_post_pairs"[2]
    const nghttp2_nv not_grpc_pairs "kv_not_grpc_pairs"[1]
    const nghttp2_nv call_pairs "kv_call_pairs"[4]
