"""See the stub for what each bound means."""


cdef class Budget:
    """See the stub."""

    def __cinit__(self, int64_t limit):
        self.limit = limit

    def take(self, int64_t size, int64_t held, int64_t held_max):
        if not 0 <= size <= held_max or not may_take(self, held + size, size, held_max):
            return False
        self.used += size
        return True

    def give_back(self, int64_t size):
        if not 0 <= size <= self.used:
            raise ValueError("what was taken, and no more")
        self.used -= size


cdef inline bint may_take(Budget budget, int64_t own, int64_t size, int64_t own_max) noexcept:
    """Whether a session that then has `own` bytes may take `size`: the rule of dynamic thresholds
    (Choudhury and Hahne 1998)."""
    cdef int64_t left = budget.limit - budget.used
    return own <= own_max and size <= left and own <= max(left // 2, <int64_t> SHARE_BYTES_MIN)


cdef class Limits:
    """See the stub."""

    def __cinit__(
        self,
        *,
        int64_t message_bytes_max=(2 << 20) + (64 << 10),
        int64_t header_bytes_max=16 << 10,
        int64_t streams_max=256,
        int64_t unsent_bytes_max=16 << 20,
        int64_t received_bytes_max=16 << 20,
        int64_t resets_max=1000,
        int64_t pings_max=10,
        int64_t settings_max=30,
        int64_t idle_frames_max=1000,
        int64_t window_bytes=256 << 10,
        int64_t connection_window_bytes=4 << 20,
    ):
        if not 0 <= message_bytes_max <= MESSAGE_BYTES_BOUND:
            raise ValueError(f"message_bytes_max is 0 to {MESSAGE_BYTES_BOUND}")
        if not 1 <= header_bytes_max <= HEADER_BYTES_BOUND:
            raise ValueError(f"header_bytes_max is 1 to {HEADER_BYTES_BOUND}")
        if not 1 <= streams_max <= 1 << 20:
            raise ValueError("streams_max is 1 to 2^20")
        if min(unsent_bytes_max, received_bytes_max) < 0:
            raise ValueError("bytes are 0 or more")
        if min(resets_max, pings_max, settings_max, idle_frames_max) < 1:
            raise ValueError("a rate is 1 or more")
        for window in (window_bytes, connection_window_bytes):
            if not 65535 <= window <= 0x7fffffff:
                raise ValueError("a window is 65,535 to 2^31 - 1 bytes")
        self.message_bytes_max = message_bytes_max
        self.header_bytes_max = header_bytes_max
        self.streams_max = streams_max
        self.unsent_bytes_max = unsent_bytes_max
        self.received_bytes_max = received_bytes_max
        self.resets_max = resets_max
        self.pings_max = pings_max
        self.settings_max = settings_max
        self.idle_frames_max = idle_frames_max
        self.window_bytes = window_bytes
        self.connection_window_bytes = connection_window_bytes


cdef enum:
    SHARE_BYTES_MIN = 16 << 10
    MESSAGE_BYTES_BOUND = 1 << 30
    HEADER_BYTES_BOUND = 1 << 20


cdef inline Bucket new_bucket(int64_t size) noexcept nogil:
    return Bucket(size, size, 0.0)


cdef inline void add_tokens(Bucket* bucket, double tokens) noexcept nogil:
    """Beside those of time: for what we gave the peer reason to do."""
    bucket.tokens = min(bucket.size, bucket.tokens + tokens)


cdef inline bint take_token(Bucket* bucket, double now) noexcept nogil:
    """False: none is left."""
    cdef double passed = now - bucket.filled_at
    if passed > 0:
        bucket.filled_at = now
        bucket.tokens = min(bucket.size, bucket.tokens + passed * bucket.size)
    if bucket.tokens < 1:
        return False
    bucket.tokens -= 1
    return True
