/* Load of unary gRPC calls, closed loop or paced, against kvd (kvstore.v1.KV) or etcd (etcdserverpb.KV).
 *
 *   cc -O2 -o generator *.c -lnghttp2 -lssl -lcrypto
 *   generator ADDRESS kvd|etcd OPERATION NAME=VALUE...      OPERATION: put get mixed fill keepalive txn range count
 *
 * Python callers go through benchmarks/load/generator.py, which lists the settings. One thread: it
 * answers what came, begins new calls, writes, waits in poll. A closed loop keeps `in_flight` calls
 * going; with `rate` calls are due at their times, at most `in_flight` at once, and a latency counts
 * from when the call was due, so that a server that stands still is charged for those that waited.
 * With `cancel_after_ms` a call that was sent is cancelled if it isn't answered by then.
 *
 * Measured are the `seconds` after `warm_up`, or until SIGTERM. Each put has a key drawn from `keys`, a
 * value of its own and, for kvd, a request id of its own; "mixed" is half puts, half gets; "fill" puts
 * each key once, in order, again where that failed, and fails unless all are acknowledged in time;
 * "keepalive" renews a lease, of an id from 1 to `keys`, by a stream of its own (LeaseKeepAlive with
 * one request, as etcd's own benchmark does; both servers speak etcd's API); "txn" is a Txn of etcd's
 * API that puts a key and gets it, if its mod revision isn't 0; "range" and "count" are Ranges of its
 * API over `span` successive keys, or of their number alone. Processor time is that of
 * whole processes over the very same time. The result is one JSON object on standard output; exit
 * status 1 and a line on standard error where nothing could be measured.
 */
#define _GNU_SOURCE
#include "histogram.h"
#include "settings.h"
#include "stream_socket.h"
#include <nghttp2/nghttp2.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    POOL_BYTES = 4 << 20, /* of random bytes, from which values are cut */
    SENT_AT_ONCE = 64 << 10,
    FRAME_BYTES_MAX = 16384 + 64,
    MUTE_MAX = 100,    /* connections in a row that end before a frame of HTTP/2 came */
    FILL_SILENCE_S = 30, /* a fill gives up when nothing was acknowledged for so long */
    STRAGGLERS_S = 10, /* how long calls that began in time are waited for */
};

enum operation { PUT, GET, KEEPALIVE, TXN, RANGE, COUNT, OPERATIONS };
static const char *const OPERATION_NAMES[OPERATIONS] = {"put", "get", "keepalive", "txn", "range", "count"};
enum { CANCELLED = 1, NO_STATUS = 17, LOST = 18, STATUSES = 19 };
static const char *const STATUS_NAMES[STATUSES] = {
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND",
    "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED",
    "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
    "no status", "connection lost",
};

/* ---- state */

struct connection;

struct call {
    struct connection *connection;
    enum operation operation;
    bool live, cancelled;
    int32_t stream;
    uint64_t due_ns, number; /* of its key */
    uint8_t *body; /* of the largest size */
    size_t body_bytes, sent_bytes, answer_bytes;
    int status;
};

struct connection {
    struct stream_socket socket;
    nghttp2_session *session;
    bool draining; /* the server said GOAWAY: closed once nothing is live on it */
    long live;
    uint8_t out[SENT_AT_ONCE];
    size_t out_from, out_to;
};

static struct {
    struct connection *connections;
    struct call *calls;
    struct call **idle; /* a ring: those that can begin, the longest idle first */
    size_t idle_from, idle_count;
    uint64_t *redo; /* keys of a fill that are to be put again */
    size_t redo_count;
    struct histogram latencies[OPERATIONS];
    uint64_t finished[OPERATIONS], errors[STATUSES], missing, unanswered, reopened, mute;
    uint64_t start_ns, end_ns, next_due_ns, last_success_ns, longest_gap_ns;
    uint64_t serial, filled, random;
    double own_cpu_s;
    char run_id[48];
    nghttp2_session_callbacks *callbacks;
    uint8_t *pool;
    bool measuring;
} state;

static volatile sig_atomic_t told_to_end;

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static double clock_s(clockid_t clock)
{
    struct timespec t;
    return clock_gettime(clock, &t) ? -1 : (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static uint64_t draw(void)
{
    uint64_t x = state.random; /* xorshift64* */
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    state.random = x;
    return x * 2685821657736338717u;
}

/* ---- messages: five bytes of gRPC's framing, then protobuf's length-delimited fields */

static size_t put_field(uint8_t *to, int number, const void *data, size_t size)
{
    size_t n = 0, left = size;
    to[n++] = (uint8_t)(number << 3 | 2);
    for (; left > 0x7f; left >>= 7)
        to[n++] = (uint8_t)(left | 0x80);
    to[n++] = (uint8_t)left;
    memcpy(to + n, data, size);
    return n + size;
}

static size_t put_number(uint8_t *to, int number, uint64_t value)
{
    size_t n = 0;
    to[n++] = (uint8_t)(number << 3);
    for (; value > 0x7f; value >>= 7)
        to[n++] = (uint8_t)(value | 0x80);
    to[n++] = (uint8_t)value;
    return n;
}

/* If the key is there then put it and get it. */
static size_t put_txn(uint8_t *to, const char *key, size_t key_bytes, const uint8_t *value,
                      size_t value_bytes)
{
    enum { GREATER = 1, MOD = 2 };
    static uint8_t put[VALUE_BYTES_MAX + 128], operation[VALUE_BYTES_MAX + 128];
    uint8_t part[64];
    size_t n, size;
    size = put_number(part, 1, GREATER);
    size += put_number(part + size, 2, MOD);
    size += put_field(part + size, 3, key, key_bytes);
    size += put_number(part + size, 6, 0);
    n = put_field(to, 1, part, size);
    size = put_field(put, 1, key, key_bytes);
    size += put_field(put + size, 2, value, value_bytes);
    n += put_field(to + n, 2, operation, put_field(operation, 2, put, size));
    size = put_field(part, 1, key, key_bytes);
    return n + put_field(to + n, 2, operation, put_field(operation, 1, part, size));
}

/* The keys of the span that begins with the call's. */
static size_t put_range(uint8_t *to, const struct call *call)
{
    enum { COUNT_ONLY = 9 };
    char key[32];
    int size = snprintf(key, sizeof key, "key-%012llu", (unsigned long long)call->number);
    size_t n = put_field(to, 1, key, (size_t)size);
    uint64_t stop = call->number + (uint64_t)asked.span;
    size = snprintf(key, sizeof key, "key-%012llu", (unsigned long long)stop);
    n += put_field(to + n, 2, key, (size_t)size);
    return call->operation == COUNT ? n + put_number(to + n, COUNT_ONLY, 1) : n;
}

static void make_body(struct call *call)
{
    char key[32], id[80];
    int size;
    size_t value_bytes = (size_t)asked.value_bytes, n = 5;
    if (!asked.fill)
        call->number = draw() % (uint64_t)(asked.keys - asked.span + 1);
    else
        call->number = state.redo_count ? state.redo[--state.redo_count] : state.filled++;
    if (call->operation == KEEPALIVE) {
        n += put_number(call->body + n, 1, call->number + 1);
    } else if (call->operation == TXN) {
        size = snprintf(key, sizeof key, "key-%012llu", (unsigned long long)call->number);
        n += put_txn(call->body + n, key, (size_t)size, state.pool + draw() % (POOL_BYTES - value_bytes),
                     value_bytes);
    } else if (call->operation >= RANGE) {
        n += put_range(call->body + n, call);
    } else {
        size = snprintf(key, sizeof key, "key-%012llu", (unsigned long long)call->number);
        n += put_field(call->body + n, 1, key, (size_t)size);
    }
    if (call->operation == PUT) {
        const uint8_t *value = state.pool + draw() % (POOL_BYTES - value_bytes);
        n += put_field(call->body + n, 2, value, value_bytes);
        if (!asked.etcd) {
            size = snprintf(id, sizeof id, "%s-%llu", state.run_id, (unsigned long long)state.serial++);
            n += put_field(call->body + n, 3, id, (size_t)size);
        }
    }
    uint32_t length = htonl((uint32_t)(n - 5));
    call->body[0] = 0;
    memcpy(call->body + 1, &length, 4);
    call->body_bytes = n;
    call->sent_bytes = call->answer_bytes = 0;
    call->status = NO_STATUS;
}

static ssize_t read_body(nghttp2_session *session, int32_t stream, uint8_t *to, size_t size,
                         uint32_t *flags, nghttp2_data_source *source, void *user)
{
    (void)session, (void)stream, (void)user;
    struct call *call = source->ptr;
    size_t left = call->body_bytes - call->sent_bytes;
    if (size > left)
        size = left;
    memcpy(to, call->body + call->sent_bytes, size);
    call->sent_bytes += size;
    if (size == left)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)size;
}

/* ---- calls */

static void make_idle(struct call *call)
{
    state.idle[(state.idle_from + state.idle_count++) % (size_t)asked.in_flight] = call;
}

#define HEADER(name, value, size) \
    {(uint8_t *)(name), (uint8_t *)(value), sizeof(name) - 1, size, \
     NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE}

static void begin(struct call *call, uint64_t due_ns)
{
    static const char *const PATHS[2][OPERATIONS] = {
        {"/kvstore.v1.KV/Put", "/kvstore.v1.KV/Get", "/etcdserverpb.Lease/LeaseKeepAlive",
         "/etcdserverpb.KV/Txn", "/etcdserverpb.KV/Range", "/etcdserverpb.KV/Range"},
        {"/etcdserverpb.KV/Put", "/etcdserverpb.KV/Range", "/etcdserverpb.Lease/LeaseKeepAlive",
         "/etcdserverpb.KV/Txn", "/etcdserverpb.KV/Range", "/etcdserverpb.KV/Range"},
    };
    struct connection *connection = call->connection;
    if (asked.keepalives)
        call->operation = KEEPALIVE;
    else if (asked.txns)
        call->operation = TXN;
    else if (asked.ranges || asked.counts)
        call->operation = asked.ranges ? RANGE : COUNT;
    else if (asked.writes && asked.reads)
        call->operation = draw() >> 63 ? GET : PUT;
    else
        call->operation = asked.writes ? PUT : GET;
    make_body(call);
    const char *path = PATHS[asked.etcd][call->operation];
    const char *scheme = asked.ca ? "https" : "http";
    nghttp2_nv headers[] = {
        HEADER(":method", "POST", 4),
        HEADER(":scheme", scheme, strlen(scheme)),
        HEADER(":path", path, strlen(path)),
        HEADER(":authority", asked.address, strlen(asked.address)),
        HEADER("te", "trailers", 8),
        HEADER("content-type", "application/grpc", 16),
    };
    nghttp2_data_provider body = {{.ptr = call}, read_body};
    size_t count = sizeof headers / sizeof *headers;
    call->due_ns = due_ns;
    call->stream = nghttp2_submit_request(connection->session, NULL, headers, count, &body, call);
    if (call->stream < 0)
        fail("a request was refused: %s", nghttp2_strerror(call->stream));
    call->live = true;
    call->cancelled = false;
    connection->live++;
}

static void end_call(struct call *call, int status)
{
    uint64_t now = now_ns();
    call->live = false;
    call->connection->live--;
    if (state.measuring && call->due_ns >= state.start_ns && call->due_ns < state.end_ns) {
        if (status)
            state.errors[status]++;
        else
            note(&state.latencies[call->operation], (now - call->due_ns) / 1000);
    }
    if (!status && state.measuring && now < state.end_ns) {
        state.finished[call->operation]++;
        if ((call->operation == GET && call->answer_bytes < (size_t)asked.value_bytes) ||
            (call->operation == RANGE && call->answer_bytes < (size_t)(asked.value_bytes * asked.span)))
            state.missing++;
        if (now - state.last_success_ns > state.longest_gap_ns)
            state.longest_gap_ns = now - state.last_success_ns;
        state.last_success_ns = now;
    }
    if (status && asked.fill) {
        state.redo[state.redo_count++] = call->number; /* at most one for each idle call */
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    if (!call->connection->draining)
        make_idle(call);
}

/* Once they are sent: what is cancelled before that, nobody hears of. */
static void cancel_calls(void)
{
    uint64_t now = now_ns(), patience = (uint64_t)(asked.cancel_after_ms * 1e6);
    for (long i = 0; i < asked.in_flight; i++) {
        struct call *call = &state.calls[i];
        bool sent = call->live && call->sent_bytes == call->body_bytes;
        if (!sent || call->cancelled || now < call->due_ns + patience)
            continue;
        call->cancelled = true;
        nghttp2_submit_rst_stream(call->connection->session, NGHTTP2_FLAG_NONE, call->stream,
                                  NGHTTP2_CANCEL);
    }
}

static bool all_filled(void)
{
    return asked.fill && state.filled == (uint64_t)asked.keys && !state.redo_count;
}

static bool has_more(uint64_t now)
{
    return now < state.end_ns && !all_filled();
}

static void begin_calls(void)
{
    uint64_t now = now_ns();
    while (state.idle_count && has_more(now) && (asked.rate <= 0 || state.next_due_ns <= now)) {
        struct call *call = state.idle[state.idle_from];
        state.idle_from = (state.idle_from + 1) % (size_t)asked.in_flight;
        state.idle_count--;
        if (call->connection->draining)
            continue; /* idle again once the connection is */
        begin(call, asked.rate > 0 ? state.next_due_ns : now);
        if (asked.rate > 0)
            state.next_due_ns += (uint64_t)(1e9 / asked.rate);
    }
}

/* ---- HTTP/2 */

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_bytes, const uint8_t *value, size_t value_bytes, uint8_t flags,
                     void *user)
{
    (void)flags, (void)user;
    if (name_bytes == 11 && !memcmp(name, "grpc-status", 11)) {
        struct call *call = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
        int status = 0;
        for (size_t i = 0; i < value_bytes && i < 3; i++)
            status = 10 * status + (value[i] - '0');
        if (call)
            call->status = status >= 0 && status < NO_STATUS ? status : NO_STATUS;
    }
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *data,
                   size_t size, void *user)
{
    (void)flags, (void)data, (void)user;
    struct call *call = nghttp2_session_get_stream_user_data(session, stream);
    if (call)
        call->answer_bytes += size;
    return 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    (void)session;
    struct connection *connection = user;
    state.mute = 0;
    if (frame->hd.type == NGHTTP2_GOAWAY)
        connection->draining = true;
    return 0;
}

static int on_close(nghttp2_session *session, int32_t stream, uint32_t code, void *user)
{
    (void)user;
    struct call *call = nghttp2_session_get_stream_user_data(session, stream);
    if (!call || !call->live)
        return 0;
    int status = code && call->status == NO_STATUS ? LOST : call->status;
    end_call(call, call->cancelled ? CANCELLED : status);
    return 0;
}

/* ---- connections */

static void open_connection(struct connection *connection)
{
    open_socket(&connection->socket);
    nghttp2_session_client_new(&connection->session, state.callbacks, connection);
    nghttp2_settings_entry window = {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 2 << 20};
    nghttp2_submit_settings(connection->session, NGHTTP2_FLAG_NONE, &window, 1);
    nghttp2_session_set_local_window_size(connection->session, NGHTTP2_FLAG_NONE, 0, 1 << 24);
    connection->draining = false;
    connection->out_from = connection->out_to = 0;
}

/* What was live on it is lost; what is to come goes over a new one. */
static void reopen(struct connection *connection)
{
    connection->draining = true; /* end_call leaves its calls to the loop below */
    for (long i = 0; i < asked.in_flight; i++)
        if (state.calls[i].connection == connection && state.calls[i].live)
            end_call(&state.calls[i], LOST);
    nghttp2_session_del(connection->session);
    close_socket(&connection->socket);
    state.reopened++;
    if (++state.mute == MUTE_MAX)
        fail("%s: connection closed, %d in a row without a word of HTTP/2", asked.address, MUTE_MAX);
    open_connection(connection);
    size_t kept = 0; /* none of its calls twice */
    for (size_t i = 0; i < state.idle_count; i++) {
        struct call *call = state.idle[(state.idle_from + i) % (size_t)asked.in_flight];
        if (call->connection != connection)
            state.idle[(state.idle_from + kept++) % (size_t)asked.in_flight] = call;
    }
    state.idle_count = kept;
    for (long i = 0; i < asked.in_flight; i++)
        if (state.calls[i].connection == connection)
            make_idle(&state.calls[i]);
}

static bool receive(struct connection *connection)
{
    static uint8_t in[SENT_AT_ONCE];
    ssize_t got;
    while ((got = read_some(&connection->socket, in, sizeof in)) > 0) {
        ssize_t taken = nghttp2_session_mem_recv(connection->session, in, (size_t)got);
        if (taken < 0)
            fail("%s broke HTTP/2: %s", asked.address, nghttp2_strerror((int)taken));
    }
    return got == 0;
}

static bool send_all(struct connection *connection)
{
    for (;;) {
        if (connection->out_from == connection->out_to) {
            const uint8_t *data;
            ssize_t size;
            connection->out_from = connection->out_to = 0;
            while (connection->out_to + FRAME_BYTES_MAX < SENT_AT_ONCE &&
                   (size = nghttp2_session_mem_send(connection->session, &data)) > 0) {
                memcpy(connection->out + connection->out_to, data, (size_t)size);
                connection->out_to += (size_t)size;
            }
            if (!connection->out_to)
                return true;
        }
        ssize_t put = write_some(&connection->socket, connection->out + connection->out_from,
                                 connection->out_to - connection->out_from);
        if (put <= 0)
            return put == 0;
        connection->out_from += (size_t)put;
    }
}

static bool wants_to_send(const struct connection *connection)
{
    return connection->out_from < connection->out_to || nghttp2_session_want_write(connection->session);
}

/* ---- the run */

static void take_processor_time(bool at_end)
{
    for (int i = 0; i < asked.process_count; i++) {
        struct process *process = &asked.processes[i];
        double at = clock_s(process->clock);
        *(at_end ? &process->ended_s : &process->began_s) = at;
    }
    double own = clock_s(CLOCK_PROCESS_CPUTIME_ID);
    state.own_cpu_s = at_end ? own - state.own_cpu_s : own;
}

/* Until a call is due or the measuring begins or ends, and no longer than a tenth of a second, or what
   cancelling asks for. */
static struct timespec patience(uint64_t now)
{
    uint64_t until = now + (asked.cancel_after_ms > 0 ? 200000u : 100000000u);
    uint64_t changes = state.measuring ? state.end_ns : state.start_ns;
    if (now < state.end_ns && changes < until)
        until = changes;
    if (asked.rate > 0 && state.idle_count && now < state.end_ns && state.next_due_ns < until)
        until = state.next_due_ns;
    return (struct timespec){.tv_nsec = until > now ? (long)(until - now) : 0};
}

static long live_calls(void)
{
    long live = 0;
    for (long i = 0; i < asked.connections; i++)
        live += state.connections[i].live;
    return live;
}

static void begin_measuring(uint64_t now)
{
    state.measuring = true;
    state.start_ns = state.last_success_ns = now;
    take_processor_time(false);
}

static void end_measuring(uint64_t now)
{
    if (now < state.end_ns)
        state.end_ns = now;
    take_processor_time(true);
    if (state.end_ns - state.last_success_ns > state.longest_gap_ns)
        state.longest_gap_ns = state.end_ns - state.last_success_ns;
}

static void run(void)
{
    struct pollfd *polled = calloc((size_t)asked.connections, sizeof *polled);
    bool ended = false;
    for (;;) {
        uint64_t now = now_ns();
        if (!state.measuring && now >= state.start_ns)
            begin_measuring(now);
        begin_calls();
        bool done = all_filled() && !live_calls();
        if (asked.fill && now - state.last_success_ns > FILL_SILENCE_S * 1000000000ull)
            fail("nothing was acknowledged for %d s", FILL_SILENCE_S);
        if (!ended && (told_to_end || done || now >= state.end_ns)) {
            if (!state.measuring)
                fail("told to end before anything was measured");
            ended = true;
            end_measuring(now);
        }
        if (ended && !live_calls())
            break;
        if (now >= state.end_ns + (uint64_t)STRAGGLERS_S * 1000000000u) {
            state.unanswered = (uint64_t)live_calls();
            break;
        }
        for (long i = 0; i < asked.connections; i++) {
            struct connection *connection = &state.connections[i];
            if (!send_all(connection))
                reopen(connection);
            polled[i].fd = connection->socket.fd;
            polled[i].events = POLLIN | (wants_to_send(connection) ? POLLOUT : 0);
        }
        if (asked.cancel_after_ms > 0)
            cancel_calls();
        struct timespec wait = patience(now_ns());
        ppoll(polled, (nfds_t)asked.connections, &wait, NULL);
        for (long i = 0; i < asked.connections; i++) {
            struct connection *connection = &state.connections[i];
            bool open = !(polled[i].revents & (POLLIN | POLLHUP | POLLERR)) || receive(connection);
            if (!open || (connection->draining && !connection->live))
                reopen(connection);
        }
    }
    free(polled);
}

/* ---- the result */

static void print_latencies(const char *name, const struct histogram *h, uint64_t calls, double seconds)
{
    printf("\"%s\": {\"calls\": %llu, \"calls_per_s\": %.1f, \"p50_ms\": %.3f, \"p99_ms\": %.3f, "
           "\"p999_ms\": %.3f, \"max_ms\": %.3f}, ",
           name, (unsigned long long)calls, (double)calls / seconds, percentile_ms(h, 0.5),
           percentile_ms(h, 0.99), percentile_ms(h, 0.999), (double)h->max_us / 1e3);
}

static void print_result(void)
{
    double seconds = (double)(state.end_ns - state.start_ns) * 1e-9;
    printf("{\"seconds\": %.3f, ", seconds);
    for (int i = 0; i < OPERATIONS; i++)
        if (state.latencies[i].total)
            print_latencies(OPERATION_NAMES[i], &state.latencies[i], state.finished[i], seconds);
    printf("\"errors\": {");
    const char *comma = "";
    for (int i = 0; i < STATUSES; i++)
        if (state.errors[i]) {
            printf("%s\"%s\": %llu", comma, STATUS_NAMES[i], (unsigned long long)state.errors[i]);
            comma = ", ";
        }
    printf("}, \"missing\": %llu, \"unanswered\": %llu, \"reopened\": %llu, \"longest_gap_ms\": %.3f, ",
           (unsigned long long)state.missing, (unsigned long long)state.unanswered,
           (unsigned long long)state.reopened, (double)state.longest_gap_ns * 1e-6);
    printf("\"generator_cpu_s\": %.6f, \"cpu_s\": {", state.own_cpu_s);
    comma = "";
    for (int i = 0; i < asked.process_count; i++) {
        const struct process *process = &asked.processes[i];
        if (process->began_s < 0 || process->ended_s < 0)
            continue; /* it has ended */
        printf("%s\"%s\": %.6f", comma, process->name, process->ended_s - process->began_s);
        comma = ", ";
    }
    printf("}}\n");
}

static void prepare(void)
{
    state.random = (uint64_t)asked.seed * 0x9e3779b97f4a7c15u;
    state.pool = malloc(POOL_BYTES);
    for (size_t i = 0; i < POOL_BYTES; i += 8) {
        uint64_t word = draw();
        memcpy(state.pool + i, &word, 8);
    }
    snprintf(state.run_id, sizeof state.run_id, "%llx-%x", (unsigned long long)time(NULL), getpid());
    nghttp2_session_callbacks_new(&state.callbacks);
    nghttp2_session_callbacks_set_on_header_callback(state.callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(state.callbacks, on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(state.callbacks, on_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(state.callbacks, on_close);
    if (asked.ca)
        prepare_tls();
    state.connections = calloc((size_t)asked.connections, sizeof *state.connections);
    state.calls = calloc((size_t)asked.in_flight, sizeof *state.calls);
    state.idle = calloc((size_t)asked.in_flight, sizeof *state.idle);
    state.redo = calloc((size_t)asked.in_flight, sizeof *state.redo);
    for (long i = 0; i < asked.connections; i++)
        open_connection(&state.connections[i]);
    for (long i = 0; i < asked.in_flight; i++) {
        state.calls[i].connection = &state.connections[i % asked.connections];
        state.calls[i].body = malloc((size_t)asked.value_bytes + 256);
        make_idle(&state.calls[i]);
    }
    state.next_due_ns = now_ns();
    state.start_ns = state.next_due_ns + (uint64_t)(asked.fill ? 0 : asked.warm_up * 1e9);
    state.end_ns = state.start_ns + (uint64_t)(asked.seconds * 1e9);
}

static void end_soon(int number)
{
    (void)number;
    told_to_end = 1;
}

int main(int count, char **arguments)
{
    signal(SIGPIPE, SIG_IGN);
    signal(SIGTERM, end_soon);
    read_arguments(count, arguments);
    prepare();
    run();
    if (asked.fill && state.latencies[PUT].total < (uint64_t)asked.keys)
        fail("%llu of %ld keys were acknowledged", (unsigned long long)state.latencies[PUT].total,
             asked.keys);
    print_result();
    return 0;
}
