"""HTTP/2's rules for the fields of a request (RFC 9113, 8.2 and 8.3), which nghttp2 leaves to us.

It would refuse an `:authority` that is none, and clientv3 until etcd 3.4.27 sends whole URLs in it
(`http://127.0.0.1:2379`): gRPC's own servers take those. What an authority says is of no use here.
"""

cdef enum Pseudo:
    PSEUDO_METHOD = 1
    PSEUDO_SCHEME = 2
    PSEUDO_PATH = 4
    PSEUDO_AUTHORITY = 8
    PSEUDO_NEEDED = 7


cdef inline bint is_name(const uint8_t* name, size_t size, const char* wanted,
                         size_t wanted_size) noexcept nogil:
    return size == wanted_size and memcmp(name, wanted, size) == 0


cdef bint is_taken(HeaderBlock* block, const uint8_t* name, size_t name_size,
                   const uint8_t* value, size_t value_size) noexcept:
    """Whether a field counts; a `block` that breaks a rule is broken from then on."""
    if name_size == 0:
        block.is_broken = True
        return False
    if name[0] == c":":
        block.is_broken |= not is_lawful_pseudo(block, name, name_size, value, value_size)
        return not block.is_broken
    block.is_regular = True
    if not nghttp2_check_header_name(name, name_size):
        block.is_broken |= has_capital(name, name_size)
        return False
    if is_of_connections(name, name_size) or (
            is_name(name, name_size, "te", 2) and not is_name(value, value_size, "trailers", 8)):
        block.is_broken = True
        return False
    return nghttp2_check_header_value(value, value_size) != 0


cdef bint is_lawful_pseudo(HeaderBlock* block, const uint8_t* name, size_t name_size,
                           const uint8_t* value, size_t value_size) noexcept:
    """One of a request's, for the first time, before all others, with a value that is one."""
    cdef int which
    if is_name(name, name_size, ":method", 7):
        which = PSEUDO_METHOD
    elif is_name(name, name_size, ":scheme", 7):
        which = PSEUDO_SCHEME
    elif is_name(name, name_size, ":path", 5):
        which = PSEUDO_PATH
    elif is_name(name, name_size, ":authority", 10):
        which = PSEUDO_AUTHORITY
    else:
        return False
    if block.is_regular or block.pseudo & which:
        return False
    block.pseudo |= which
    return ((value_size > 0 or which == PSEUDO_AUTHORITY)
            and nghttp2_check_header_value(value, value_size) != 0)


cdef bint has_capital(const uint8_t* name, size_t size) noexcept:
    cdef size_t i
    for i in range(size):
        if c"A" <= name[i] <= c"Z":
            return True
    return False


cdef bint is_of_connections(const uint8_t* name, size_t size) noexcept:
    """A field of HTTP/1 that says something of the connection."""
    return (is_name(name, size, "connection", 10)
            or is_name(name, size, "keep-alive", 10)
            or is_name(name, size, "proxy-connection", 16)
            or is_name(name, size, "transfer-encoding", 17)
            or is_name(name, size, "upgrade", 7))
