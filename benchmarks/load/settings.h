/* What the command line asks for. */
#pragma once
#include <arpa/inet.h>
#include <stdbool.h>
#include <time.h>

enum {
    CONNECTIONS_MAX = 1024,
    IN_FLIGHT_MAX = 65536,
    VALUE_BYTES_MAX = 1 << 20,
    PROCESSES_MAX = 32,
};

struct process {
    const char *name;
    clockid_t clock; /* of the processor time that it has used */
    double began_s, ended_s;
};

struct settings {
    char host[INET_ADDRSTRLEN];
    int port;
    const char *address, *ca, *cert, *key; /* ca: the calls go over TLS */
    bool etcd, fill, writes, reads, keepalives, txns, ranges, counts;
    long connections, in_flight, keys, value_bytes, seed;
    long span; /* keys of a range */
    double seconds, warm_up, rate; /* rate: calls a second; 0: closed loop */
    double cancel_after_ms;        /* whoever isn't answered by then is cancelled; 0: never */
    struct process processes[PROCESSES_MAX];
    int process_count;
};

extern struct settings asked;

void read_arguments(int count, char **arguments);

/* One line on standard error, and exit status 1. */
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
