"""The bytes of commands, read in place and written: kvstore.state.commands has the layout, the plain
form and the words for what is wrong.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from kvstore._engine.primitives.native cimport Slice


cdef enum:
    ENTRY_VERSION = 2
    OPERATIONS_VERSION = 3      # of an entry of the model's operations (kvstore.state.mvcc)
    GUARDED_VERSION = 4         # of an entry that was let in as of a revision of the users
    ENTRY_HEAD_BYTES = 13
    ENTRY_HEAD_BYTES_MAX = 21   # with that revision
    COMMAND_BYTES = 32          # before what its form adds, key and value
    FORM_BYTES_MAX = 16
    COMMAND_PUT = 1
    COMMAND_DELETE = 2
    COMMAND_OPEN = 3
    FORM_PLAIN = 0
    FORM_SENT_BEFORE = 1
    FORM_SESSION = 2
    COMMAND_KEY_BYTES_MAX = 1024
    COMMAND_VALUE_BYTES_MAX = 1048576
    SEQUENCES_OF_WINDOW = 256
    REQUEST_BYTES = 16


cdef struct Command:
    # One command of an entry; its bytes are borrowed from there.
    uint8_t kind
    uint8_t form
    const uint8_t* request      # REQUEST_BYTES
    uint64_t fingerprint
    Slice key
    Slice value
    uint64_t sequence           # 0: not a session's
    uint64_t floor
    uint64_t since              # of FORM_SENT_BEFORE


cdef extern from "kvstore/_state/blake2b.h" namespace "kvstore_blake2b" nogil:
    ctypedef struct Blake2b "kvstore_blake2b::State":
        pass
    void blake2b_begin "kvstore_blake2b::begin"(Blake2b* state, size_t digest_bytes) noexcept
    void blake2b_update "kvstore_blake2b::update"(
        Blake2b* state, const uint8_t* data, size_t size
    ) noexcept
    void blake2b_end "kvstore_blake2b::end"(Blake2b* state, uint8_t* digest) noexcept


# The time of an entry, its number of commands, and as of which revision of the users they were let
# in, 0 if nobody asked; the byte after its head, NULL if that is broken.
cdef const uint8_t* read_entry_head(
    const uint8_t* data, size_t size, uint64_t* time_ms, uint32_t* count, uint64_t* guard
) noexcept nogil
# The byte after the command at `at`, NULL unless a whole one within all limits is there.
cdef const uint8_t* read_command(
    const uint8_t* at, const uint8_t* end, Command* command
) noexcept nogil
# Writes the head of an entry, up to ENTRY_HEAD_BYTES_MAX bytes; the byte after it.
cdef uint8_t* write_entry_head(
    uint8_t* at, uint64_t time_ms, uint32_t count, uint64_t guard
) noexcept nogil
# Writes a command, up to COMMAND_BYTES + FORM_BYTES_MAX + key + value bytes; the byte after it.
cdef uint8_t* write_command(uint8_t* at, const Command* command) noexcept nogil
# What stands for a request id; REQUEST_BYTES are written.
cdef void digest_request(Slice request_id, uint8_t* digest) noexcept nogil
# What a put or delete is.
cdef uint64_t fingerprint_of(int kind, Slice key, Slice value) noexcept nogil
# The same with its lowest bit free for a result; never 0.
cdef uint64_t word_of_fingerprint(uint64_t fingerprint) noexcept nogil
