"""Many keys and values at once, from arrays: no Python object for each.

While a batch goes into the memtable and the log, which takes the GIL (see memtable.pxd), a thread
beside makes the next one.
"""

cimport cython
from libc.stdint cimport uint32_t

from kvstore._engine.primitives.native cimport (
    Buffer,
    KIND_PUT,
    Slice,
    buffer_free,
    buffer_init,
    buffer_reserve,
    prefetch_run,
    put_fixed32,
    slice_of,
)

from kvstore.errors import InvalidArgumentError


cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_t:
        pass
    int pthread_create(
        pthread_t* thread, const void* attributes, void* (*start)(void*) noexcept nogil, void* given
    )
    int pthread_join(pthread_t thread, void** result)


cdef enum:
    WRITE_BYTES = 1 << 20       # what one hold of the GIL goes through at most (but one row)
    EXPECT_BYTES = 256          # of a value that is about to be copied


cdef struct Packer:
    # Makes batches of sorted rows.
    Rows rows
    Slice prefix
    size_t most_bytes
    Py_ssize_t done             # the first row that is in no batch yet
    Buffer batch
    bint no_memory


cdef void* pack(void* given) noexcept nogil:
    """As many of the rows that aren't done as make a batch; an empty one where none are left."""
    cdef Packer* packer = <Packer*> given
    cdef Rows* rows = &packer.rows
    cdef uint32_t count = 0
    cdef uint32_t row
    cdef Slice value
    packer.batch.size = 0
    if buffer_reserve(&packer.batch, BATCH_HEADER_BYTES) < 0:
        packer.no_memory = True
        return NULL
    packer.batch.size = BATCH_HEADER_BYTES
    while packer.done < rows.count and packer.batch.size < packer.most_bytes:
        rows_expect(rows, packer.done)
        if packer.done + AHEAD < rows.count:
            value = rows.values[rows.order[packer.done + AHEAD].row]
            prefetch_run(value.data, min(value.size, <size_t> EXPECT_BYTES))
        row = rows.order[packer.done].row
        if encode_operation(
            &packer.batch, KIND_PUT, False, 0, packer.prefix, rows.keys[row], rows.values[row]
        ) < 0:
            packer.no_memory = True
            return NULL
        packer.done += 1
        count += 1
    put_fixed32(packer.batch.data, count)
    return NULL


@cython.no_gc_clear
cdef class Batches:
    """The batches of one call, each made by a thread while the one before it is written."""
    cdef Database db
    cdef Column keys
    cdef Column values
    cdef Packer packer
    cdef Buffer present
    cdef pthread_t beside
    cdef bint running           # `beside` uses the packer

    def __cinit__(self, Database db, bytes prefix, Column keys, Column values):
        """The prefix is borrowed."""
        self.db = db
        self.keys = keys
        self.values = values
        self.running = False
        buffer_init(&self.packer.batch)
        buffer_init(&self.present)
        self.packer.prefix = slice_of(<const char*> prefix, len(prefix))
        self.packer.most_bytes = min(<size_t> WRITE_BYTES, db.write_buffer_bytes)
        self.packer.done = 0
        self.packer.no_memory = False
        if rows_open(&self.packer.rows, keys.rows) < 0:
            raise MemoryError("no memory for a chunk of rows")

    def __dealloc__(self):
        # After a fork in the middle (a signal's handler may) the child has no such thread.
        if self.running and not self.db.forked:
            with nogil:
                pthread_join(self.beside, NULL)
        rows_free(&self.packer.rows)
        buffer_free(&self.packer.batch)
        buffer_free(&self.present)

    cdef int take_rows(self, Py_ssize_t first) noexcept nogil:
        """The rows from `first` on, and their order. -1: nonsense."""
        cdef Rows* rows = &self.packer.rows
        cdef Py_ssize_t i
        rows.count = min(self.keys.rows - first, <Py_ssize_t> CHUNK_ROWS)
        self.packer.done = 0
        for i in range(rows.count):
            if self.keys.row(first + i, &rows.keys[i]) < 0:
                return -1
        rows_sort(rows)
        for i in range(rows.count):
            if self.values.row(first + i, &rows.values[i]) < 0:
                return -1
        return 0

    cdef bint next(self) except -1:
        """The next batch into `present`; False: all rows are done."""
        if not self.running and self.packer.done == self.packer.rows.count:
            return False
        self.db.check_open()    # else a child of a fork could wait for a thread that it doesn't have
        with nogil:
            if self.running:
                pthread_join(self.beside, NULL)
            else:
                pack(&self.packer)
        self.running = False
        if self.packer.no_memory:
            raise MemoryError("no memory for a batch")
        self.present, self.packer.batch = self.packer.batch, self.present
        # Without a thread the next batch is made when it is asked for.
        self.running = self.packer.done < self.packer.rows.count and (
            pthread_create(&self.beside, NULL, pack, &self.packer) == 0
        )
        return True


def put_many(Database db not None, bytes prefix not None, keys, values, bint sync):
    cdef Column key_column = Column(keys, "keys")
    cdef Column value_column = Column(values, "values")
    cdef Batches batches
    cdef Py_ssize_t first = 0
    cdef int code
    db.check_writable()
    if key_column.rows != value_column.rows:
        raise InvalidArgumentError(
            f"there are {key_column.rows} keys and {value_column.rows} values"
        )
    # All of it before anything is written.
    key_column.check(<size_t> len(prefix), MAX_KEY_BYTES)
    value_column.check(0, MAX_VALUE_BYTES)
    batches = Batches(db, prefix, key_column, value_column)
    while first < key_column.rows:
        with nogil:
            code = batches.take_rows(first)
        if code < 0:
            raise InvalidArgumentError("the columns' offsets changed while they were read")
        while batches.next():
            db.write_ascending(slice_of(batches.present.data, batches.present.size))
        first += batches.packer.rows.count
    if sync:
        db.sync()
    return key_column.rows
