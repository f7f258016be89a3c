"""The memtable's tree: search and insertion. Its nodes and entries: memtable_node.pxd.

Every node skips a `prefix` that all keys in it share. It is no more than the common prefix of the
node's bounds (the separators around it; the smallest and largest key of the tree where there is none),
so a key that the search led to a node shares that prefix without being asked.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove

from kvstore._engine.primitives.native cimport (
    Arena,
    KIND_DELETE,
    KIND_MAX,
    Slice,
    TRAILER_BYTES,
    arena_allocate,
    arena_free,
    arena_init,
    arena_provide,
    arena_reserve,
    common_prefix,
    heads_lower,
    key_head,
    kv_calloc,
    kv_free,
    prefetch,
    prefetch_run,
    reference_add,
    reference_drop,
    slice_compare,
    slice_equal,
    slice_of,
    trailer_kind,
    trailer_pack,
    trailer_sequence,
)


cdef enum:
    GROWTH = 4                  # bytes that a node's prefix must win to be worth new heads
    MAX_HEIGHT = 16             # inner levels: more than any address space fills
    HEIGHT_GROWTH = 5           # levels that one batch can add: 2**20 leaves and more
    RUN_SLOTS = 4               # a run of equal heads for which a hole is looked for
    HOLE_PAUSE = 8              # additions until one is looked for after a key that it didn't fit
    MAX_KEY_BYTES = 1 << 30
    MAX_VALUE_BYTES = 1 << 30


cdef struct Path:
    # The way from the root to a leaf, and the bounds of that leaf.
    bint found                  # whether the rest is filled in
    Inner* nodes[MAX_HEIGHT]
    int slots[MAX_HEIGHT]       # the child taken in each
    Entry lower[MAX_HEIGHT + 1]     # bounds of the node at each level; the leaf's at [height]
    Entry upper[MAX_HEIGHT + 1]


# --- search ---------------------------------------------------------------------------------

cdef inline int run_end(const uint64_t* heads, int at, int end) noexcept nogil:
    """The end of the run of equal heads that begins at `at`."""
    if at + 1 < end and heads[at + 1] == heads[at]:
        if heads[at] == <uint64_t> -1:
            return end
        return at + 1 + heads_lower(heads + at + 1, end - at - 1, heads[at] + 1)
    return at + 1


cdef inline Slice part_in_hole(Node* node, Slice key) noexcept nogil:
    cdef size_t begin = min(<size_t> node.prefix + node.taken, key.size)
    return slice_of(key.data + begin, min(<size_t> node.second, key.size) - begin)


cdef inline int order_in_hole(Node* node, Slice key, int slot) noexcept nogil:
    return slice_compare(
        part_in_hole(node, key), part_in_hole(node, entry_user_key(node.entries[slot]))
    )


cdef inline int beside_hole(Node* node, int low, uint64_t head) noexcept nogil:
    """Of the two slots at a place one whose head begins with the same `taken` bytes, or -1."""
    cdef int unseen = 64 - 8 * <int> node.taken
    if low < <int> node.count and (node.heads[low] ^ head) >> unseen == 0:
        return low
    if low > 0 and (node.heads[low - 1] ^ head) >> unseen == 0:
        return low - 1
    return -1


cdef int run_side(Node* node, uint64_t head, bint after) noexcept nogil:
    """Where the heads begin or end that begin with the same `taken` bytes."""
    cdef int unseen = 64 - 8 * <int> node.taken
    cdef uint64_t begins = (head >> unseen) + after
    if begins >> (64 - unseen):
        return <int> node.count
    return heads_lower(node.heads, <int> node.count, begins << unseen)


cdef int lower_in_run(
    Node* node, int low, Slice user_key, uint64_t trailer, size_t shared, bint* equal
) noexcept nogil:
    """Of keys that differ past their heads, or versions of one key: by all but the `shared` bytes."""
    cdef int high = run_end(node.heads, low, <int> node.count)
    cdef int middle, order
    while low < high:
        middle = (low + high) >> 1
        order = entry_compare_from(node.entries[middle], user_key, trailer, shared)
        if order < 0:
            low = middle + 1
        else:
            high = middle
            equal[0] = order == 0
    return low


cdef int lower_past_hole(
    Node* node, int low, uint64_t head, Slice user_key, uint64_t trailer, bint* equal
) noexcept nogil:
    """The place of a key that is at `low` if it has in the hole what those have that begin alike."""
    cdef int beside = beside_hole(node, low, head)
    cdef int order
    if beside < 0:
        return low
    order = order_in_hole(node, user_key, beside)
    if order:
        return run_side(node, head, order > 0)
    if low == <int> node.count or node.heads[low] != head:
        return low
    return lower_in_run(
        node, low, user_key, trailer,
        node.second if user_key.size >= node.second else node.prefix, equal,
    )


cdef inline int lower_slot(Node* node, Slice user_key, uint64_t trailer, bint* equal) noexcept nogil:
    """The first slot whose entry is >= (user_key, trailer), see entry_compare; whether it is equal."""
    cdef uint64_t head = head_in(node, user_key)
    cdef int low = heads_lower(node.heads, <int> node.count, head)
    equal[0] = False
    if node.taken != HEAD_BYTES:
        return lower_past_hole(node, low, head, user_key, trailer, equal)
    if low == <int> node.count or node.heads[low] != head:
        return low
    return lower_in_run(node, low, user_key, trailer, node.prefix, equal)


cdef inline int child_slot(Inner* node, Slice user_key, uint64_t trailer) noexcept nogil:
    """The child that (user_key, trailer) belongs to: an equal separator is on the left of it."""
    cdef bint equal
    cdef int slot = lower_slot(<Node*> node, user_key, trailer, &equal)
    if equal:
        slot += 1
    return slot


cdef inline void prefetch_leaf(Leaf* leaf) noexcept nogil:
    cdef const uint8_t* at = <const uint8_t*> leaf
    cdef int line
    for line in range(8):
        prefetch(at + line * CACHE_LINE_BYTES)


cdef Entry memtable_find(
    MemTable* table, Slice user_key, uint64_t trailer, Leaf** at, int* slot
) noexcept nogil:
    """The first entry that is >= (user_key, trailer) and its place; NULL where there is none."""
    if table.smallest == NULL or slice_compare(user_key, entry_user_key(table.largest)) > 0:
        return NULL
    if slice_compare(user_key, entry_user_key(table.smallest)) < 0:
        at[0] = table.first
        slot[0] = 0
        return table.smallest
    cdef void* node = table.root
    cdef int level
    for level in range(table.height):
        node = (<Inner*> node).children[child_slot(<Inner*> node, user_key, trailer)]
    cdef Leaf* leaf = <Leaf*> node
    prefetch_leaf(leaf)
    cdef bint equal
    cdef int found = lower_slot(<Node*> leaf, user_key, trailer, &equal)
    if found == <int> leaf.count:
        leaf = leaf.next
        found = 0
        if leaf == NULL:
            return NULL
    at[0] = leaf
    slot[0] = found
    return leaf.entries[found]


# --- insertion ------------------------------------------------------------------------------

cdef void set_heads(Node* node, uint32_t taken, uint32_t second) noexcept nogil:
    cdef int i
    node.taken = taken
    node.second = second
    for i in range(<int> node.count):
        node.heads[i] = head_in(node, entry_user_key(node.entries[i]))


cdef int alike(const size_t* shared, int count, size_t taken, size_t* second) noexcept nogil:
    """How many pairs of neighbours heads with such a hole don't tell apart, and its end, best chosen.

    `shared`: what each pair shares after the prefix; pairs of one key's versions are left out.
    """
    cdef size_t end = <size_t> -1
    cdef int left = 0
    cdef int i
    for i in range(count):
        if taken <= shared[i] < end:
            end = shared[i]
    for i in range(count):
        left += shared[i] >= taken and shared[i] - end >= HEAD_BYTES - taken
    second[0] = end
    return left


cdef void find_hole(Node* node) noexcept nogil:
    """Where it tells apart more keys than heads without, heads with a hole from now on."""
    cdef size_t[NODE_SLOTS] shared
    cdef size_t second = 0
    cdef size_t end
    cdef uint32_t best = HEAD_BYTES
    cdef uint32_t taken
    cdef int count = 0
    cdef int least, left, i
    cdef Slice before, key
    # Not again before the node has grown much.
    node.second = node.count + NODE_SLOTS // 2
    before = entry_user_key(node.entries[0])
    for i in range(1, <int> node.count):
        key = entry_user_key(node.entries[i])
        end = node.prefix + common_prefix(
            before.data + node.prefix, before.size - node.prefix,
            key.data + node.prefix, key.size - node.prefix,
        )
        if end != key.size or end != before.size:
            shared[count] = end - node.prefix
            count += 1
        before = key
    least = -RUN_SLOTS // 2
    for i in range(count):
        least += shared[i] >= HEAD_BYTES
    for taken in range(1, HEAD_BYTES):
        left = alike(shared, count, taken, &end)
        if left <= least and end < MAX_KEY_BYTES:
            least = left - 1
            best = taken
            second = node.prefix + end
    if best != HEAD_BYTES:
        set_heads(node, best, <uint32_t> second)
        if not hole_fits(node):
            set_heads(node, HEAD_BYTES, node.count + NODE_SLOTS // 2)


cdef bint hole_fits(Node* node) noexcept nogil:
    """Not where a key ends before the hole, and the zeros past its end look like another's bytes."""
    cdef int unseen = 64 - 8 * <int> node.taken
    cdef int i
    for i in range(1, <int> node.count):
        if (node.heads[i] ^ node.heads[i - 1]) >> unseen == 0 and order_in_hole(
            node, entry_user_key(node.entries[i]), i - 1
        ):
            return False
    return True


cdef inline void seek_hole(Node* node, int slot) noexcept nogil:
    """Where a node without a hole has got a long run of equal heads around the slot: look for one."""
    cdef int low = slot
    cdef int high = slot + 1
    if node.count < node.second:
        return
    while low > 0 and node.heads[low - 1] == node.heads[slot]:
        low -= 1
    while high < <int> node.count and node.heads[high] == node.heads[slot]:
        high += 1
    if high - low >= RUN_SLOTS and not slice_equal(
        entry_user_key(node.entries[low]), entry_user_key(node.entries[high - 1])
    ):
        find_hole(node)


cdef void set_prefix(Node* node, size_t prefix) noexcept nogil:
    """Make the node skip `prefix` bytes, which all its keys are known to share."""
    cdef int slot = 0
    node.prefix = <uint32_t> prefix
    set_heads(node, HEAD_BYTES, 0)
    while slot < <int> node.count and node.taken == HEAD_BYTES and node.count >= node.second:
        seek_hole(node, slot)
        slot = run_end(node.heads, slot, <int> node.count)


cdef inline void grow_prefix(Node* node, size_t shared) noexcept nogil:
    """After a split, skip what all keys share now: only where enough is won, since each key is read.

    A key's head still has `8 - GROWTH` bytes after what is shared to tell the keys apart.
    """
    if shared >= node.prefix + GROWTH:
        set_prefix(node, shared)


cdef void loosen_edge(MemTable* table, size_t prefix, bint right) noexcept nogil:
    """The tree's own bound moved out: nodes along that edge may share no more than `prefix`."""
    cdef void* node = table.root
    cdef int level
    for level in range(table.height):
        if (<Inner*> node).prefix > prefix:
            set_prefix(<Node*> node, prefix)
        node = (<Inner*> node).children[(<Inner*> node).count if right else 0]
    if (<Leaf*> node).prefix > prefix:
        set_prefix(<Node*> node, prefix)


cdef void descend(MemTable* table, Slice user_key, uint64_t trailer, Path* path) noexcept nogil:
    cdef void* node = table.root
    cdef Inner* inner
    cdef int level, slot
    path.found = True
    path.lower[0] = table.smallest
    path.upper[0] = table.largest
    for level in range(table.height):
        inner = <Inner*> node
        slot = child_slot(inner, user_key, trailer)
        path.nodes[level] = inner
        path.slots[level] = slot
        path.lower[level + 1] = inner.separators[slot - 1] if slot > 0 else path.lower[level]
        path.upper[level + 1] = inner.separators[slot] if slot < <int> inner.count else path.upper[level]
        node = inner.children[slot]


cdef void descend_edge(MemTable* table, bint right, Path* path) noexcept nogil:
    """The way to the last leaf, or to the first."""
    cdef void* node = table.root
    cdef int level
    cdef Inner* inner
    path.found = True
    path.lower[0] = table.smallest
    path.upper[0] = table.largest
    for level in range(table.height):
        inner = <Inner*> node
        path.nodes[level] = inner
        path.slots[level] = <int> inner.count if right else 0
        path.lower[level + 1] = path.lower[level]
        path.upper[level + 1] = path.upper[level]
        if inner.count and right:
            path.lower[level + 1] = inner.separators[inner.count - 1]
        elif inner.count:
            path.upper[level + 1] = inner.separators[0]
        node = inner.children[path.slots[level]]


cdef inline Leaf* path_leaf(MemTable* table, Path* path) noexcept nogil:
    if table.height == 0:
        return <Leaf*> table.root
    return <Leaf*> path.nodes[table.height - 1].children[path.slots[table.height - 1]]


cdef inline void node_put(Node* node, int slot, Entry entry) noexcept nogil:
    cdef int moved = <int> node.count - slot
    cdef Slice key = entry_user_key(entry)
    cdef uint64_t head = head_in(node, key)
    cdef int beside
    cdef bint fits = True
    if node.taken != HEAD_BYTES:
        beside = beside_hole(node, slot, head)
        fits = beside < 0 or order_in_hole(node, key, beside) == 0
    if moved:
        memmove(&node.heads[slot + 1], &node.heads[slot], moved * sizeof(uint64_t))
        memmove(&node.entries[slot + 1], &node.entries[slot], moved * sizeof(Entry))
    node.heads[slot] = head
    node.entries[slot] = entry
    node.count += 1
    if not fits:
        # With a smaller hole, perhaps; not each time.
        set_heads(node, HEAD_BYTES, node.count + HOLE_PAUSE)
    elif node.taken == HEAD_BYTES and (
        (slot > 0 and node.heads[slot - 1] == head) or (moved and node.heads[slot + 1] == head)
    ):
        seek_hole(node, slot)


cdef void inner_put(Inner* node, int slot, Entry separator, void* right) noexcept nogil:
    cdef int moved = <int> node.count - slot
    if moved:
        memmove(&node.children[slot + 2], &node.children[slot + 1], moved * sizeof(void*))
    node.children[slot + 1] = right
    node_put(<Node*> node, slot, separator)


cdef void halve(Node* node, Node* sibling, int keep, int first) noexcept nogil:
    """The entries from `first` on to the new sibling, and those from `keep` on away from the node."""
    cdef int moved = <int> node.count - first
    if node.taken == HEAD_BYTES:
        node.second = 0
    sibling.count = <uint32_t> moved
    sibling.prefix = node.prefix
    sibling.taken = node.taken
    sibling.second = node.second
    memcpy(sibling.heads, &node.heads[first], moved * sizeof(uint64_t))
    memcpy(sibling.entries, &node.entries[first], moved * sizeof(Entry))
    node.count = <uint32_t> keep


cdef inline int reserve_nodes(MemTable* table, Path* path) noexcept nogil:
    """Room for every node that splitting this path can need, so that a split never stops midway."""
    cdef size_t size = sizeof(Leaf) + CACHE_LINE_BYTES
    cdef int level = table.height - 1
    while level >= 0 and path.nodes[level].count == INNER_SLOTS:
        size += sizeof(Inner) + CACHE_LINE_BYTES
        level -= 1
    if level < 0:
        if table.height == MAX_HEIGHT:
            return -1
        size += sizeof(Inner) + CACHE_LINE_BYTES
    return arena_reserve(&table.arena, size)


cdef Entry split_inner(
    MemTable* table, Inner* node, int slot, Entry separator, void* right,
    Entry lower, Entry upper, Inner** added
) noexcept nogil:
    """Split a full inner node while adding to it; returns the separator between the halves."""
    cdef Inner* sibling = <Inner*> arena_allocate(&table.arena, sizeof(Inner), CACHE_LINE_BYTES)
    table.inners += 1
    # Ascending insertion leaves full nodes behind; anything else halves.
    cdef int keep = INNER_SLOTS - 1 if slot == INNER_SLOTS else INNER_SLOTS // 2
    cdef int moved = INNER_SLOTS - keep - 1
    cdef Entry middle = node.separators[keep]
    memcpy(sibling.children, &node.children[keep + 1], (moved + 1) * sizeof(void*))
    halve(<Node*> node, <Node*> sibling, keep, keep + 1)
    grow_prefix(<Node*> node, entries_common_prefix(lower, middle))
    grow_prefix(<Node*> sibling, entries_common_prefix(middle, upper))
    if slot > keep:
        inner_put(sibling, slot - keep - 1, separator, right)
    else:
        inner_put(node, slot, separator, right)
    added[0] = sibling
    return middle


cdef void add_separator(MemTable* table, Path* path, Entry separator, void* right) noexcept nogil:
    """Enter a new right sibling into the parents, splitting upwards where they are full."""
    cdef int level = table.height - 1
    cdef Inner* node
    cdef Inner* added = NULL
    cdef Inner* root
    while level >= 0:
        node = path.nodes[level]
        if node.count < INNER_SLOTS:
            inner_put(node, path.slots[level], separator, right)
            return
        separator = split_inner(
            table, node, path.slots[level], separator, right,
            path.lower[level], path.upper[level], &added
        )
        right = added
        level -= 1
    root = <Inner*> arena_allocate(&table.arena, sizeof(Inner), CACHE_LINE_BYTES)
    root.count = 0
    root.taken = HEAD_BYTES
    root.second = 0
    table.inners += 1
    root.prefix = <uint32_t> entries_common_prefix(table.smallest, table.largest)
    root.children[0] = table.root
    inner_put(root, 0, separator, right)
    table.root = root
    table.height += 1


cdef void split_leaf(MemTable* table, Leaf* leaf, int slot, Entry entry, Path* path) noexcept nogil:
    cdef Leaf* sibling = <Leaf*> arena_allocate(&table.arena, sizeof(Leaf), CACHE_LINE_BYTES)
    # Ascending insertion leaves full leaves behind; anything else halves. Versions of one key come in
    # descending order: beside a leaf that is nearly empty they would get a leaf each.
    cdef bint apart = slot == LEAF_SLOTS and (
        leaf.next == NULL or leaf.next.count >= LEAF_SLOTS // 2
    )
    cdef int keep = LEAF_SLOTS if apart else LEAF_SLOTS // 2
    cdef int moved = LEAF_SLOTS - keep
    # An entry that falls between the halves goes left, which keeps the separator an old entry.
    cdef Entry separator = leaf.entries[keep] if moved else entry
    cdef Entry lower = path.lower[table.height]
    cdef Entry upper = path.upper[table.height]
    table.near = NULL
    table.leaves += 1
    sibling.prev = leaf
    sibling.next = leaf.next
    if leaf.next != NULL:
        leaf.next.prev = sibling
    else:
        table.last = sibling
    leaf.next = sibling
    halve(<Node*> leaf, <Node*> sibling, keep, keep)
    grow_prefix(<Node*> leaf, entries_common_prefix(lower, separator))
    grow_prefix(<Node*> sibling, entries_common_prefix(separator, upper))
    if slot > keep or not moved:
        node_put(<Node*> sibling, slot - keep, entry)
    else:
        node_put(<Node*> leaf, slot, entry)
    add_separator(table, path, separator, sibling)


cdef void widen_bounds(MemTable* table, Entry entry) noexcept nogil:
    """Take a new entry into the tree's own bounds, before it is searched for its place."""
    cdef Slice key = entry_user_key(entry)
    cdef uint64_t trailer = entry_trailer(entry)
    if table.smallest == NULL:
        table.smallest = table.largest = entry
        table.first.prefix = <uint32_t> key.size
        return
    if entry_compare(table.largest, key, trailer) < 0:
        loosen_edge(table, entries_common_prefix(table.largest, entry), True)
        table.largest = entry
    elif entry_compare(table.smallest, key, trailer) > 0:
        loosen_edge(table, entries_common_prefix(entry, table.smallest), False)
        table.smallest = entry


cdef Entry make_entry(Arena* arena, Slice user_key, uint64_t trailer, Slice value) noexcept nogil:
    cdef size_t size = ENTRY_HEADER_BYTES + user_key.size + TRAILER_BYTES + value.size
    cdef uint8_t* at = <uint8_t*> arena_allocate(arena, size, 1)
    if at == NULL:
        return NULL
    cdef uint32_t key_size = <uint32_t> user_key.size
    cdef uint32_t value_size = <uint32_t> value.size
    memcpy(at, &key_size, 4)
    memcpy(at + 4, &value_size, 4)
    if user_key.size:
        memcpy(at + ENTRY_HEADER_BYTES, user_key.data, user_key.size)
    memcpy(at + ENTRY_HEADER_BYTES + user_key.size, &trailer, TRAILER_BYTES)
    if value.size:
        memcpy(at + ENTRY_HEADER_BYTES + user_key.size + TRAILER_BYTES, value.data, value.size)
    return at


cdef inline bint is_near(MemTable* table, Slice user_key) noexcept nogil:
    """Whether a key that isn't below the last one added belongs into the same leaf."""
    return table.near != NULL and slice_compare(user_key, entry_user_key(table.near_upper)) < 0


cdef int memtable_add(
    MemTable* table, Slice user_key, uint64_t sequence, int kind, Slice value, bint ascending
) noexcept nogil:
    cdef Path path
    cdef uint64_t trailer = trailer_pack(sequence, kind)
    cdef Leaf* leaf
    cdef int slot
    cdef bint equal
    cdef bint within = False            # the tree's bounds stay as they are
    if user_key.size > MAX_KEY_BYTES or value.size > MAX_VALUE_BYTES:
        return -1
    cdef Entry entry = make_entry(&table.arena, user_key, trailer, value)
    if entry == NULL:
        return -1
    path.found = False
    if table.largest == NULL or entry_compare(table.largest, user_key, trailer) < 0:
        # Ascending keys: the place is known, and only a full leaf needs the way to it.
        table.near = NULL
        leaf = table.last
        slot = <int> leaf.count
    elif entry_compare(table.smallest, user_key, trailer) > 0:
        table.near = NULL
        leaf = table.first
        slot = 0
    else:
        within = True
        if ascending and is_near(table, user_key):
            leaf = table.near
        else:
            descend(table, user_key, trailer, &path)
            leaf = path_leaf(table, &path)
            prefetch_whole_leaf(leaf)
            table.near = leaf
            table.near_upper = path.upper[table.height]
        slot = lower_slot(<Node*> leaf, user_key, trailer, &equal)
        if equal:
            # The same sequence again, of the same kind or another: the later one stands.
            replace_entry(table, leaf, slot, entry)
            return 0
    if leaf.count < LEAF_SLOTS:
        if not within:
            widen_bounds(table, entry)
        node_put(<Node*> leaf, slot, entry)
    else:
        if not path.found and within:
            descend(table, user_key, trailer, &path)
        elif not path.found:
            descend_edge(table, slot != 0, &path)
        if reserve_nodes(table, &path) < 0:
            return -1
        if not within:
            widen_bounds(table, entry)
            refresh_edges(table, &path)
        split_leaf(table, leaf, slot, entry, &path)
    table.entries += 1
    return 0


cdef int memtable_provide(MemTable* table, size_t count, size_t bytes) noexcept nogil:
    # A leaf that is full now may split at once, and each is at most left full once more; any other
    # split needs half a leaf of additions before it. An inner node that was split has room for one
    # child at least.
    cdef size_t splits = min(count, 2 * table.leaves + count // (LEAF_SLOTS // 4) + 2)
    cdef size_t inner_splits = min(
        splits * (table.height + 1) + 1, 2 * table.inners + splits + HEIGHT_GROWTH
    )
    if count > (<size_t> -1 >> 20) or bytes > (<size_t> -1 >> 2):
        return -1
    # Nodes are reserved one path at a time before they are allocated: room for one path more.
    return arena_provide(
        &table.arena,
        bytes + count * (ENTRY_HEADER_BYTES + TRAILER_BYTES)
        + (splits + 1) * (sizeof(Leaf) + CACHE_LINE_BYTES)
        + (inner_splits + table.height + HEIGHT_GROWTH) * (sizeof(Inner) + CACHE_LINE_BYTES),
    )


cdef void memtable_prefetch(MemTable* table, Slice user_key, bint ascending) noexcept nogil:
    cdef void* node = table.root
    cdef int level
    # Ascending keys need no way, and the last leaf is in the cache.
    if table.largest == NULL or slice_compare(user_key, entry_user_key(table.largest)) > 0:
        return
    if ascending and is_near(table, user_key):
        return
    for level in range(table.height):
        node = (<Inner*> node).children[heads_lower(
            (<Inner*> node).heads, <int> (<Inner*> node).count, head_in(<Node*> node, user_key)
        )]
    prefetch_whole_leaf(<Leaf*> node)


cdef void replace_entry(MemTable* table, Leaf* leaf, int slot, Entry entry) noexcept nogil:
    if leaf.entries[slot] == table.smallest:
        table.smallest = entry
    if leaf.entries[slot] == table.largest:
        table.largest = entry
    leaf.entries[slot] = entry


cdef void refresh_edges(MemTable* table, Path* path) noexcept nogil:
    """Replace the tree's bounds in a path by those of now."""
    cdef int level
    cdef bint left = True
    cdef bint right = True
    for level in range(table.height + 1):
        if left:
            path.lower[level] = table.smallest
        if right:
            path.upper[level] = table.largest
        if level < table.height:
            left = left and path.slots[level] == 0
            right = right and path.slots[level] == <int> path.nodes[level].count


# --- the public face ------------------------------------------------------------------------

cdef MemTable* memtable_new(size_t meant_for) noexcept nogil:
    cdef MemTable* table = <MemTable*> kv_calloc(1, sizeof(MemTable))
    if table == NULL:
        return NULL
    table.references = 1
    arena_init(&table.arena, meant_for)
    cdef Leaf* leaf = <Leaf*> arena_allocate(&table.arena, sizeof(Leaf), CACHE_LINE_BYTES)
    if leaf == NULL:
        kv_free(table)
        return NULL
    leaf.count = 0
    leaf.prefix = 0
    leaf.taken = HEAD_BYTES
    leaf.second = 0
    leaf.next = NULL
    leaf.prev = NULL
    table.root = leaf
    table.first = leaf
    table.last = leaf
    table.leaves = 1
    return table


cdef void memtable_retain(MemTable* table) noexcept nogil:
    reference_add(&table.references)


cdef void memtable_release(MemTable* table) noexcept nogil:
    if reference_drop(&table.references):
        range_set_free(&table.ranges)
        arena_free(&table.arena)
        kv_free(table)


cdef size_t memtable_bytes(MemTable* table) noexcept nogil:
    return sizeof(MemTable) + table.arena.bytes + table.ranges.bytes


cdef size_t memtable_used(MemTable* table) noexcept nogil:
    return memtable_bytes(table) - table.arena.left


cdef size_t memtable_entries(MemTable* table) noexcept nogil:
    return table.entries


cdef bint memtable_largest(MemTable* table, Slice* user_key) noexcept nogil:
    if table.largest == NULL:
        return False
    user_key[0] = entry_user_key(table.largest)
    return True


cdef bint memtable_is_empty(MemTable* table) noexcept nogil:
    return table.entries == 0 and table.ranges.count == 0


cdef bint copy_key(Arena* arena, Slice* key) noexcept nogil:
    cdef uint8_t* at
    if key.size > MAX_KEY_BYTES:
        return False
    # Never no bytes: data that is NULL would stand for no bound.
    at = <uint8_t*> arena_allocate(arena, max(key.size, <size_t> 1), 1)
    if at == NULL:
        return False
    if key.size:
        memcpy(at, key.data, key.size)
    key.data = at
    return True


cdef int memtable_delete_ranges(MemTable* table, RangeTombstone* given, size_t count) noexcept nogil:
    cdef size_t i
    for i in range(count):
        if not copy_key(&table.arena, &given[i].start) or not copy_key(&table.arena, &given[i].stop):
            return -1
    return range_set_add(&table.ranges, given, count)


cdef int memtable_get(
    MemTable* table, Slice user_key, uint64_t sequence, Slice* value, uint64_t* found_sequence
) noexcept nogil:
    cdef const RangeTombstone* over
    cdef int found = tree_get(table, user_key, sequence, value, found_sequence)
    if table.ranges.count:
        over = range_set_find(&table.ranges, user_key, sequence)
        if over != NULL and (found == ABSENT or over.sequence > found_sequence[0]):
            found_sequence[0] = over.sequence
            return DELETED
    return found


cdef inline int tree_get(
    MemTable* table, Slice user_key, uint64_t sequence, Slice* value, uint64_t* found_sequence
) noexcept nogil:
    cdef Leaf* leaf
    cdef int slot
    cdef Entry entry = memtable_find(
        table, user_key, trailer_pack(sequence, KIND_MAX), &leaf, &slot
    )
    if entry == NULL or not slice_equal(entry_user_key(entry), user_key):
        return ABSENT
    cdef uint64_t trailer = entry_trailer(entry)
    found_sequence[0] = trailer_sequence(trailer)
    if trailer_kind(trailer) == KIND_DELETE:
        return DELETED
    value[0] = entry_value(entry)
    prefetch_run(value.data, value.size)
    return FOUND
