/* A socket to the server, plain or with TLS: connected at once, and from then on it never waits. */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct ssl_st;

struct stream_socket {
    int fd;
    struct ssl_st *tls; /* NULL: plain */
};

/* Read the certificates that were asked for. Once, before the first socket. */
void prepare_tls(void);

/* To asked.address; ends the program where it can't. */
void open_socket(struct stream_socket *socket);
void close_socket(struct stream_socket *socket);

/* Bytes read or written; 0: not now; -1: the connection has ended. */
ssize_t read_some(struct stream_socket *socket, uint8_t *to, size_t size);
ssize_t write_some(struct stream_socket *socket, const uint8_t *from, size_t size);
