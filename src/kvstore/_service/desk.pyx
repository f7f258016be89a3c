"""The desk of a service: from calls to the bytes of entries, and from results back to calls."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.math cimport INFINITY, NAN, isnan
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from kvstore._engine.primitives.native cimport Slice, slice_of
from kvstore._state.native cimport (
    Applying,
    COMMAND_BYTES,
    COMMAND_DELETE,
    COMMAND_KEY_BYTES_MAX,
    COMMAND_OPEN,
    COMMAND_PUT,
    COMMAND_VALUE_BYTES_MAX,
    Command,
    ENTRY_HEAD_BYTES_MAX,
    FORM_BYTES_MAX,
    FORM_PLAIN,
    FORM_SENT_BEFORE,
    FORM_SESSION,
    REQUEST_BYTES,
    RESULT_UNKNOWN,
    SEQUENCES_OF_WINDOW,
    digest_request,
    fingerprint_of,
    write_command,
    write_entry_head,
)

from kvstore.errors import Error, StorageError

cdef enum:
    ASKED_PUT = 0
    ASKED_GET = 1
    ASKED_DELETE = 2
    ASKED_OPEN_SESSION = 3
    REQUEST_ID_BYTES_MAX = 4096

cdef uint64_t LAST_SEQUENCE = (<uint64_t> 1 << 63) - 1

# What memory can't tell.
cdef object COLD = object()


cdef inline Slice bytes_slice(bytes data):
    return slice_of(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))


cdef class Waiter:
    pass


cdef class Read(Waiter):
    """See the stub."""


cdef class Write(Waiter):
    cdef size_t size(self) noexcept:
        """What the command takes in an entry, at most."""
        return COMMAND_BYTES + FORM_BYTES_MAX + self.command.key.size + self.command.value.size

    cdef bint is_over(self, double now) noexcept:
        """Nobody waits for it any more."""
        cdef Waiter twin
        if not (self.decided or self.deadline <= now):
            return False
        if self.twins is not None:
            for twin in self.twins:
                if not (twin.decided or twin.deadline <= now):
                    return False
        return True


cdef class Answers:
    def __cinit__(self):
        self.calls = []
        self.results = []

    cdef int add(self, Waiter waiter, object result) except -1:
        if waiter.answered is not self.answered:
            if self.calls:
                if self.complete is None:
                    self.complete = []
                self.complete.append((self.answered, self.calls, self.results))
                self.calls = []
                self.results = []
            self.answered = waiter.answered
        self.calls.append(waiter.call)
        self.results.append(result)
        return 0

    cdef int give(self) except -1:
        """Hand all of them back; everything else must have been done before."""
        if self.complete is not None:
            for answered, calls, results in self.complete:
                answered(calls, results)
        if self.calls:
            self.answered(self.calls, self.results)
        return 0


cdef class Entry:
    """See the stub."""

    def answer(self, outcome):
        cdef Desk desk = self.desk
        cdef Answers answers = Answers.__new__(Answers)
        cdef list writes = self.writes
        cdef bytes codes
        cdef const uint8_t* code
        cdef Py_ssize_t place
        cdef Write write
        desk.open.pop(self, None)
        if isinstance(outcome, Error):
            for write in writes:
                if desk.writes_under_way.get(write.identity) is write:
                    del desk.writes_under_way[write.identity]
                desk.decide_write(write, outcome, answers)
        else:
            codes = outcome
            code = <const uint8_t*> PyBytes_AS_STRING(codes)
            if len(codes) != len(writes):
                raise ValueError(f"{len(codes)} results for {len(writes)} commands")
            for place in range(len(writes)):
                write = writes[place]
                if desk.writes_under_way.get(write.identity) is write:
                    del desk.writes_under_way[write.identity]
                if code[place] < 2:
                    result = code[place] == 1
                else:
                    result = desk.limits.result_of(code[place])
                desk.decide_write(write, result, answers)
        answers.give()


cdef class Point:
    """See the stub."""

    def __len__(self):
        return len(self.reads) - self.next

    def refuse(self, reason):
        cdef Answers answers = Answers.__new__(Answers)
        cdef Read read
        self.desk.open.pop(self, None)
        for read in self.reads:
            self.desk.decide_one(read, reason, answers)
        answers.give()

    def read(self, machine, failed, Py_ssize_t most):
        cdef Desk desk = self.desk
        cdef Answers answers = Answers.__new__(Answers)
        cdef Applying applying = applying_of(machine)
        cdef uint8_t stored_key[1 + COMMAND_KEY_BYTES_MAX]
        cdef list cold = []
        cdef size_t bytes_read = 0
        cdef Py_ssize_t end = min(self.next + most, <Py_ssize_t> len(self.reads))
        cdef Read read
        desk.open.pop(self, None)
        stored_key[0] = 1
        if applying is not None:
            applying.db.check_open()
        while self.next < end and bytes_read < desk.answer_bytes_max:
            read = self.reads[self.next]
            self.next += 1
            if read.decided:
                continue
            try:
                if applying is None:
                    result = machine.get_cached(read.key)
                    if result is not None and not isinstance(result, bytes):
                        result = COLD
                else:
                    memcpy(
                        stored_key + 1, PyBytes_AS_STRING(read.key), PyBytes_GET_SIZE(read.key)
                    )
                    result = applying.value_cached(
                        slice_of(stored_key, 1 + PyBytes_GET_SIZE(read.key)), COLD
                    )
            except StorageError as damage:
                result = failed(damage)
            if result is COLD:
                cold.append(read)
                continue
            if isinstance(result, bytes):
                bytes_read += PyBytes_GET_SIZE(result)
            desk.decide_one(read, result, answers)
        answers.give()
        return cold


cdef Applying applying_of(object machine):
    """What applies entries where that is native, else None."""
    applying = getattr(machine, "applying", None)
    return <Applying> applying if isinstance(applying, Applying) else None


cdef class Desk:
    """See the stub."""

    def __init__(self, limits):
        self.limits = limits
        self.calls_max = limits.calls_max
        self.gathered_bytes_max = limits.gathered_bytes_max
        self.entry_commands_max = limits.entry_commands_max
        self.entry_bytes_max = limits.entry_bytes_max
        self.answer_bytes_max = limits.answer_bytes_max
        self.delay_s = limits.delay_s
        self.gathered_writes = []
        self.gathered_reads = []
        self.writes_under_way = {}
        self.open = {}
        self.earliest = INFINITY

    @property
    def reads(self):
        return len(self.gathered_reads)

    @property
    def writes(self):
        return len(self.gathered_writes)

    @property
    def under_way(self):
        return len(self.writes_under_way)

    @property
    def fills_entry(self):
        return (
            len(self.gathered_writes) >= self.entry_commands_max
            or self.write_bytes >= self.entry_bytes_max
        )

    # --- calls come in -------------------------------------------------------------------------

    def take(self, calls, answered, double now, refusal, machine):
        cdef list decided = []
        cdef list results = []
        cdef Applying applying = None if machine is None else applying_of(machine)
        for call in calls:
            result = self.take_one(call, answered, now, refusal, machine, applying)
            if result is not None:
                decided.append(call)
                results.append(result)
        if decided:
            answered(decided, results)

    cdef object take_one(
        self, object call, object answered, double now, object refusal, object machine,
        Applying applying
    ):
        """Its result if that is known at once, which is never None."""
        cdef int method = call.method
        cdef bytes key = call.key
        cdef bytes value = call.value
        cdef bytes request_id = call.request_id
        cdef Py_ssize_t key_bytes = len(key)
        cdef double deadline = call.deadline
        cdef Read read
        cdef Write write
        if method != ASKED_OPEN_SESSION and (
            key_bytes == 0 or key_bytes > COMMAND_KEY_BYTES_MAX or method != ASKED_GET and (
                len(request_id) == 0 or len(request_id) > REQUEST_ID_BYTES_MAX
                or len(value) > COMMAND_VALUE_BYTES_MAX
            )
        ):
            wrong = self.limits.breach(method, key_bytes, len(value), len(request_id))
            if wrong is not None:
                return wrong
        if deadline <= now:
            return self.limits.came_late()
        if self.waiting >= self.calls_max or self.write_bytes >= self.gathered_bytes_max:
            return self.limits.overloaded(self.waiting)
        if refusal is not None or machine is None:
            return refusal
        if method == ASKED_GET:
            read = Read.__new__(Read)
            read.call = call
            read.answered = answered
            read.deadline = deadline
            read.key = key
            self.gathered_reads.append(read)
            self.waiting += 1
            self.earliest = min(self.earliest, deadline)
            return None
        if method == ASKED_OPEN_SESSION:
            if len(request_id) != REQUEST_BYTES:
                raise ValueError("a session's id has 16 bytes")
            write = Write.__new__(Write)
            write.call = call
            write.answered = answered
            write.deadline = deadline
            write.sent_at = NAN
            write.command.kind = COMMAND_OPEN
            memcpy(write.request, PyBytes_AS_STRING(request_id), REQUEST_BYTES)
            write.identity = request_id
            self.gather(write)
            return None
        return self.take_write(
            call, answered, now, deadline, method, key, value, request_id, machine, applying
        )

    cdef object take_write(
        self, object call, object answered, double now, double deadline, int method, bytes key,
        bytes value, bytes request_id, object machine, Applying applying
    ):
        """Answer a write that was done before, join one under way, or make it a new one."""
        cdef Write write = Write.__new__(Write)
        cdef Command* command = &write.command
        cdef Write twin
        cdef Waiter waiter
        cdef int code
        command.key = bytes_slice(key)
        if method == ASKED_PUT:
            command.kind = COMMAND_PUT
            command.value = bytes_slice(value)
        else:
            command.kind = COMMAND_DELETE
        if read_session_id(
            bytes_slice(request_id), write.request, &command.sequence, &command.floor
        ):
            if (
                command.floor > command.sequence or command.sequence > LAST_SEQUENCE
                or command.sequence - command.floor >= SEQUENCES_OF_WINDOW
            ):
                return self.limits.outside_window(command.sequence, command.floor)
            command.form = FORM_SESSION
            write.identity = PyBytes_FromStringAndSize(NULL, REQUEST_BYTES + 8)
            memcpy(PyBytes_AS_STRING(write.identity), write.request, REQUEST_BYTES)
            memcpy(PyBytes_AS_STRING(write.identity) + REQUEST_BYTES, &command.sequence, 8)
        else:
            digest_request(bytes_slice(request_id), write.request)
            command.sequence = command.floor = 0
            write.identity = (<char*> write.request)[:REQUEST_BYTES]
        command.fingerprint = fingerprint_of(command.kind, command.key, command.value)
        if applying is not None:
            code = applying.known_result(write.request, command.fingerprint, command.sequence)
            if code != RESULT_UNKNOWN:
                return code == 1 if code < 2 else self.limits.result_of(code)
        else:
            before = machine.first_result(
                (<char*> write.request)[:REQUEST_BYTES],
                (<char*> &command.fingerprint)[:8], command.sequence
            )
            if before is not None:
                return before
        twin = self.writes_under_way.get(write.identity)
        if twin is not None and twin.command.fingerprint == command.fingerprint:
            waiter = Waiter.__new__(Waiter)
            waiter.call = call
            waiter.answered = answered
            waiter.deadline = deadline
            if twin.twins is None:
                twin.twins = []
            twin.twins.append(waiter)
            self.waiting += 1
            self.earliest = min(self.earliest, deadline)
            return None
        # An id that is under way for something else is proposed as well: the log decides which of
        # the two came first, and refuses the other.
        write.call = call
        write.answered = answered
        write.deadline = deadline
        write.key = key
        write.value = value
        write.sent_at = NAN
        if command.sequence == 0:
            age_s = call.age_s
            if age_s is not None:
                command.form = FORM_SENT_BEFORE
                write.sent_at = now - <double> age_s - self.delay_s
        self.gather(write)
        return None

    cdef int gather(self, Write write) except -1:
        write.command.request = write.request
        self.writes_under_way[write.identity] = write
        self.gathered_writes.append(write)
        self.write_bytes += write.size()
        self.waiting += 1
        self.earliest = min(self.earliest, write.deadline)
        return 0

    # --- and go on -----------------------------------------------------------------------------

    def next_entry(self, double now, uint64_t time_ms, uint64_t guard=0):
        cdef Answers answers = Answers.__new__(Answers)
        cdef list chosen = []
        cdef list gathered = self.gathered_writes
        cdef Py_ssize_t taken = 0
        cdef size_t size
        cdef size_t room = self.entry_bytes_max
        cdef size_t total = ENTRY_HEAD_BYTES_MAX
        cdef uint8_t* at
        cdef uint8_t* begin
        cdef double elapsed_ms
        cdef Write write
        cdef Entry entry = None
        for write in gathered:
            if write.is_over(now):
                self.forget(write)
                self.decide_write(write, self.limits.expired(), answers)
                taken += 1
                continue
            size = write.size()
            if chosen and (size > room or len(chosen) >= self.entry_commands_max):
                break
            chosen.append(write)
            room = room - size if room > size else 0
            total += size
            taken += 1
        if taken == len(gathered):
            self.gathered_writes = []
        else:
            del gathered[:taken]
        if chosen:
            entry = Entry.__new__(Entry)
            entry.desk = self
            entry.writes = chosen
            # As large as it may be, and cut to what it is.
            data = PyBytes_FromStringAndSize(NULL, total)
            begin = <uint8_t*> PyBytes_AS_STRING(data)
            at = write_entry_head(begin, time_ms, <uint32_t> len(chosen), guard)
            for write in chosen:
                self.write_bytes -= write.size()
                if not isnan(write.sent_at):
                    # The log's clock runs no faster than ours: it was not earlier there.
                    elapsed_ms = (now - write.sent_at) * 1000
                    write.command.since = (
                        time_ms - <uint64_t> elapsed_ms - 1 if elapsed_ms + 1 < time_ms else 0
                    )
                at = write_command(at, &write.command)
            entry.data = data[: at - begin]
            self.open[entry] = None
        answers.give()
        return entry

    def next_point(self, double now):
        cdef Answers answers = Answers.__new__(Answers)
        cdef list reads = self.gathered_reads
        cdef list late = []
        cdef Point point = None
        cdef Read read
        self.gathered_reads = []
        if self.earliest <= now:
            late = [read for read in reads if read.deadline <= now]
            reads = [read for read in reads if read.deadline > now]
        if reads:
            point = Point.__new__(Point)
            point.desk = self
            point.reads = reads
            self.open[point] = None
        for read in late:
            self.decide_one(read, self.limits.expired(), answers)
        answers.give()
        return point

    def refuse(self, reason):
        cdef Answers answers = Answers.__new__(Answers)
        cdef list writes = self.gathered_writes
        cdef list reads = self.gathered_reads
        cdef Write write
        cdef Read read
        self.gathered_writes = []
        self.gathered_reads = []
        for write in writes:
            self.forget(write)
            self.decide_write(write, reason, answers)
        for read in reads:
            self.decide_one(read, reason, answers)
        answers.give()

    def new_reign(self):
        cdef Write write
        self.writes_under_way = {}
        for write in self.gathered_writes:
            self.writes_under_way[write.identity] = write

    def decide(self, waiters, results):
        cdef Answers answers = Answers.__new__(Answers)
        for waiter, result in zip(waiters, results, strict=True):
            self.decide_one(waiter, result, answers)
        answers.give()

    # --- or expire -----------------------------------------------------------------------------

    def expire(self, double now):
        cdef Answers answers = Answers.__new__(Answers)
        cdef list kept
        cdef Write write
        cdef Read read
        cdef Waiter twin
        if now < self.earliest:
            return
        self.earliest = INFINITY
        self.expire_open(now, answers)
        kept = []
        for read in self.gathered_reads:
            if self.watch(read, now, answers):
                kept.append(read)
        self.gathered_reads = kept
        kept = []
        for write in self.gathered_writes:
            if write.is_over(now):
                self.forget(write)
            else:
                kept.append(write)
            self.watch(write, now, answers)
            if write.twins is not None:
                for twin in write.twins:
                    self.watch(twin, now, answers)
        self.gathered_writes = kept
        answers.give()

    def expire_reads(self, reads, double now):
        cdef Answers answers = Answers.__new__(Answers)
        cdef Read read
        for read in reads:
            if read.deadline <= now:
                self.decide_one(read, self.limits.expired(), answers)
        answers.give()

    cdef int expire_open(self, double now, Answers answers) except -1:
        cdef Waiter waiter, twin
        cdef list waiters
        cdef bint is_over
        cdef Write write
        for open_one in list(self.open):
            waiters = (<Entry> open_one).writes if isinstance(open_one, Entry) else (
                (<Point> open_one).reads
            )
            is_over = True
            for waiter in waiters:
                if self.watch(waiter, now, answers):
                    is_over = False
                if isinstance(waiter, Write) and (<Write> waiter).twins is not None:
                    write = <Write> waiter
                    for twin in write.twins:
                        if self.watch(twin, now, answers):
                            is_over = False
            if is_over and not self.may_be_joined(open_one):
                # Whoever leads no more may never answer.
                self.open.pop(open_one, None)
        return 0

    cdef bint watch(self, Waiter waiter, double now, Answers answers) except -1:
        """Give it up if its time is over; whether it waits on."""
        if waiter.decided:
            return False
        if waiter.deadline <= now:
            self.decide_one(waiter, self.limits.expired(), answers)
            return False
        self.earliest = min(self.earliest, waiter.deadline)
        return True

    cdef bint may_be_joined(self, object open_one) except -1:
        """A retry of one of its writes would wait for it."""
        cdef Write write
        if not isinstance(open_one, Entry):
            return False
        for write in (<Entry> open_one).writes:
            if self.writes_under_way.get(write.identity) is write:
                return True
        return False

    cdef int forget(self, Write write) except -1:
        """It won't be proposed."""
        self.write_bytes -= write.size()
        if self.writes_under_way.get(write.identity) is write:
            del self.writes_under_way[write.identity]
        return 0

    cdef int decide_one(self, Waiter waiter, object result, Answers answers) except -1:
        if waiter.decided:
            return 0
        waiter.decided = True
        self.waiting -= 1
        return answers.add(waiter, result)

    cdef int decide_write(self, Write write, object result, Answers answers) except -1:
        cdef Waiter twin
        self.decide_one(write, result, answers)
        if write.twins is not None:
            for twin in write.twins:
                self.decide_one(twin, result, answers)
        return 0
