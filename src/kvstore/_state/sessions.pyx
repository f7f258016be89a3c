"""Sessions; kvstore.state.sessions has their rules, their plain form and what is stored of them."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove, memset

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize

from kvstore._engine.primitives.native cimport kv_free, kv_realloc, put_fixed32, put_fixed64


cdef class Session:
    def __dealloc__(self):
        kv_free(self.words)
        kv_free(self.answers)

    cdef void advance(self, uint64_t floor) noexcept:
        """The client is done with everything below ``floor``."""
        cdef uint64_t gone
        if floor <= self.floor:
            return
        gone = min(floor - self.floor, <uint64_t> self.count)
        self.count -= <uint32_t> gone
        if self.count:
            memmove(self.words, self.words + gone, self.count * sizeof(uint64_t))
        gone = min(gone, <uint64_t> self.answered)
        self.answered -= <uint32_t> gone
        if self.answered:
            memmove(self.answers, self.answers + 2 * gone, 2 * self.answered * sizeof(uint64_t))
        self.floor = floor

    cdef uint64_t find(self, uint64_t sequence) noexcept:
        """The word of a sequence from the floor on, 0 if it was never applied."""
        cdef uint64_t at = sequence - self.floor
        return self.words[at] if at < self.count else 0

    cdef int remember(self, uint64_t sequence, uint64_t word) except -1:
        """``sequence``, from the floor on and within the window, was applied."""
        cdef uint64_t at = sequence - self.floor
        cdef uint32_t capacity
        cdef uint64_t* words
        if at >= SEQUENCES_OF_WINDOW:
            raise ValueError("a sequence outside its session's window")
        if at >= self.capacity:
            capacity = max(8, self.capacity)
            while capacity <= at:
                capacity *= 2
            words = <uint64_t*> kv_realloc(self.words, capacity * sizeof(uint64_t))
            if words == NULL:
                raise MemoryError("no memory for a session")
            self.words = words
            self.capacity = capacity
        if at >= self.count:
            memset(self.words + self.count, 0, (at + 1 - self.count) * sizeof(uint64_t))
            self.count = <uint32_t> at + 1
        self.words[at] = word
        return 0

    cdef int take_answers(self, bytes answers) except -1:
        """What operations came to, up to the last of them."""
        cdef size_t size = len(answers)
        self.answered = <uint32_t> (size // (2 * sizeof(uint64_t)))
        if size == 0:
            return 0
        self.answers = <uint64_t*> kv_realloc(self.answers, size)
        if self.answers == NULL:
            raise MemoryError("no memory for a session")
        memcpy(self.answers, PyBytes_AS_STRING(answers), size)
        return 0

    cdef tuple parts(self):
        return (
            self.floor, self.used_ms, self.used_index, self.used_place,
            PyBytes_FromStringAndSize(<const char*> self.words, self.count * sizeof(uint64_t)),
            PyBytes_FromStringAndSize(
                <const char*> self.answers, 2 * self.answered * sizeof(uint64_t)
            ),
        )

    cdef size_t record(self, uint8_t* at) noexcept:
        """Write what is stored of it; returns how many bytes that are."""
        cdef size_t size = SESSION_RECORD_BYTES + self.count * sizeof(uint64_t)
        cdef size_t answers = 2 * self.answered * sizeof(uint64_t)
        at[0] = SESSION_RECORD_VERSION_ANSWERS if self.answered else SESSION_RECORD_VERSION
        put_fixed64(at + 1, self.floor)
        put_fixed64(at + 9, self.used_ms)
        put_fixed64(at + 17, self.used_index)
        put_fixed32(at + 25, self.used_place)
        if self.count:
            memcpy(at + SESSION_RECORD_BYTES, self.words, self.count * sizeof(uint64_t))
        if self.answered == 0:
            return size
        memcpy(at + size, self.answers, answers)
        memset(at + size + answers, 0, 2 * self.count * sizeof(uint64_t) - answers)
        return size + 2 * self.count * sizeof(uint64_t)


cdef class Sessions:
    """See the stub."""

    def __init__(self, uint64_t sessions_max, uint64_t idle_ms, uint64_t spared_ms):
        self.sessions_max = sessions_max
        self._idle_ms = idle_ms
        self.spared_ms = spared_ms
        self.open = {}

    def __len__(self):
        return len(self.open)

    def restore(
        self, bytes name not None, uint64_t floor, uint64_t used_ms, uint64_t index,
        uint32_t place, bytes words not None, bytes answers not None,
    ):
        cdef Session session
        cdef uint32_t at
        cdef uint64_t word
        if len(words) % 8 or len(words) > SEQUENCES_OF_WINDOW * 8:
            raise ValueError("words of 8 bytes, no more than a window of them")
        if len(answers) % 16 or len(answers) > 2 * len(words):
            raise ValueError("answers of 16 bytes, no more than there are words")
        self.open.pop(name, None)
        self.begin(name, used_ms, index, place)
        session = self.open[name]
        session.floor = floor
        for at in range(len(words) // 8):
            memcpy(&word, <const char*> words + at * 8, 8)
            session.remember(floor + at, word)
        session.take_answers(answers)

    @property
    def idle_ms(self):
        return self._idle_ms

    def parts(self, bytes name not None):
        cdef Session session = self.open.get(name)
        return None if session is None else session.parts()

    cdef Session look(self, bytes name, uint64_t now_ms):
        cdef Session session = self.open.get(name)
        if session is None or session.used_ms + self._idle_ms <= now_ms:
            return None
        return session

    cdef Session use(self, bytes name, uint64_t now_ms, uint64_t index, uint32_t place):
        """The same, for a command of it that is applied."""
        cdef Session session = self.look(name, now_ms)
        if session is not None:
            session.used_ms = now_ms
            session.used_index = index
            session.used_place = place
            if session is not self.newest:
                del self.open[session.name]
                self.open[session.name] = session
                self.newest = session
        return session

    cdef list expire(self, uint64_t now_ms):
        cdef Session session
        cdef list due = None
        if now_ms < self.none_due_before:
            return None
        # Whatever is used from here on is due no sooner than this.
        self.none_due_before = now_ms + self._idle_ms
        for session in self.open.values():
            if session.used_ms + self._idle_ms > now_ms or (
                due is not None and len(due) == SESSIONS_EXPIRED_MAX
            ):
                self.none_due_before = session.used_ms + self._idle_ms
                break
            if due is None:
                due = []
            due.append(session.name)
        if due is not None:
            for name in due:
                del self.open[name]
            self.newest = None
        return due

    cdef object make_room(self, uint64_t now_ms):
        cdef Session session
        if <uint64_t> len(self.open) < self.sessions_max:
            return b""
        session = next(iter(self.open.values()))
        if session.used_ms + self.spared_ms > now_ms:
            return None
        del self.open[session.name]
        self.newest = None
        return session.name

    cdef bint begin(self, bytes name, uint64_t now_ms, uint64_t index, uint32_t place) except -1:
        """Begin a session; False if there is one of that name."""
        cdef Session session
        if name in self.open:
            return False
        session = Session.__new__(Session)
        session.name = name
        session.floor = 1
        session.used_ms = now_ms
        session.used_index = index
        session.used_place = place
        self.open[name] = session
        self.newest = session
        # Where the log's clock was behind, it may be due sooner than all others.
        self.none_due_before = min(self.none_due_before, now_ms + self._idle_ms)
        return True
