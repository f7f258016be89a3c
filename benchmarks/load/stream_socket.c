#define _GNU_SOURCE
#include "stream_socket.h"
#include "settings.h"
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <string.h>
#include <unistd.h>

static SSL_CTX *context;

static void must(bool holds, const char *what)
{
    if (!holds)
        fail("%s: %s", what, ERR_reason_error_string(ERR_get_error()));
}

void prepare_tls(void)
{
    context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    must(SSL_CTX_load_verify_locations(context, asked.ca, NULL), asked.ca);
    if (asked.cert)
        must(SSL_CTX_use_certificate_chain_file(context, asked.cert) == 1, asked.cert);
    if (asked.key)
        must(SSL_CTX_use_PrivateKey_file(context, asked.key, SSL_FILETYPE_PEM) == 1, asked.key);
    SSL_CTX_set_alpn_protos(context, (const unsigned char *)"\2h2", 3);
}

void open_socket(struct stream_socket *stream)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)asked.port)};
    inet_pton(AF_INET, asked.host, &to.sin_addr);
    stream->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (stream->fd < 0 || connect(stream->fd, (struct sockaddr *)&to, sizeof to))
        fail("%s: %s", asked.address, strerror(errno));
    int one = 1;
    setsockopt(stream->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (context) {
        stream->tls = SSL_new(context);
        X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(stream->tls), asked.host);
        SSL_set_fd(stream->tls, stream->fd);
        must(SSL_connect(stream->tls) == 1, asked.address);
    }
    fcntl(stream->fd, F_SETFL, O_NONBLOCK);
}

void close_socket(struct stream_socket *stream)
{
    SSL_free(stream->tls);
    close(stream->fd);
    stream->tls = NULL;
    stream->fd = -1;
}

static ssize_t of_tls(SSL *tls, int result)
{
    if (result > 0)
        return result;
    int why = SSL_get_error(tls, result);
    ERR_clear_error();
    return why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? 0 : -1;
}

static bool not_now(void)
{
    return errno == EAGAIN || errno == EINTR;
}

ssize_t read_some(struct stream_socket *stream, uint8_t *to, size_t size)
{
    if (stream->tls)
        return of_tls(stream->tls, SSL_read(stream->tls, to, (int)size));
    ssize_t got = read(stream->fd, to, size);
    if (got > 0)
        return got;
    return got < 0 && not_now() ? 0 : -1;
}

ssize_t write_some(struct stream_socket *stream, const uint8_t *from, size_t size)
{
    if (stream->tls)
        return of_tls(stream->tls, SSL_write(stream->tls, from, (int)size));
    ssize_t put = write(stream->fd, from, size);
    if (put >= 0)
        return put;
    return not_now() ? 0 : -1;
}
