"""Operations on objects of one pool."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memset
from posix.unistd cimport close, read, write

from kvstore._engine.primitives.native cimport kv_calloc, kv_free, kv_malloc

cdef extern from "<sys/eventfd.h>" nogil:
    int eventfd(unsigned int initial, int flags)
    int EFD_NONBLOCK, EFD_CLOEXEC

cdef extern from *:
    """
    /* True for the first one after all were taken. */
    static inline int kv_put_aside(void** newest, void** next, void* item) {
        void* before = __atomic_load_n(newest, __ATOMIC_RELAXED);
        do {
            *next = before;
        } while (!__atomic_compare_exchange_n(
            newest, &before, item, 1, __ATOMIC_RELEASE, __ATOMIC_RELAXED));
        return before == NULL;
    }
    static inline void* kv_take_all(void** newest) {
        return __atomic_exchange_n(newest, NULL, __ATOMIC_ACQUIRE);
    }
    """
    bint kv_put_aside(void** newest, void** next, void* item) noexcept nogil
    void* kv_take_all(void** newest) noexcept nogil

cdef enum:
    # Guards of a write, besides versions: the object isn't there yet, and is made; there is none.
    GUARD_ABSENT = -1
    GUARD_ANY = -2
    TEXT_BYTES = 4096
    DATA_BYTES_MAX = 1 << 26
    LISTED_MAX = 1024

ABSENT = GUARD_ABSENT
ANY = GUARD_ANY


cdef void op_finished(void* completion, void* argument) noexcept nogil:
    """On a thread of librados's."""
    cdef Op* op = <Op*> argument
    # It may be taken, and gone, as soon as it is put aside.
    cdef Finished* finished = op.finished
    cdef uint64_t one = 1
    if kv_put_aside(&finished.newest, &op.next, op):
        write(finished.event, &one, sizeof(one))


cdef class Operation:
    """What was asked of an object, and once ``finished`` what came of it.

    ``code``: 0, or an errno, negative. ``version``: of the object, where it is there. ``pairs``: of
    those that were asked for the ones that are there; ``more``: behind the last of a list there are
    others. ``data``: bytes that were read. ``done``: whatever the caller gave.
    """

    def __cinit__(self, Pool pool not None, object done):
        memset(&self.op, 0, sizeof(Op))
        self.pool = pool
        self.done = done
        self.op.finished = pool.finished
        self.op.owner = <PyObject*> self

    cdef int begin(self) except -1:
        """Make the completion."""
        cdef int code = rados.aio_create_completion(
            &self.op, op_finished, NULL, &self.op.completion
        )
        if code < 0:
            raise OSError(-code, "rados_aio_create_completion")
        return 0

    cdef int end(self) except -1:
        """Take in what came of it."""
        cdef char* key
        cdef char* value
        cdef size_t size
        if self.op.completion != NULL:
            self.code = rados.aio_get_return_value(self.op.completion)
            self.version = rados.aio_get_version(self.op.completion)
            rados.aio_release(self.op.completion)
            self.op.completion = NULL
        if self.code > 0:
            self.code = 0
        if self.code == 0 and self.op.part < 0:
            self.code = self.op.part
        if self.op.iterator != NULL:
            pairs = {}
            if self.code == 0:
                self.more = self.op.more != 0
                while True:
                    if rados.omap_get_next(self.op.iterator, &key, &value, &size) < 0 or key == NULL:
                        break
                    pairs[<bytes> key] = PyBytes_FromStringAndSize(value, size)
            rados.omap_get_end(self.op.iterator)
            self.op.iterator = NULL
            self.pairs = pairs
        if self.op.data != NULL:
            if self.code == 0:
                self.data = PyBytes_FromStringAndSize(self.op.data, self.op.data_bytes)
            kv_free(self.op.data)
            self.op.data = NULL
        self.finished = True
        return 0

    def __dealloc__(self):
        # Of one that was never begun.
        if self.op.iterator != NULL:
            rados.omap_get_end(self.op.iterator)
        if self.op.completion != NULL:
            rados.aio_release(self.op.completion)
        kv_free(self.op.data)

    def cancel(self):
        """Have it finish now, with ECANCELED; it may be done all the same. Nothing once it is."""
        if self.op.completion != NULL:
            rados.aio_cancel(self.pool.io, self.op.completion)


cdef class Pool:
    """A pool's namespace, through a client of its own. One thread, but for what says otherwise."""

    def __cinit__(self):
        self.finished = NULL
        self.cluster = NULL
        self.io = NULL

    def __init__(self, str user not None):
        """``user``: as ``client.kvstore``. Raises OSError."""
        if not loaded:
            raise OSError("librados isn't loaded")
        if self.cluster != NULL:
            raise OSError("made already")
        cdef Finished* finished = <Finished*> kv_calloc(1, sizeof(Finished))
        if finished == NULL:
            raise MemoryError
        finished.event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        if finished.event < 0:
            kv_free(finished)
            raise OSError("eventfd")
        self.finished = finished
        encoded = user.encode()
        cdef int code = rados.create2(&self.cluster, "ceph", encoded, 0)
        if code < 0:
            self.cluster = NULL
            raise OSError(-code, "rados_create2")

    def fileno(self):
        """Readable when something is finished."""
        return -1 if self.finished == NULL else self.finished.event

    def read_configuration(self, str path not None):
        """Raises OSError."""
        self._need_cluster()
        encoded = path.encode()
        cdef const char* name = encoded
        cdef int code
        with nogil:
            code = rados.conf_read_file(self.cluster, name)
        if code < 0:
            raise OSError(-code, "rados_conf_read_file")

    def set_option(self, str option not None, str value not None):
        """Raises OSError for an option that the library doesn't know."""
        self._need_cluster()
        cdef bytes name = option.encode(), text = value.encode()
        cdef int code = rados.conf_set(self.cluster, name, text)
        if code < 0:
            raise OSError(-code, f"rados_conf_set {option}")

    def option(self, str option not None):
        """What an option is; empty for one that isn't set, or isn't known."""
        self._need_cluster()
        cdef char[TEXT_BYTES] text
        cdef bytes name = option.encode()
        if rados.conf_get(self.cluster, name, text, TEXT_BYTES) < 0:
            return ""
        return (<bytes> text).decode("utf-8", "replace")

    def connect(self):
        """Meet the monitors; waits, without the GIL, as long as the options say. Raises OSError.

        On any thread, while no other one uses this.
        """
        self._need_cluster()
        cdef int code
        with nogil:
            code = rados.connect(self.cluster)
        if code < 0:
            raise OSError(-code, "rados_connect")

    def open(self, str pool not None, str namespace not None):
        """Open the pool, as :meth:`connect` connects."""
        self._need_cluster()
        cdef bytes name = pool.encode(), space = namespace.encode()
        cdef const char* name_text = name
        cdef int code
        if self.io != NULL:
            raise OSError("open already")
        with nogil:
            code = rados.ioctx_create(self.cluster, name_text, &self.io)
        if code < 0:
            self.io = NULL
            raise OSError(-code, "rados_ioctx_create")
        self.pool_name = name
        rados.ioctx_set_namespace(self.io, space)
        # What finds no room ends with ENOSPC or EDQUOT, instead of waiting for room.
        rados.set_full_try(self.io)

    def fsid(self):
        """The cluster's name for itself."""
        self._need_cluster()
        cdef char[64] text
        cdef int code
        with nogil:
            code = rados.cluster_fsid(self.cluster, text, 64)
        return "" if code < 0 else text[:code].decode("ascii", "replace")

    def is_there(self):
        """Whether the pool is the one that was opened, as far as this client has heard."""
        self._need_io()
        return rados.pool_lookup(self.cluster, self.pool_name) == rados.ioctx_get_id(self.io)

    def read_pairs(self, bytes name not None, list keys not None, object done=None):
        """Begin to read the pairs of an object that have ``keys``."""
        self._need_io()
        cdef Operation operation = Operation(self, done)
        cdef size_t count = len(keys)
        cdef const char** names = texts_of(keys)
        cdef void* request
        try:
            operation.begin()
            request = rados.create_read_op()
            rados.read_op_omap_get_vals_by_keys(
                request, names, count, &operation.op.iterator, &operation.op.part
            )
        finally:
            kv_free(names)
        self.submit_read(operation, request, name)
        return operation

    def list_pairs(
        self,
        bytes name not None,
        bytes after not None,
        bytes prefix not None,
        uint64_t most,
        object done,
    ):
        """Begin to read the pairs behind the key ``after``, in the order of their keys."""
        self._need_io()
        cdef Operation operation = Operation(self, done)
        operation.begin()
        cdef void* request = rados.create_read_op()
        rados.read_op_omap_get_vals2(
            request, after, prefix, most, &operation.op.iterator, &operation.op.more, &operation.op.part
        )
        self.submit_read(operation, request, name)
        return operation

    def read_data(self, bytes name not None, size_t most, object done):
        """Begin to read the bytes of an object, ``most`` at most."""
        self._need_io()
        if most > DATA_BYTES_MAX:
            raise ValueError("too many bytes")
        cdef Operation operation = Operation(self, done)
        operation.begin()
        operation.op.data = <char*> kv_malloc(most or 1)
        if operation.op.data == NULL:
            raise MemoryError
        cdef void* request = rados.create_read_op()
        rados.read_op_read(
            request, 0, most, operation.op.data, &operation.op.data_bytes, &operation.op.part
        )
        self.submit_read(operation, request, name)
        return operation

    cdef int submit_read(self, Operation operation, void* request, bytes name) except -1:
        cdef const char* text = name
        cdef void* completion = operation.op.completion
        cdef int code
        Py_INCREF(operation)
        self.under_way += 1
        with nogil:
            code = rados.aio_read_op_operate(request, self.io, completion, text, 0)
        rados.release_read_op(request)
        if code < 0:
            self.refused(operation, code)
        return 0

    def write(
        self,
        bytes name not None,
        int64_t guard,
        dict pairs,
        list removed,
        bytes data,
        object done,
        object size=None,
    ):
        """Begin to change an object in one go: set ``pairs``, remove those with the keys
        ``removed``, and let ``data`` be its bytes, or have as many of them as ``size`` says, zeros
        where there were none; None: leave them.

        ``guard``: its version, or ABSENT or ANY. Otherwise nothing is done, and the code is
        -ERANGE, -EOVERFLOW, -ENOENT or -EEXIST.
        """
        self._need_io()
        cdef Operation operation = Operation(self, done)
        cdef const char** keys = NULL
        cdef const char** values = NULL
        cdef size_t* sizes = NULL
        cdef size_t place = 0, count
        operation.begin()
        cdef void* request = rados.create_write_op()
        try:
            if guard == GUARD_ABSENT:
                rados.write_op_create(request, 1, NULL)
            elif guard >= 0:
                rados.write_op_assert_version(request, <uint64_t> guard)
            if data is not None:
                rados.write_op_write_full(request, data, PyBytes_GET_SIZE(data))
            if size is not None:
                rados.write_op_truncate(request, <uint64_t> size)
            if removed:
                keys = texts_of(removed)
                rados.write_op_omap_rm_keys(request, keys, len(removed))
                kv_free(keys)
                keys = NULL
            if pairs:
                count = len(pairs)
                # Its keys and values live as long as the dictionary, which nobody changes here.
                keys = texts_of(list(pairs))
                values = texts_of(list(pairs.values()))
                sizes = <size_t*> kv_malloc(count * sizeof(size_t))
                if sizes == NULL:
                    raise MemoryError
                for value in pairs.values():
                    sizes[place] = PyBytes_GET_SIZE(value)
                    place += 1
                rados.write_op_omap_set(request, keys, values, sizes, count)
            self.submit_write(operation, request, name)
        finally:
            rados.release_write_op(request)
            kv_free(keys)
            kv_free(values)
            kv_free(sizes)
        return operation

    def remove(self, bytes name not None, object done):
        """Begin to remove an object."""
        self._need_io()
        cdef Operation operation = Operation(self, done)
        operation.begin()
        cdef void* request = rados.create_write_op()
        rados.write_op_remove(request)
        try:
            self.submit_write(operation, request, name)
        finally:
            rados.release_write_op(request)
        return operation

    cdef int submit_write(self, Operation operation, void* request, bytes name) except -1:
        cdef const char* text = name
        cdef void* completion = operation.op.completion
        cdef int code
        Py_INCREF(operation)
        self.under_way += 1
        with nogil:
            code = rados.aio_write_op_operate(request, self.io, completion, text, NULL, 0)
        if code < 0:
            self.refused(operation, code)
        return 0

    cdef int refused(self, Operation operation, int code) except -1:
        """The library took it not; it finishes as all others do, with that code."""
        rados.aio_release(operation.op.completion)
        operation.op.completion = NULL
        operation.code = code
        op_finished(NULL, &operation.op)
        return 0

    def drain(self):
        """Take the operations that have finished, in the order in which they did."""
        cdef uint64_t signals
        cdef Op* op
        cdef Op* before = NULL
        cdef Op* next
        cdef Operation operation
        taken = []
        if self.finished == NULL:
            return taken
        # First: what is put aside from here on is taken here, or signals again.
        read(self.finished.event, &signals, sizeof(signals))
        op = <Op*> kv_take_all(&self.finished.newest)
        while op != NULL:
            next = <Op*> op.next
            op.next = before
            before = op
            op = next
        op = before
        while op != NULL:
            next = <Op*> op.next
            operation = <Operation> op.owner
            self.under_way -= 1
            operation.end()
            taken.append(operation)
            Py_DECREF(operation)
            op = next
        return taken

    def close(self):
        """Let go of the cluster; waits, without the GIL, for the library's threads.

        What is under way must have finished and been drained: with something left the client stays
        as it is until the process ends, and the answer is False.
        """
        cdef void* cluster = self.cluster
        cdef void* io = self.io
        if cluster == NULL or self.under_way:
            return cluster == NULL
        self.cluster = NULL
        self.io = NULL
        with nogil:
            if io != NULL:
                rados.ioctx_destroy(io)
            rados.shutdown(cluster)
        close(self.finished.event)
        kv_free(self.finished)
        self.finished = NULL
        return True

    def _need_cluster(self):
        if self.cluster == NULL:
            raise OSError("closed, or never made")

    def _need_io(self):
        if self.io == NULL:
            raise OSError("no pool is open")


cdef const char** texts_of(list texts) except NULL:
    """Where they begin; they must live as long as that. To be freed."""
    cdef size_t place = 0
    cdef const char** found = <const char**> kv_malloc((len(texts) or 1) * sizeof(char*))
    if found == NULL:
        raise MemoryError
    for text in texts:
        if not isinstance(text, bytes):
            kv_free(found)
            raise TypeError("expected bytes")
        found[place] = PyBytes_AS_STRING(text)
        place += 1
    return found



cdef class Listing:
    """Walks over the names of a namespace's objects, in no order that means anything.

    Waits, without the GIL, for the pool: on a thread of its own. One at a time; done with before
    the pool is closed.
    """

    cdef Pool pool
    cdef void* cursor
    cdef void* end

    def __cinit__(self, Pool pool not None):
        self.cursor = NULL
        self.end = NULL
        pool._need_io()
        self.pool = pool
        self.cursor = rados.object_list_begin(pool.io)
        self.end = rados.object_list_end(pool.io)

    def __dealloc__(self):
        if self.cursor != NULL and self.pool.io != NULL:
            rados.object_list_cursor_free(self.pool.io, self.cursor)
            rados.object_list_cursor_free(self.pool.io, self.end)

    def names(self, size_t most):
        """Some more of them, ``most`` or so; none at the end. Raises OSError."""
        cdef rados_item* items
        cdef void* next = NULL
        cdef int count
        cdef int place
        self.pool._need_io()
        found = []
        if not 0 < most <= LISTED_MAX:
            raise ValueError("most isn't from 1 to 1024")
        while not found and not rados.object_list_is_end(self.pool.io, self.cursor):
            items = <rados_item*> kv_calloc(most, sizeof(rados_item))
            if items == NULL:
                raise MemoryError
            # One that is there already is what it wants.
            next = rados.object_list_begin(self.pool.io)
            with nogil:
                count = rados.object_list(
                    self.pool.io, self.cursor, self.end, most, NULL, 0, items, &next
                )
            if count < 0:
                kv_free(items)
                rados.object_list_cursor_free(self.pool.io, next)
                raise OSError(-count, "rados_object_list")
            for place in range(count):
                found.append(items[place].oid[: items[place].oid_length])
            rados.object_list_free(count, items)
            kv_free(items)
            rados.object_list_cursor_free(self.pool.io, self.cursor)
            self.cursor = next
        return found
