"""The memory of requests, packed; kvstore.state.requests has its plain twin and the format."""

from libc.stdint cimport UINT32_MAX, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

from kvstore._engine.primitives.native cimport kv_calloc, kv_free

cdef enum:
    DIGEST = 16
    PLACES_FIRST = 1024


cdef inline uint64_t digest_hash(const uint8_t* digest) noexcept nogil:
    """Eight of its bytes: a digest is as random as any hash of it."""
    cdef uint64_t number
    memcpy(&number, digest, 8)
    return number


cdef class RequestMemory:
    """See the stub."""

    def __cinit__(self, uint32_t capacity):
        if capacity == 0 or capacity > 1 << 28:
            raise ValueError("a memory of 1 to 2^28 requests")
        self.size = capacity + 1
        self.mask = PLACES_FIRST - 1
        self.gone = []
        self.ring = <Slot*> kv_calloc(self.size, sizeof(Slot))
        self.places = <uint32_t*> kv_calloc(PLACES_FIRST, sizeof(uint32_t))
        if self.ring == NULL or self.places == NULL:
            raise MemoryError("no memory for what is remembered of requests")

    def __dealloc__(self):
        kv_free(self.ring)
        kv_free(self.places)

    def __len__(self):
        return self.known

    @property
    def forgotten_ms(self):
        return self._forgotten_ms

    @forgotten_ms.setter
    def forgotten_ms(self, uint64_t time):
        self._forgotten_ms = time

    @property
    def memory_bytes(self):
        return self.slots * sizeof(Slot) + (<uint64_t> self.mask + 1) * sizeof(uint32_t)

    def find(self, bytes digest not None):
        if PyBytes_GET_SIZE(digest) != DIGEST:
            raise ValueError("a digest has 16 bytes")
        return self.word(<const uint8_t*> PyBytes_AS_STRING(digest))

    def add(self, bytes digest not None, uint64_t word, uint64_t index, uint64_t time):
        if PyBytes_GET_SIZE(digest) != DIGEST or word == 0:
            raise ValueError("a digest has 16 bytes, and no word is 0")
        self.remember(<const uint8_t*> PyBytes_AS_STRING(digest), word, index, time)

    def load(self, bytes packed not None, size_t offset, uint64_t index, uint64_t time):
        cdef size_t end = PyBytes_GET_SIZE(packed)
        cdef const uint8_t* data = <const uint8_t*> PyBytes_AS_STRING(packed)
        cdef uint64_t word
        if offset > end or (end - offset) % (DIGEST + 8):
            raise ValueError("requests of 24 bytes each")
        while offset < end:
            memcpy(&word, data + offset + DIGEST, 8)
            if word == 0:
                raise ValueError("no word is 0")
            self.remember(data + offset, word, index, time)
            offset += DIGEST + 8

    def take_forgotten(self):
        gone = self.gone
        if gone:
            self.gone = []
        return gone

    cdef uint64_t word(self, const uint8_t* digest) noexcept nogil:
        cdef uint32_t place = self.places[self.lookup(digest)]
        return self.ring[place - 1].word if place else 0

    cdef uint32_t lookup(self, const uint8_t* digest) noexcept nogil:
        """Where in the index the digest is, or would be. One place in two is free."""
        cdef uint32_t at = <uint32_t> digest_hash(digest) & self.mask
        cdef uint32_t place = self.places[at]
        while place != 0:
            if memcmp(self.ring[place - 1].digest, digest, DIGEST) == 0:
                break
            at = (at + 1) & self.mask
            place = self.places[at]
        return at

    cdef int grow(self) noexcept nogil:
        """Twice the index. -1: no memory, nothing changed."""
        cdef uint64_t count = (<uint64_t> self.mask + 1) * 2
        cdef uint32_t* larger = <uint32_t*> kv_calloc(count, sizeof(uint32_t))
        cdef uint32_t place = self.head
        cdef uint32_t left
        if larger == NULL:
            return -1
        kv_free(self.places)
        self.places = larger
        self.mask = <uint32_t> (count - 1)
        for left in range(self.slots):
            if self.ring[place].word != 0:
                self.enter(place)
            place = place + 1 if place + 1 < self.size else 0
        return 0

    cdef void enter(self, uint32_t place) noexcept nogil:
        self.places[self.lookup(self.ring[place].digest)] = place + 1

    cdef void leave(self, const uint8_t* digest) noexcept nogil:
        """Take a digest out of the index, and close the gap (Knuth 6.4, algorithm R)."""
        cdef uint32_t free = self.lookup(digest)
        cdef uint32_t at = free
        cdef uint32_t home
        if self.places[free] == 0:
            return
        while True:
            at = (at + 1) & self.mask
            if self.places[at] == 0:
                break
            home = <uint32_t> digest_hash(self.ring[self.places[at] - 1].digest) & self.mask
            # It may move into the gap unless its home lies between the two.
            if ((at - home) & self.mask) >= ((at - free) & self.mask):
                self.places[free] = self.places[at]
                free = at
        self.places[free] = 0

    cdef void push(
        self, const uint8_t* digest, uint64_t word, uint32_t index_step, uint32_t time_step
    ) noexcept nogil:
        cdef uint32_t place = <uint32_t> ((<uint64_t> self.head + self.slots) % self.size)
        cdef Slot* slot = &self.ring[place]
        if word:
            memcpy(slot.digest, digest, DIGEST)
        slot.word = word
        slot.index_step = index_step
        slot.time_step = time_step
        self.slots += 1
        self.tail_index += index_step
        self.tail_time += time_step
        if word:
            self.known += 1
            self.enter(place)

    cdef uint64_t pop(self) noexcept nogil:
        """Forget the oldest slot, never the last. Returns the entry that is forgotten whole, or 0."""
        cdef Slot* slot = &self.ring[self.head]
        cdef uint64_t index = self.head_index
        cdef bint request = slot.word != 0
        if request:
            self.leave(slot.digest)
            self.known -= 1
            self._forgotten_ms = self.head_time
        self.head = self.head + 1 if self.head + 1 < self.size else 0
        self.slots -= 1
        slot = &self.ring[self.head]
        self.head_index += slot.index_step
        self.head_time += slot.time_step
        return index if request and self.head_index != index else 0

    cdef int remember(
        self, const uint8_t* digest, uint64_t word, uint64_t index, uint64_t time
    ) except -1:
        cdef uint64_t index_gap, time_gap, gone
        cdef uint32_t index_step, time_step
        if self.slots and (index < self.tail_index or time < self.tail_time):
            raise ValueError("requests are remembered in the order of the log")
        if self.places[self.lookup(digest)] != 0:
            raise ValueError("that request is remembered already")
        # Before anything changes: what follows can't fail.
        if <uint64_t> self.known * 2 > <uint64_t> self.mask + 1 and self.grow() < 0:
            raise MemoryError("no memory for what is remembered of requests")
        if self.slots == 0:
            self.head_index = self.tail_index = index
            self.head_time = self.tail_time = time
        while True:
            index_gap = index - self.tail_index
            time_gap = time - self.tail_time
            index_step = <uint32_t> min(index_gap, UINT32_MAX)
            time_step = <uint32_t> min(time_gap, UINT32_MAX)
            if index_gap == index_step and time_gap == time_step:
                self.push(digest, word, index_step, time_step)
            else:
                self.push(digest, 0, index_step, time_step)
            if self.slots == self.size:
                gone = self.pop()
                if gone:
                    self.gone.append(gone)
            if index_gap == index_step and time_gap == time_step:
                return 0
