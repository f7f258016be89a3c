"""Metadata, grpc-message and grpc-timeout, after gRPC's PROTOCOL-HTTP2.md."""

import re
from binascii import b2a_base64

from libc.string cimport memchr, memcmp

from cpython.bytes cimport (
    PyBytes_AS_STRING,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
    _PyBytes_Resize,
)
from cpython.unicode cimport PyUnicode_DecodeLatin1

cdef object NAME = re.compile(r"[0-9a-z_.-]+", re.ASCII)
cdef object TARGET = re.compile(r"[\x21-\x7e]+", re.ASCII)     # a path, an authority
cdef object VALUE = re.compile(r"[\x20-\x7e]*", re.ASCII)
# What the wire itself says under these names; a caller's would contradict it.
cdef frozenset RESERVED = frozenset((
    "connection", "content-type", "grpc-accept-encoding", "grpc-encoding", "grpc-message",
    "grpc-status", "grpc-timeout", "host", "keep-alive", "proxy-connection", "te",
    "transfer-encoding", "upgrade", "user-agent",
))
cdef enum:
    PAIR_OVERHEAD = 32      # HTTP/2's own count of what a field costs

cdef uint8_t[256] base64_digits
cdef const char* HEX = "0123456789ABCDEF"


cdef void fill_base64_digits() noexcept:
    cdef uint32_t i
    cdef bytes digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    for i in range(256):
        base64_digits[i] = 0xff
    for i in range(64):
        base64_digits[<uint8_t> PyBytes_AS_STRING(digits)[i]] = <uint8_t> i

fill_base64_digits()


cdef list encoded_pairs(object pairs, int64_t bytes_max):
    cdef list encoded = []
    cdef int64_t size = 0
    for name, value in pairs:
        if not isinstance(name, str) or NAME.fullmatch(name) is None or name in RESERVED:
            raise ValueError(f"metadata can't have the name {name!r}")
        if name.endswith("-bin"):
            if not isinstance(value, bytes):
                raise ValueError(f"metadata {name} needs bytes")
            data = b2a_base64(value, newline=False).rstrip(b"=")
        else:
            if isinstance(value, bytes):
                value = value.decode("latin-1")
            if VALUE.fullmatch(value) is None:
                raise ValueError(f"metadata {name} is not printable ASCII")
            data = value.strip(" ").encode()
        encoded.append(name.encode())
        encoded.append(data)
        size += len(name) + len(data) + PAIR_OVERHEAD
        if size > bytes_max or len(encoded) > 2 * PAIRS_MAX:
            raise ValueError(f"more than {bytes_max} bytes or {PAIRS_MAX} pairs of metadata")
    return encoded


cdef bytes encoded_details(str details):
    """Printable ASCII but for '%' as it is, other bytes of UTF-8 as %XX; so are spaces at either
    end, which HTTP would take away."""
    cdef bytes raw = details[:DETAILS_BYTES_MAX].encode("utf-8", "replace")
    cdef const uint8_t* at = <const uint8_t*> PyBytes_AS_STRING(raw)
    cdef size_t size = PyBytes_GET_SIZE(raw)
    cdef uint8_t[DETAILS_BYTES_MAX] text
    cdef size_t length = 0
    cdef size_t start
    cdef size_t i = 0
    cdef size_t more
    while i < size:
        start = length
        # A character's bytes stay together, so that cutting leaves UTF-8.
        more = 1 if at[i] < 0xc0 else 2 if at[i] < 0xe0 else 3 if at[i] < 0xf0 else 4
        while more and i < size:
            if length + 3 > DETAILS_BYTES_MAX:
                return PyBytes_FromStringAndSize(<char*> text, start).rstrip(b" ")
            if (0x20 < at[i] <= 0x7e and at[i] != c"%") or (at[i] == 0x20 and 0 < i < size - 1):
                text[length] = at[i]
                length += 1
            else:
                text[length] = c"%"
                text[length + 1] = HEX[at[i] >> 4]
                text[length + 2] = HEX[at[i] & 15]
                length += 3
            i += 1
            more -= 1
    return PyBytes_FromStringAndSize(<char*> text, length)


cdef inline int hex_digit(uint8_t character) noexcept nogil:
    if c"0" <= character <= c"9":
        return character - c"0"
    character |= 0x20
    return character - c"a" + 10 if c"a" <= character <= c"f" else -1


cdef str decoded_details(const uint8_t* value, size_t size):
    """Whatever isn't a %XX stays as it is, as gRPC wants."""
    cdef bytes raw = PyBytes_FromStringAndSize(NULL, size)
    cdef uint8_t* text = <uint8_t*> PyBytes_AS_STRING(raw)
    cdef size_t length = 0
    cdef size_t i = 0
    while i < size:
        if (value[i] == c"%" and size - i > 2 and hex_digit(value[i + 1]) >= 0
                and hex_digit(value[i + 2]) >= 0):
            text[length] = <uint8_t> (hex_digit(value[i + 1]) << 4 | hex_digit(value[i + 2]))
            i += 3
        else:
            text[length] = value[i]
            i += 1
        length += 1
    return raw[:length].decode("utf-8", "replace")


def percent_encoded(str text not None):
    return encoded_details(text)


def percent_decoded(bytes data not None):
    return decoded_details(<const uint8_t*> PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))


cdef bytes decoded_base64(const uint8_t* value, size_t size):
    cdef bytes raw
    cdef uint8_t* data
    cdef uint32_t bits = 0
    cdef uint32_t have = 0
    cdef uint8_t digit
    cdef size_t i
    cdef size_t padding = 0
    while size > 0 and padding < 2 and value[size - 1] == c"=":
        size -= 1
        padding += 1
    if size % 4 == 1 or (padding and (size + padding) % 4):
        return None
    raw = PyBytes_FromStringAndSize(NULL, size * 3 // 4)
    data = <uint8_t*> PyBytes_AS_STRING(raw)
    for i in range(size):
        digit = base64_digits[value[i]]
        if digit == 0xff:
            return None
        bits = bits << 6 | digit
        have += 6
        if have >= 8:
            have -= 8
            data[0] = <uint8_t> (bits >> have)
            data += 1
    return raw


cdef double decoded_timeout(const uint8_t* value, size_t size) noexcept nogil:
    cdef double amount = 0
    cdef size_t i
    if not 2 <= size <= 9:
        return -1
    for i in range(size - 1):
        if not c"0" <= value[i] <= c"9":
            return -1
        amount = amount * 10 + (value[i] - c"0")
    if value[size - 1] == c"H":
        return amount * 3600
    if value[size - 1] == c"M":
        return amount * 60
    if value[size - 1] == c"S":
        return amount
    if value[size - 1] == c"m":
        return amount / 1e3
    if value[size - 1] == c"u":
        return amount / 1e6
    if value[size - 1] == c"n":
        return amount / 1e9
    return -1


cdef size_t encoded_timeout(double timeout_s, uint8_t* text) noexcept nogil:
    """In the finest unit that eight digits hold, rounded up."""
    cdef const char* units = "numSH"
    cdef double[5] seconds
    cdef double amount = 0
    cdef uint64_t left
    cdef size_t i
    cdef size_t digits = 0
    cdef uint8_t[9] reversed_digits
    seconds[0] = 1e-9
    seconds[1] = 1e-6
    seconds[2] = 1e-3
    seconds[3] = 1
    seconds[4] = 3600
    for i in range(5):
        amount = timeout_s / seconds[i]
        if amount <= 99999998:
            break
    left = 0 if not amount > 0 else 99999999 if amount > 99999998 else <uint64_t> amount
    if left < amount and left < 99999999:
        left += 1
    while True:
        reversed_digits[digits] = <uint8_t> (c"0" + left % 10)
        digits += 1
        left //= 10
        if left == 0:
            break
    text[digits] = units[i]
    for i in range(digits):
        text[i] = reversed_digits[digits - 1 - i]
    return digits + 1


cdef bint append_pair(list pairs, const uint8_t* name, size_t name_size,
                      const uint8_t* value, size_t value_size) except -1:
    cdef str key = PyUnicode_DecodeLatin1(<const char*> name, name_size, NULL)
    cdef const uint8_t* comma
    cdef size_t size
    cdef bytes data
    if name_size < 4 or memcmp(name + name_size - 4, <const char*> "-bin", 4) != 0:
        pairs.append((key, PyUnicode_DecodeLatin1(<const char*> value, value_size, NULL)))
        return True
    while True:
        comma = <const uint8_t*> memchr(value, c",", value_size)
        size = value_size if comma == NULL else comma - value
        data = decoded_base64(value, size)
        if data is None:
            return False
        pairs.append((key, data))
        if comma == NULL:
            return True
        value = comma + 1
        value_size -= size + 1
