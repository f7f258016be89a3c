"""Metadata: pairs of Python's to and from header fields, with gRPC's rules for both.

Encoded pairs are a list of bytes, name, value, name, value, ..., so that the header fields that
point into them live as long as the list.
"""

from libc.stdint cimport int64_t, uint8_t

# What percent-encoded details may have, and more is cut off.
cdef enum:
    DETAILS_BYTES_MAX = 4096
    # Header fields that one block of ours may have beside the fixed ones.
    PAIRS_MAX = 128

# Raises ValueError for what may not travel; `bytes_max` as peers count them.
cdef list encoded_pairs(object pairs, int64_t bytes_max)
cdef bytes encoded_details(str details)
cdef str decoded_details(const uint8_t* value, size_t size)
# None: not base64.
cdef bytes decoded_base64(const uint8_t* value, size_t size)
# -1: malformed. inf for what is beyond any patience.
cdef double decoded_timeout(const uint8_t* value, size_t size) noexcept nogil
# At most 9 bytes, to `text`; how many.
cdef size_t encoded_timeout(double timeout_s, uint8_t* text) noexcept nogil
# Appends one pair, or several for a binary value with commas. False: not base64.
cdef bint append_pair(list pairs, const uint8_t* name, size_t name_size,
                      const uint8_t* value, size_t value_size) except -1
