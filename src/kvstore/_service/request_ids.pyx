"""``kvs1/<session>/<sequence>/<floor>``, to the letter, or any other id."""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcmp

from kvstore._engine.primitives.native cimport Slice

cdef enum:
    ID_PREFIX_BYTES = 5
    NUMBER_DIGITS_MAX = 19      # so that it fits 64 bits


cdef int hex_digit(uint8_t letter) noexcept nogil:
    if 48 <= letter <= 57:
        return letter - 48
    if 97 <= letter <= 102:
        return letter - 87
    return -1


cdef const uint8_t* read_number(const uint8_t* at, const uint8_t* end, uint64_t* number) noexcept nogil:
    """The byte after a number without leading zeros, NULL if there is none."""
    cdef const uint8_t* begin = at
    number[0] = 0
    while at < end and 48 <= at[0] <= 57:
        if at - begin == NUMBER_DIGITS_MAX or at[0] == 48 and at == begin:
            return NULL
        number[0] = number[0] * 10 + at[0] - 48
        at += 1
    return at if at > begin else NULL


cdef bint read_session_id(
    Slice request_id, uint8_t* name, uint64_t* sequence, uint64_t* floor
) noexcept nogil:
    cdef const uint8_t* at = request_id.data
    cdef const uint8_t* end = at + request_id.size
    cdef int i, high, low
    if request_id.size < ID_PREFIX_BYTES + 2 * SESSION_NAME_BYTES + 4 or (
        memcmp(at, b"kvs1/", ID_PREFIX_BYTES) != 0
    ):
        return False
    at += ID_PREFIX_BYTES
    for i in range(SESSION_NAME_BYTES):
        high = hex_digit(at[0])
        low = hex_digit(at[1])
        if high < 0 or low < 0:
            return False
        name[i] = <uint8_t> (high << 4 | low)
        at += 2
    if at[0] != 47:
        return False
    at = read_number(at + 1, end, sequence)
    if at == NULL or at == end or at[0] != 47:
        return False
    return read_number(at + 1, end, floor) == end
