#define _GNU_SOURCE
#include "settings.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct settings asked = {
    .connections = 1, .in_flight = 1, .keys = 10000, .span = 1, .value_bytes = 100, .seconds = 5,
    .seed = 1,
};

void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("generator: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    exit(1);
}

static long number(const char *name, const char *text, long max)
{
    char *end;
    long value = strtol(text, &end, 10);
    if (*end || value < 1 || value > max)
        fail("%s=%s: expected 1 to %ld", name, text, max);
    return value;
}

static double positive(const char *name, const char *text)
{
    char *end;
    double value = strtod(text, &end);
    if (*end || !(value >= 0) || value > 1e9)
        fail("%s=%s: expected a number from 0 on", name, text);
    return value;
}

static void add_process(const char *name, const char *text)
{
    if (asked.process_count == PROCESSES_MAX)
        fail("more than %d processes", PROCESSES_MAX);
    struct process *process = &asked.processes[asked.process_count++];
    process->name = name;
    pid_t pid = (pid_t)number(name, text, 1 << 30);
    if (clock_getcpuclockid(pid, &process->clock))
        fail("no process %d", (int)pid);
}

static void read_setting(char *argument)
{
    char *value = strchr(argument, '=');
    if (!value)
        fail("%s: expected NAME=VALUE", argument);
    *value++ = 0;
    const char *name = argument;
    if (!strcmp(name, "connections"))
        asked.connections = number(name, value, CONNECTIONS_MAX);
    else if (!strcmp(name, "in_flight"))
        asked.in_flight = number(name, value, IN_FLIGHT_MAX);
    else if (!strcmp(name, "keys"))
        asked.keys = number(name, value, 1L << 40);
    else if (!strcmp(name, "span"))
        asked.span = number(name, value, 1L << 40);
    else if (!strcmp(name, "value_bytes"))
        asked.value_bytes = number(name, value, VALUE_BYTES_MAX);
    else if (!strcmp(name, "seed"))
        asked.seed = number(name, value, 1L << 40);
    else if (!strcmp(name, "seconds"))
        asked.seconds = positive(name, value);
    else if (!strcmp(name, "warm_up"))
        asked.warm_up = positive(name, value);
    else if (!strcmp(name, "rate"))
        asked.rate = positive(name, value);
    else if (!strcmp(name, "cancel_after_ms"))
        asked.cancel_after_ms = positive(name, value);
    else if (!strcmp(name, "ca"))
        asked.ca = value;
    else if (!strcmp(name, "cert"))
        asked.cert = value;
    else if (!strcmp(name, "key"))
        asked.key = value;
    else if (!strncmp(name, "cpu.", 4))
        add_process(name + 4, value);
    else
        fail("unknown setting %s", name);
}

void read_arguments(int count, char **arguments)
{
    if (count < 4)
        fail("usage: generator ADDRESS kvd|etcd put|get|mixed|fill|keepalive|txn|range|count NAME=VALUE...");
    const char *operation = arguments[3];
    asked.address = arguments[1];
    asked.etcd = !strcmp(arguments[2], "etcd");
    asked.fill = !strcmp(operation, "fill");
    asked.keepalives = !strcmp(operation, "keepalive");
    asked.txns = !strcmp(operation, "txn");
    asked.ranges = !strcmp(operation, "range");
    asked.counts = !strcmp(operation, "count");
    asked.writes = strcmp(operation, "get") != 0;
    asked.reads = !strcmp(operation, "get") || !strcmp(operation, "mixed");
    if (!asked.etcd && strcmp(arguments[2], "kvd"))
        fail("%s: expected kvd or etcd", arguments[2]);
    if (!asked.fill && !asked.reads && !asked.keepalives && !asked.txns && !asked.ranges &&
        !asked.counts && strcmp(operation, "put"))
        fail("%s: expected put, get, mixed, fill, keepalive, txn, range or count", operation);
    const char *colon = strrchr(asked.address, ':');
    struct in_addr ignored;
    if (!colon || (size_t)(colon - asked.address) >= sizeof asked.host)
        fail("%s: expected IPV4:PORT", asked.address);
    memcpy(asked.host, asked.address, (size_t)(colon - asked.address));
    asked.port = (int)number("port", colon + 1, 65535);
    if (inet_pton(AF_INET, asked.host, &ignored) != 1)
        fail("%s: expected IPV4:PORT", asked.address);
    for (int i = 4; i < count; i++)
        read_setting(arguments[i]);
    if (asked.span > asked.keys)
        fail("span=%ld: there are %ld keys", asked.span, asked.keys);
    if (asked.connections > asked.in_flight)
        asked.connections = asked.in_flight;
}
