"""Block search, check and cursor: see block.pxd for the face, block_build.pyx for the layout."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from kvstore._engine.primitives.native cimport (
    INVALID_RECORD,
    KIND_MAX,
    Slice,
    Status,
    TRAILER_BYTES,
    common_prefix,
    get_fixed32,
    get_varint32,
    head_at,
    heads_lower,
    internal_trailer,
    key_head,
    kv_free,
    kv_realloc,
    prefetch,
    slice_compare,
    slice_of,
    status_no_memory,
    status_set,
    trailer_kind,
)


cdef enum:
    HEADER_BYTES = 16
    RESTART_BYTES = 16
    VALUE_LINES = 8             # cache lines of values that a seek prefetches
    COPY_BYTES = 16             # keys are copied in one such step where there is room


cdef int block_view(Block* block, const uint8_t* data, size_t size) noexcept nogil:
    cdef uint32_t[4] header
    if size < HEADER_BYTES:
        return -1
    memcpy(header, data, HEADER_BYTES)
    cdef uint64_t fixed = HEADER_BYTES + <uint64_t> header[1] * RESTART_BYTES
    if header[0] == 0 or header[1] == 0 or header[1] > header[0] or fixed + header[3] > size:
        return -1
    block.entries = header[0]
    block.restarts = header[1]
    block.prefix = header[2]
    block.key_bytes = header[3]
    block.heads = data + HEADER_BYTES
    block.key_at = block.heads + <size_t> header[1] * 8
    block.value_at = block.heads + <size_t> header[1] * 12
    block.keys = data + fixed
    block.values = block.keys + header[3]
    block.value_bytes = size - fixed - header[3]
    return 0


cdef inline uint32_t restart_at(const uint8_t* offsets, uint32_t restart) noexcept nogil:
    return get_fixed32(offsets + 4 * <size_t> restart)


# --- entries --------------------------------------------------------------------------------

cdef inline int decode_entry(
    Block* block, uint32_t key_at, uint32_t value_at, BlockEntry* entry
) noexcept nogil:
    cdef uint32_t value_size
    if key_at >= block.key_bytes or value_at > block.value_bytes:
        return -1
    cdef const uint8_t* at = block.keys + key_at
    cdef const uint8_t* end = block.keys + block.key_bytes
    if end - at >= 3 and (at[0] | at[1] | at[2]) < 0x80:
        entry.shared = at[0]
        entry.unshared = at[1]
        value_size = at[2]
        at += 3
    else:
        at = get_varint32(at, end, &entry.shared)
        if at == NULL:
            return -1
        at = get_varint32(at, end, &entry.unshared)
        if at == NULL:
            return -1
        at = get_varint32(at, end, &value_size)
        if at == NULL:
            return -1
    if <uint64_t> (end - at) < <uint64_t> entry.unshared + TRAILER_BYTES:
        return -1
    if value_size > block.value_bytes - value_at:
        return -1
    entry.suffix = at
    memcpy(&entry.trailer, at + entry.unshared, TRAILER_BYTES)
    entry.value = slice_of(block.values + value_at, value_size)
    entry.next_key_at = <uint32_t> (at - block.keys) + entry.unshared + TRAILER_BYTES
    entry.next_value_at = value_at + value_size
    return 0


cdef int block_entry(Block* block, uint32_t key_at, uint32_t value_at, BlockEntry* entry) noexcept nogil:
    return decode_entry(block, key_at, value_at, entry)


cdef inline int restart_entry(Block* block, uint32_t restart, BlockEntry* entry) noexcept nogil:
    if decode_entry(
        block, restart_at(block.key_at, restart), restart_at(block.value_at, restart), entry
    ) < 0:
        return -1
    return 0 if entry.shared == 0 else -1


cdef inline int order_of(Slice user_key, uint64_t trailer, Slice other, uint64_t other_trailer) noexcept nogil:
    cdef int order = slice_compare(user_key, other)
    if order:
        return order
    return -1 if trailer > other_trailer else (1 if trailer < other_trailer else 0)


# --- search ---------------------------------------------------------------------------------

cdef int64_t block_restart_lower(Block* block, Slice user_key, uint64_t trailer) noexcept nogil:
    cdef BlockEntry entry
    cdef int order
    cdef size_t shorter
    if block.prefix:
        if restart_entry(block, 0, &entry) < 0 or entry.unshared < block.prefix:
            return -1
        shorter = user_key.size if user_key.size < block.prefix else block.prefix
        order = memcmp(user_key.data, entry.suffix, shorter) if shorter else 0
        if order < 0 or (order == 0 and user_key.size < block.prefix):
            return 0
        if order > 0:
            return block.restarts
    cdef uint64_t head = key_head(user_key.data, user_key.size, block.prefix)
    cdef int low = heads_lower(block.heads, <int> block.restarts, head)
    if low == <int> block.restarts or head_at(block.heads, low) != head:
        return low
    # Keys that differ past their heads, or versions of one key: compare in full.
    cdef int high = low + 1
    if high < <int> block.restarts and head_at(block.heads, high) == head:
        high = <int> block.restarts
        if head != <uint64_t> -1:
            high = heads_lower(block.heads, high, head + 1)
    cdef int middle
    while low < high:
        middle = (low + high) >> 1
        if restart_entry(block, <uint32_t> middle, &entry) < 0:
            return -1
        if order_of(
            slice_of(entry.suffix, entry.unshared), entry.trailer, user_key, trailer
        ) < 0:
            low = middle + 1
        else:
            high = middle
    return low


cdef int group_lower(
    Block* block, uint32_t restart, Slice user_key, uint64_t trailer, BlockEntry* entry, bint* same
) noexcept nogil:
    """The first entry >= the target in a group that starts below it: 1 here, 0 not here, -1.

    `matched` is how much of the target the entry before has, which orders the next entry by its
    `shared` alone unless the two are equal. Where it is here, `same` tells whether its user key is
    the target's.
    """
    cdef uint32_t end = block.key_bytes
    if restart + 1 < block.restarts:
        end = restart_at(block.key_at, restart + 1)
    if restart_entry(block, restart, entry) < 0:
        return -1
    cdef size_t matched = common_prefix(entry.suffix, entry.unshared, user_key.data, user_key.size)
    cdef size_t more
    while entry.next_key_at < end:
        if decode_entry(block, entry.next_key_at, entry.next_value_at, entry) < 0:
            return -1
        if entry.shared > matched:
            continue                # like the entry before, which is below the target
        if entry.shared < matched:
            same[0] = False
            return 1
        more = common_prefix(
            entry.suffix, entry.unshared, user_key.data + matched, user_key.size - matched
        )
        matched += more
        if more < entry.unshared:
            if matched == user_key.size or entry.suffix[more] > user_key.data[matched]:
                same[0] = False
                return 1
        elif matched == user_key.size and entry.trailer <= trailer:
            same[0] = True
            return 1
    return 0


cdef int block_get(Block* block, Slice user_key, uint64_t trailer, BlockEntry* entry) noexcept nogil:
    cdef int64_t restart = block_restart_lower(block, user_key, trailer)
    cdef bint same = False
    cdef int found
    if restart < 0:
        return -1
    if restart > 0:
        found = group_lower(block, <uint32_t> restart - 1, user_key, trailer, entry, &same)
        if found:
            return -1 if found < 0 else same
    if restart == block.restarts:
        return 0
    if restart_entry(block, <uint32_t> restart, entry) < 0:
        return -1
    return slice_compare(slice_of(entry.suffix, entry.unshared), user_key) == 0


# --- cursor ---------------------------------------------------------------------------------

cdef void block_cursor_init(BlockCursor* cursor) noexcept nogil:
    cursor.valid = False
    cursor.damaged = False
    cursor.starved = False
    cursor.grouped = False
    cursor.key_data = NULL
    cursor.key_capacity = 0
    cursor.group = NULL
    cursor.group_capacity = 0
    cursor.group_keys = NULL
    cursor.group_keys_capacity = 0


cdef void block_cursor_free(BlockCursor* cursor) noexcept nogil:
    kv_free(cursor.key_data)
    kv_free(cursor.group)
    kv_free(cursor.group_keys)
    block_cursor_init(cursor)


cdef void block_cursor_reset(BlockCursor* cursor, Block* block) noexcept nogil:
    cursor.block = block[0]
    cursor.valid = False
    cursor.damaged = False
    cursor.starved = False
    cursor.grouped = False


cdef inline void stop_damaged(BlockCursor* cursor) noexcept nogil:
    cursor.valid = False
    cursor.damaged = True


cdef inline void stop_starved(BlockCursor* cursor) noexcept nogil:
    cursor.starved = True
    stop_damaged(cursor)


cdef int block_cursor_failure(
    BlockCursor* cursor, const char* what, int64_t offset, Status* status
) noexcept nogil:
    if cursor.starved:
        return status_no_memory(status, b"memory for a key")
    return status_set(status, INVALID_RECORD, what, offset)


cdef int grow(uint8_t** data, size_t* capacity, size_t needed) noexcept nogil:
    cdef size_t size = capacity[0] * 2
    if size < needed:
        size = needed
    if size < 256:
        size = 256
    cdef uint8_t* grown = <uint8_t*> kv_realloc(data[0], size)
    if grown == NULL:
        return -1
    data[0] = grown
    capacity[0] = size
    return 0


cdef inline void copy_suffix(Block* block, uint8_t* into, BlockEntry* entry) noexcept nogil:
    """The suffix with its trailer; `into` has COPY_BYTES of room to spare."""
    cdef size_t size = entry.unshared + TRAILER_BYTES
    if size <= COPY_BYTES and block.values + block.value_bytes - entry.suffix >= COPY_BYTES:
        memcpy(into, entry.suffix, COPY_BYTES)
    else:
        memcpy(into, entry.suffix, size)


cdef inline void stand_on(BlockCursor* cursor, BlockEntry* decoded) noexcept nogil:
    """Build the key of an entry over the one before it, which `shared` is known to fit."""
    cdef BlockEntry entry = decoded[0]
    cdef size_t size = <size_t> entry.shared + entry.unshared + TRAILER_BYTES
    if size + COPY_BYTES > cursor.key_capacity:
        if grow(&cursor.key_data, &cursor.key_capacity, size + COPY_BYTES) < 0:
            stop_starved(cursor)
            return
    copy_suffix(&cursor.block, cursor.key_data + entry.shared, &entry)
    cursor.key = slice_of(cursor.key_data, size)
    cursor.value = entry.value
    cursor.next_key_at = entry.next_key_at
    cursor.next_value_at = entry.next_value_at
    cursor.valid = True


cdef inline void step(BlockCursor* cursor, size_t user_key_size) noexcept nogil:
    """Stand on the entry at next_key_at; `user_key_size` is that of the key in the buffer."""
    cdef BlockEntry entry
    if decode_entry(&cursor.block, cursor.next_key_at, cursor.next_value_at, &entry) < 0:
        stop_damaged(cursor)
        return
    if entry.shared > user_key_size:
        stop_damaged(cursor)
        return
    stand_on(cursor, &entry)


cdef inline bint step_short(BlockCursor* cursor) noexcept nogil:
    """step() onto an entry as most are: sizes of a byte each, and a suffix that one copy takes.

    False: it isn't such a one, or leads out of the block, and nothing was done.
    """
    cdef Block* block = &cursor.block
    cdef const uint8_t* at = block.keys + cursor.next_key_at
    cdef const uint8_t* end = block.keys + block.key_bytes
    cdef size_t shared, size, value_size
    if end - at < 3 or (at[0] | at[1] | at[2]) >= 0x80:
        return False
    shared = at[0]
    size = at[1] + <size_t> TRAILER_BYTES
    value_size = at[2]
    at += 3
    if (
        size > COPY_BYTES
        or <size_t> (end - at) < size
        or block.values + block.value_bytes - at < COPY_BYTES
        or shared + TRAILER_BYTES > cursor.key.size
        or shared + COPY_BYTES > cursor.key_capacity
        or value_size > block.value_bytes - cursor.next_value_at
    ):
        return False
    memcpy(cursor.key_data + shared, at, COPY_BYTES)
    cursor.key.size = shared + size
    cursor.value = slice_of(block.values + cursor.next_value_at, value_size)
    cursor.next_key_at += <uint32_t> (3 + size)
    cursor.next_value_at += <uint32_t> value_size
    return True


cdef void start_group(BlockCursor* cursor, uint32_t restart) noexcept nogil:
    """Stand on the entry of a restart point."""
    cursor.grouped = False
    cursor.restart = restart
    cursor.place = 0
    cursor.next_key_at = restart_at(cursor.block.key_at, restart)
    cursor.next_value_at = restart_at(cursor.block.value_at, restart)
    step(cursor, 0)


cdef inline void show_grouped(BlockCursor* cursor, uint32_t place) noexcept nogil:
    cursor.place = place
    cursor.key = slice_of(
        cursor.group_keys + cursor.group[place].key_at, cursor.group[place].key_size
    )
    cursor.value = cursor.group[place].value
    cursor.valid = True


cdef int unpack_group(BlockCursor* cursor, uint32_t restart) noexcept nogil:
    """Rebuild all keys of a group side by side, for walking it backwards. -1: damaged, or starved."""
    cdef Block* block = &cursor.block
    cdef BlockEntry entry
    cdef uint32_t end = block.key_bytes
    cdef size_t at = 0
    cdef size_t last_at = 0
    cdef size_t last_size = 0
    cdef size_t size
    cdef uint32_t count = 0
    if restart + 1 < block.restarts:
        end = restart_at(block.key_at, restart + 1)
    entry.next_key_at = restart_at(block.key_at, restart)
    entry.next_value_at = restart_at(block.value_at, restart)
    while entry.next_key_at < end:
        if decode_entry(block, entry.next_key_at, entry.next_value_at, &entry) < 0:
            return -1
        if entry.shared > last_size:
            return -1
        size = <size_t> entry.shared + entry.unshared + TRAILER_BYTES
        if at + size + COPY_BYTES > cursor.group_keys_capacity:
            if grow(&cursor.group_keys, &cursor.group_keys_capacity, at + size + COPY_BYTES) < 0:
                cursor.starved = True
                return -1
        if (count + 1) * sizeof(GroupEntry) > cursor.group_capacity:
            if grow(
                <uint8_t**> &cursor.group, &cursor.group_capacity, (count + 1) * sizeof(GroupEntry)
            ) < 0:
                cursor.starved = True
                return -1
        memcpy(cursor.group_keys + at, cursor.group_keys + last_at, entry.shared)
        copy_suffix(block, cursor.group_keys + at + entry.shared, &entry)
        cursor.group[count].key_at = at
        cursor.group[count].key_size = size
        cursor.group[count].value = entry.value
        last_at = at
        last_size = size - TRAILER_BYTES
        at += size
        count += 1
    if count == 0:
        return -1
    cursor.grouped = True
    cursor.restart = restart
    cursor.group_count = count
    return 0


cdef void block_cursor_first(BlockCursor* cursor) noexcept nogil:
    start_group(cursor, 0)


cdef void block_cursor_last(BlockCursor* cursor) noexcept nogil:
    if unpack_group(cursor, cursor.block.restarts - 1) < 0:
        stop_damaged(cursor)
        return
    show_grouped(cursor, cursor.group_count - 1)


cdef void block_cursor_next(BlockCursor* cursor) noexcept nogil:
    if not cursor.valid:
        return
    if cursor.grouped:
        if cursor.place + 1 < cursor.group_count:
            show_grouped(cursor, cursor.place + 1)
        elif cursor.restart + 1 < cursor.block.restarts:
            start_group(cursor, cursor.restart + 1)
        else:
            cursor.valid = False
        return
    if cursor.next_key_at == cursor.block.key_bytes:
        cursor.valid = False
        return
    if (
        cursor.restart + 1 < cursor.block.restarts
        and cursor.next_key_at == restart_at(cursor.block.key_at, cursor.restart + 1)
    ):
        cursor.restart += 1
        cursor.place = 0
    else:
        cursor.place += 1
    if not step_short(cursor):
        step(cursor, cursor.key.size - TRAILER_BYTES)


cdef void block_cursor_prev(BlockCursor* cursor) noexcept nogil:
    if not cursor.valid:
        return
    cdef uint32_t place = cursor.place
    if place == 0:
        if cursor.restart == 0:
            cursor.valid = False
            return
        if unpack_group(cursor, cursor.restart - 1) < 0:
            stop_damaged(cursor)
            return
        place = cursor.group_count
    elif not cursor.grouped and unpack_group(cursor, cursor.restart) < 0:
        stop_damaged(cursor)
        return
    if place > cursor.group_count:
        stop_damaged(cursor)
        return
    show_grouped(cursor, place - 1)


cdef inline void prefetch_values(BlockCursor* cursor) noexcept nogil:
    """The values that a walk from here comes to first; past the block is no harm."""
    cdef int line
    for line in range(VALUE_LINES):
        prefetch(cursor.value.data + line * 64)


cdef inline bint is_below(
    BlockEntry* entry, Slice user_key, uint64_t trailer, size_t* matched
) noexcept nogil:
    """Whether an entry is below the target; `matched` as in group_lower."""
    cdef uint64_t own
    cdef size_t more
    if entry.shared != matched[0]:
        return entry.shared > matched[0]
    more = common_prefix(
        entry.suffix, entry.unshared, user_key.data + matched[0], user_key.size - matched[0]
    )
    matched[0] += more
    if more < entry.unshared:
        return matched[0] < user_key.size and entry.suffix[more] < user_key.data[matched[0]]
    memcpy(&own, entry.suffix + entry.unshared, TRAILER_BYTES)
    return matched[0] < user_key.size or own > trailer


cdef void block_cursor_seek(BlockCursor* cursor, Slice user_key, uint64_t trailer) noexcept nogil:
    cdef Block* block = &cursor.block
    cdef int64_t restart = block_restart_lower(block, user_key, trailer)
    cdef BlockEntry entry
    cdef const uint8_t* at
    cdef size_t matched, before
    cdef uint32_t end
    cdef bint below = True
    if restart < 0:
        stop_damaged(cursor)
        return
    if restart == 0:
        start_group(cursor, 0)
        return
    # The group before may hold it at its end; if it doesn't, this one's first entry is it.
    end = block.key_bytes if restart == block.restarts else restart_at(block.key_at, restart)
    start_group(cursor, <uint32_t> (restart - 1))
    if cursor.valid:
        matched = common_prefix(
            cursor.key.data, cursor.key.size - TRAILER_BYTES, user_key.data, user_key.size
        )
    while cursor.valid and below and cursor.next_key_at < end:
        at = block.keys + cursor.next_key_at
        if step_short(cursor):
            entry.shared = at[0]
            entry.unshared = at[1]
            entry.suffix = at + 3
        else:
            before = cursor.key.size - TRAILER_BYTES
            if decode_entry(block, cursor.next_key_at, cursor.next_value_at, &entry) < 0 or (
                entry.shared > before
            ):
                stop_damaged(cursor)
                return
            stand_on(cursor, &entry)
        below = is_below(&entry, user_key, trailer, &matched)
        cursor.place += 1
    if not cursor.valid:
        return
    if below:
        if restart == block.restarts:
            cursor.valid = False
            return
        start_group(cursor, <uint32_t> restart)
    if cursor.valid:
        prefetch_values(cursor)


# --- check ----------------------------------------------------------------------------------

cdef int check_step(
    Block* block, BlockCursor* walk, uint32_t restart, const char** what
) noexcept nogil:
    """Decode the next entry onto the key before it and check the two against each other."""
    cdef BlockEntry entry
    cdef size_t before = walk.key.size - TRAILER_BYTES if walk.valid else 0
    cdef uint64_t trailer
    what[0] = b"block entry"
    if decode_entry(block, walk.next_key_at, walk.next_value_at, &entry) < 0:
        return -1
    if entry.shared > before or trailer_kind(entry.trailer) > KIND_MAX:
        return -1
    if walk.next_key_at == restart_at(block.key_at, restart):
        what[0] = b"block restart"
        if entry.shared or walk.next_value_at != restart_at(block.value_at, restart):
            return -1
        if entry.unshared < block.prefix:
            return -1
        if head_at(block.heads, restart) != key_head(entry.suffix, entry.unshared, block.prefix):
            return -1
        what[0] = b"block order"
        if walk.valid:
            memcpy(&trailer, walk.key.data + before, TRAILER_BYTES)
            if order_of(
                slice_of(walk.key.data, before), trailer,
                slice_of(entry.suffix, entry.unshared), entry.trailer,
            ) >= 0:
                return -1
    else:
        what[0] = b"block order"
        if entry.shared < before:
            # Greater in the first byte of its own; an equal one would have been shared.
            if entry.unshared == 0 or entry.suffix[0] <= walk.key.data[entry.shared]:
                return -1
        elif entry.unshared == 0:
            memcpy(&trailer, walk.key.data + before, TRAILER_BYTES)
            if entry.trailer >= trailer:
                return -1
    what[0] = NULL
    stand_on(walk, &entry)
    return 0 if walk.valid else -1


cdef int check_with(
    Block* block, BlockCursor* walk, Index* index, uint64_t slot, int64_t offset, Status* status
) noexcept nogil:
    cdef uint32_t restart = 0
    cdef uint32_t count = 0
    cdef const char* what = b"block entry"
    cdef BlockEntry first
    if restart_at(block.key_at, 0) or restart_at(block.value_at, 0) or (
        restart_entry(block, 0, &first) < 0
    ):
        return status_set(status, INVALID_RECORD, b"block restart", offset)
    walk.next_key_at = 0
    walk.next_value_at = 0
    while walk.next_key_at < block.key_bytes:
        if restart < block.restarts and walk.next_key_at == restart_at(block.key_at, restart):
            if check_step(block, walk, restart, &what) < 0:
                break
            restart += 1
        elif check_step(block, walk, restart - 1, &what) < 0:
            break
        count += 1
        what = b"block size"
    if walk.starved:
        return block_cursor_failure(walk, NULL, offset, status)
    if walk.next_key_at != block.key_bytes or not walk.valid:
        return status_set(status, INVALID_RECORD, what, offset)
    if count != block.entries or restart != block.restarts:
        return status_set(status, INVALID_RECORD, b"block entry count", offset)
    if walk.next_value_at != block.value_bytes:
        return status_set(status, INVALID_RECORD, b"block value area", offset)
    if common_prefix(
        first.suffix, first.unshared, walk.key.data, walk.key.size - TRAILER_BYTES
    ) < block.prefix:
        return status_set(status, INVALID_RECORD, b"block prefix", offset)
    if index == NULL:
        return 0
    if slot and index_order(
        index, slot - 1, slice_of(first.suffix, first.unshared), first.trailer
    ) >= 0:
        return status_set(status, INVALID_RECORD, b"block is not the one its index names", offset)
    if index_order(
        index, slot, slice_of(walk.key.data, walk.key.size - TRAILER_BYTES),
        internal_trailer(walk.key),
    ) < 0:
        return status_set(status, INVALID_RECORD, b"block is not the one its index names", offset)
    return 0


cdef int block_check(
    Block* block, Index* index, uint64_t slot, int64_t offset, Status* status
) noexcept nogil:
    cdef BlockCursor walk
    block_cursor_init(&walk)
    walk.block = block[0]
    cdef int result = check_with(block, &walk, index, slot, offset, status)
    block_cursor_free(&walk)
    return result
