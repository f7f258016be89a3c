"""An in-memory disk that can lose power, run full and fail; see memory_disk.pxd and memory_tree.pyx."""

import errno
import os
import random as random_module

cimport cython
from cpython.exc cimport PyErr_WriteUnraisable
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport EFAULT, EOPNOTSUPP
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

from kvstore._engine.primitives.native cimport has_gil

from kvstore.errors import InvalidArgumentError

cdef frozenset OPERATIONS = frozenset((
    "open", "close", "pwrite", "pread", "write_back", "datasync", "allocate", "truncate", "size",
    "rename", "link", "unlink", "make_directory", "remove_directory", "sync_directory", "list", "kind",
    "lock", "lock_shared", "free_bytes",
))
# Those that may change the disk: what stop_at() counts.
cdef frozenset CHANGES = frozenset((
    "create", "pwrite", "datasync", "allocate", "truncate", "rename", "link", "unlink",
    "make_directory", "remove_directory", "sync_directory",
))
cdef frozenset KEEP = frozenset(("none", "prefix", "random", "all"))


cdef class Fault:
    """One fault asked for and not used up."""
    cdef str operation
    cdef int error              # errno, or 0: a short read
    cdef int wait               # calls that still go well
    cdef bint always
    cdef str path               # only files whose path contains this


cdef class Handle:
    pass


cdef object failure(int number, str path):
    return OSError(number, os.strerror(number), path)


# Tables and logs close their files when they are freed: the collector must not empty this before.
@cython.no_gc_clear
cdef class MemoryFileSystem(FileSystem):
    def __cinit__(self):
        self.ops = &MEMORY_OPS
        self.disk = <void*> self
        self.tree = Tree()
        self.counts = dict.fromkeys(sorted(OPERATIONS), 0)
        self.faults = []

    def __init__(self, *, capacity_bytes=None):
        self.capacity_bytes = capacity_bytes

    def resolve(self, str path):
        # There are no links here, and the working directory is the root.
        if not path or "\0" in path:
            raise InvalidArgumentError(f"{path!r} is no usable path")
        return os.path.normpath("/" + path.lstrip("/"))

    # --- faults --------------------------------------------------------------------------------

    def fail(self, str operation, int error, *, int at=1, bint always=False, str path=""):
        if operation not in OPERATIONS:
            raise ValueError(f"unknown operation {operation!r}")
        if at < 1 or error < 1:
            raise ValueError("at and error must be positive")
        self.add_fault(operation, error, at, always, path)

    def shorten_read(self, *, int at=1, bint always=False, str path=""):
        self.add_fault("pread", 0, at, always, path)

    cdef int add_fault(self, str operation, int error, int at, bint always, str path) except -1:
        cdef Fault fault = Fault()
        fault.operation = operation
        fault.error = error
        fault.wait = at - 1
        fault.always = always
        fault.path = path
        self.faults.append(fault)
        return 0

    def heal(self):
        self.faults.clear()

    def stop_at(self, int operation):
        if operation <= self.operations:
            raise ValueError(f"operation {operation} is past; {self.operations} were done")
        self.stop = operation

    cdef int begin(self, str operation, str path) except -1:
        """Counts an operation and applies faults; 1 if it is a read that must be short."""
        cdef Fault fault
        cdef int short = 0
        if operation in OPERATIONS:
            self.counts[operation] += 1
        if self.stopping:
            # The operation to stop at was refused for another reason: it had nothing to act on.
            self.stopping = False
            self.stopped = True
        if self.stopped:
            raise failure(errno.EIO, path)
        if self.on_operation is not None:
            self.on_operation(operation, path)
        for fault in list(self.faults):
            if fault.operation != operation or fault.path not in path:
                continue
            if fault.wait:
                fault.wait -= 1
                continue
            if not fault.always:
                self.faults.remove(fault)
            if fault.error:
                raise failure(fault.error, path)
            short = 1
        if operation in CHANGES:
            self.operations += 1
            self.stopping = self.operations == self.stop
        return short

    cdef int end(self) except -1:
        """After an operation that changes the disk: the one that we stop at fails, though it acted."""
        if self.stopping:
            self.stopping = False
            self.stopped = True
            raise failure(errno.EIO, "")
        return 0

    cdef void claim(self, int64_t more) except *:
        if self.capacity_bytes is not None and more > self.capacity_bytes - self.used_bytes:
            raise failure(errno.ENOSPC, "")

    @property
    def used_bytes(self):
        return sum(len((<Inode> self.tree.find(path)).data) for path in self.files())

    # --- power loss ----------------------------------------------------------------------------

    def crash(self, random=None, keep="none"):
        if keep not in KEEP:
            raise ValueError(f"keep={keep!r} is not one of {sorted(KEEP)}")
        cdef MemoryFileSystem result = MemoryFileSystem(capacity_bytes=self.capacity_bytes)
        if random is None:
            random = random_module.Random(0)
        result.tree = self.tree.copy().survivor(keep, random)
        return result

    # --- contents, for tests -------------------------------------------------------------------

    def exists(self, path):
        return self.tree.find(os.fspath(path)) is not None

    def names(self, path="/"):
        return sorted((<Directory> self.directory(os.fspath(path))).entries)

    def files(self, path="/"):
        cdef list waiting = [(os.fspath(path).rstrip("/"), self.directory(os.fspath(path)))]
        cdef list found = []
        while waiting:
            prefix, directory = waiting.pop()
            for name, node in (<Directory> directory).entries.items():
                if isinstance(node, Directory):
                    waiting.append((f"{prefix}/{name}", node))
                else:
                    found.append(f"{prefix}/{name}")
        return sorted(found)

    def unsynced_files(self):
        result = []
        for path in self.files():
            inode = <Inode> self.tree.find(path)
            if (<Inode> inode).journal:
                result.append(path)
        return result

    def read_file(self, path):
        cdef Inode inode = self.file(os.fspath(path))
        return bytes(inode.data)

    def write_file(self, path, content):
        cdef Inode inode = Inode()
        cdef Directory directory = self.make_directories(os.path.dirname(os.fspath(path)))
        inode.durable = bytearray(content)
        inode.data = bytearray(content)
        name = os.path.basename(os.fspath(path))
        directory.entries[name] = inode
        directory.durable[name] = inode

    def make_directories(self, path):
        cdef Directory directory = self.tree.root
        for part in os.fspath(path).split("/"):
            if part:
                if part not in directory.entries:
                    directory.entries[part] = Directory()
                directory.durable[part] = directory.entries[part]
                directory = directory.entries[part]
        return directory

    def remove_file(self, path):
        self.file(os.fspath(path))
        directory, name = self.tree.parent_of(os.fspath(path))
        del (<Directory> directory).entries[name]
        (<Directory> directory).durable.pop(name, None)

    def copy(self, source, target):
        node = self.tree.find(os.fspath(source))
        if isinstance(node, Inode):
            self.write_file(target, self.read_file(source))
            return
        base = os.fspath(source).rstrip("/")
        self.make_directories(target)
        for path in self.files(base):
            self.write_file(os.fspath(target).rstrip("/") + path[len(base) :], self.read_file(path))

    def flip_bit(self, path, offset, bit=0):
        cdef Inode inode = self.file(os.fspath(path))
        if not 0 <= offset < len(inode.data):
            raise ValueError(f"{path} has no byte {offset}")
        inode.data[offset] ^= 1 << bit
        if offset < len(inode.durable):
            inode.durable[offset] ^= 1 << bit

    # --- for the table -------------------------------------------------------------------------

    cdef object directory(self, str path):
        node = self.tree.find(path)
        if node is None:
            raise failure(errno.ENOENT, path)
        if not isinstance(node, Directory):
            raise failure(errno.ENOTDIR, path)
        return node

    cdef object file(self, str path):
        node = self.tree.find(path)
        if node is None:
            raise failure(errno.ENOENT, path)
        if isinstance(node, Directory):
            raise failure(errno.EISDIR, path)
        return node

    cdef Handle open_file(self, str path, int mode):
        cdef Handle handle = Handle()
        self.begin("open", path)
        node = self.tree.find(path)
        if isinstance(node, Directory):
            raise failure(errno.EISDIR, path)
        if node is None:
            if mode != OPEN_CREATE and mode != OPEN_EXCLUSIVE:
                raise failure(errno.ENOENT, path)
            directory, name = self.tree.parent_of(path)
            self.begin("create", path)
            node = Inode()
            self.tree.change(((directory, name, node),))
            self.end()
        elif mode == OPEN_EXCLUSIVE:
            raise failure(errno.EEXIST, path)
        handle.inode = node
        handle.path = path
        handle.writable = mode != OPEN_READ
        return handle

    cdef int write_at(self, Handle handle, bytes content, uint64_t offset) except -1:
        cdef int64_t more = <int64_t> (offset + len(content)) - <int64_t> len(handle.inode.data)
        self.begin("pwrite", handle.path)
        if not handle.writable:
            raise failure(errno.EBADF, handle.path)
        if more > 0 and self.capacity_bytes is not None:
            fits = max(self.capacity_bytes - self.used_bytes, 0)
            if fits < more:
                # As the system does: what fits is written, and only then it says that no more does.
                content = content[: max(len(content) - (more - fits), 0)]
                handle.inode.write(self.tree.next_sequence(), offset, content)
                raise failure(errno.ENOSPC, handle.path)
        handle.inode.write(self.tree.next_sequence(), offset, content)
        self.end()
        return 0

    cdef int begin_writing_back(self, str operation, Handle handle) except -1:
        try:
            self.begin(operation, handle.path)
        except OSError:
            if not self.stopped:
                handle.inode.forget()
            raise
        return 0

    cdef int sync_file(self, Handle handle) except -1:
        self.begin_writing_back("datasync", handle)
        self.end()
        handle.inode.sync()
        return 0

    cdef int allocate_file(self, Handle handle, uint64_t size) except -1:
        cdef int64_t more = <int64_t> size - <int64_t> len(handle.inode.data)
        self.begin("allocate", handle.path)
        if more > 0:
            self.claim(more)
            handle.inode.resize(self.tree.next_sequence(), size)
        self.end()
        return 0

    cdef int truncate_file(self, Handle handle, uint64_t size) except -1:
        cdef int64_t more = <int64_t> size - <int64_t> len(handle.inode.data)
        self.begin("truncate", handle.path)
        if more > 0:
            self.claim(more)
        handle.inode.resize(self.tree.next_sequence(), size)
        self.end()
        return 0

    cdef int rename_node(self, str old, str new) except -1:
        self.begin("rename", old)
        source, old_name = self.tree.parent_of(old)
        target, new_name = self.tree.parent_of(new)
        node = (<Directory> source).entries.get(old_name)
        replaced = (<Directory> target).entries.get(new_name)
        if node is None:
            raise failure(errno.ENOENT, old)
        if isinstance(replaced, Directory):
            if not isinstance(node, Directory):
                raise failure(errno.EISDIR, new)
            if (<Directory> replaced).entries:
                raise failure(errno.ENOTEMPTY, new)
        elif replaced is not None and isinstance(node, Directory):
            raise failure(errno.ENOTDIR, new)
        if replaced is not node:
            self.tree.change(((source, old_name, None), (target, new_name, node)))
        self.end()
        return 0

    cdef int link_file(self, str old, str new) except -1:
        self.begin("link", old)
        node = self.file(old)
        directory, name = self.tree.parent_of(new)
        if name in (<Directory> directory).entries:
            raise failure(errno.EEXIST, new)
        self.tree.change(((directory, name, node),))
        self.end()
        return 0

    cdef int unlink_file(self, str path) except -1:
        cdef Inode inode
        self.begin("unlink", path)
        inode = self.file(path)
        directory, name = self.tree.parent_of(path)
        self.tree.change(((directory, name, None),))
        inode.given_back = not self.tree.names(inode)
        self.end()
        return 0

    cdef int add_directory(self, str path) except -1:
        self.begin("make_directory", path)
        if self.tree.find(path) is not None:
            raise failure(errno.EEXIST, path)
        parent, name = self.tree.parent_of(path)
        self.tree.change(((parent, name, Directory()),))
        self.end()
        return 0

    cdef int drop_directory(self, str path) except -1:
        self.begin("remove_directory", path)
        if (<Directory> self.directory(path)).entries:
            raise failure(errno.ENOTEMPTY, path)
        parent, name = self.tree.parent_of(path)
        self.tree.change(((parent, name, None),))
        self.end()
        return 0

    cdef int sync_names(self, str path) except -1:
        self.begin("sync_directory", path)
        directory = self.directory(path)
        self.end()
        self.tree.sync_directory(directory)
        return 0

    cdef Handle lock_file(self, str path):
        cdef Handle handle
        self.begin("lock", path)
        handle = self.open_file(path, OPEN_CREATE)
        if handle.inode.locks:
            raise failure(errno.EWOULDBLOCK, path)
        handle.inode.locks = handle.lock = -1
        return handle

    def lock_file_shared(self, str path):
        cdef Handle handle
        self.begin("lock_shared", path)
        handle = self.open_file(path, OPEN_READ)
        if handle.inode.locks < 0:
            raise failure(errno.EWOULDBLOCK, path)
        handle.inode.locks += 1
        handle.lock = 1
        return handle


# --- the table -------------------------------------------------------------------------------------

cdef inline str decoded(const char* path):
    return os.fsdecode(<bytes> path)


cdef int refused(object error) noexcept:
    """What the table answers for `error`: a hook's own error must not look like success either."""
    if isinstance(error, OSError) and error.errno:
        return -<int> error.errno
    PyErr_WriteUnraisable(error)
    return -<int> errno.EIO


cdef inline void hand_out(Handle handle, void** file) except *:
    Py_INCREF(handle)
    file[0] = <void*> handle


cdef int memory_open(void* disk, const char* path, int mode, void** file) noexcept with gil:
    try:
        hand_out((<MemoryFileSystem> disk).open_file(decoded(path), mode), file)
    except BaseException as error:
        return refused(error)
    return 0


cdef int memory_close(void* disk, void* file) noexcept with gil:
    cdef Handle handle = <Handle> file
    handle.inode.locks -= handle.lock
    Py_DECREF(handle)
    try:
        (<MemoryFileSystem> disk).begin("close", handle.path)
    except BaseException as error:
        return refused(error)
    return 0


cdef int memory_pwrite(
    void* disk, void* file, const uint8_t* data, size_t size, uint64_t offset
) noexcept with gil:
    try:
        (<MemoryFileSystem> disk).write_at(<Handle> file, (<const char*> data)[:size], offset)
    except BaseException as error:
        return refused(error)
    return 0


cdef int64_t memory_pread(
    void* disk, void* file, uint8_t* into, size_t size, uint64_t offset
) noexcept nogil:
    return memory_pread_counted(disk, file, into, size, offset, has_gil())


cdef int64_t memory_pread_counted(
    void* disk, void* file, uint8_t* into, size_t size, uint64_t offset, bint had_gil
) noexcept with gil:
    cdef Handle handle = <Handle> file
    cdef MemoryFileSystem self = <MemoryFileSystem> disk
    cdef size_t count
    try:
        self.preads_with_gil += had_gil
        short = self.begin("pread", handle.path)
        if handle.inode.given_back or offset >= <uint64_t> len(handle.inode.data):
            return 0
        count = min(size, <size_t> (len(handle.inode.data) - offset))
        if short:
            count //= 2
        memcpy(into, <const uint8_t*> (<char*> handle.inode.data) + offset, count)
        return <int64_t> count
    except BaseException as error:
        return refused(error)


cdef int memory_write_back(
    void* disk, void* file, uint64_t offset, uint64_t size
) noexcept with gil:
    try:
        (<MemoryFileSystem> disk).begin_writing_back("write_back", <Handle> file)
    except BaseException as error:
        return refused(error)
    return 0


cdef int memory_datasync(void* disk, void* file) noexcept with gil:
    try:
        (<MemoryFileSystem> disk).sync_file(<Handle> file)
    except BaseException as error:
        return refused(error)
    return 0


cdef int memory_allocate(void* disk, void* file, uint64_t size) noexcept with gil:
    try:
        (<MemoryFileSystem> disk).allocate_file(<Handle> file, size)
    except BaseException as error:
        return refused(error)
    return 0


cdef int memory_truncate(void* disk, void* file, uint64_t size) noexcept with gil:
    try:
        (<MemoryFileSystem> disk).truncate_file(<Handle> file, size)
    except BaseException as error:
        return refused(error)
    return 0


cdef int64_t memory_size(void* disk, void* file) noexcept with gil:
    cdef Handle handle = <Handle> file
    try:
        (<MemoryFileSystem> disk).begin("size", handle.path)
    except BaseException as error:
        return refused(error)
    return len(handle.inode.data)


cdef int memory_rename(void* disk, const char* old, const char* new) noexcept with gil:
    try:
        (<MemoryFileSystem> disk).rename_node(decoded(old), decoded(new))
    except BaseException as error:
        return refused(error)
    return 0


cdef int memory_link(void* disk, const char* old, const char* new) noexcept with gil:
    try:
        (<MemoryFileSystem> disk).link_file(decoded(old), decoded(new))
    except BaseException as error:
        return refused(error)
    return 0


cdef int memory_unlink(void* disk, const char* path) noexcept with gil:
    try:
        (<MemoryFileSystem> disk).unlink_file(decoded(path))
    except BaseException as error:
        return refused(error)
    return 0


cdef int memory_make_directory(void* disk, const char* path) noexcept with gil:
    try:
        (<MemoryFileSystem> disk).add_directory(decoded(path))
    except BaseException as error:
        return refused(error)
    return 0


cdef int memory_remove_directory(void* disk, const char* path) noexcept with gil:
    try:
        (<MemoryFileSystem> disk).drop_directory(decoded(path))
    except BaseException as error:
        return refused(error)
    return 0


cdef int memory_sync_directory(void* disk, const char* path) noexcept with gil:
    try:
        (<MemoryFileSystem> disk).sync_names(decoded(path))
    except BaseException as error:
        return refused(error)
    return 0


cdef int memory_list(void* disk, const char* path, void* context, list_visitor visit) noexcept with gil:
    cdef MemoryFileSystem self = <MemoryFileSystem> disk
    cdef bytes encoded
    cdef const char* raw
    cdef int stop
    try:
        self.begin("list", decoded(path))
        for name in self.names(decoded(path)):
            encoded = os.fsencode(name)
            raw = encoded
            with nogil:
                stop = visit(context, raw)
            if stop:
                return stop
    except BaseException as error:
        return refused(error)
    return 0


cdef int memory_kind(void* disk, const char* path) noexcept with gil:
    cdef MemoryFileSystem self = <MemoryFileSystem> disk
    try:
        self.begin("kind", decoded(path))
        node = self.tree.find(decoded(path))
        if node is None:
            return -<int> errno.ENOENT
        return 2 if isinstance(node, Directory) else 1
    except BaseException as error:
        return refused(error)


cdef int memory_lock(void* disk, const char* path, void** file) noexcept with gil:
    try:
        hand_out((<MemoryFileSystem> disk).lock_file(decoded(path)), file)
    except BaseException as error:
        return refused(error)
    return 0


cdef int memory_lock_shared(void* disk, const char* path, void** file) noexcept with gil:
    try:
        hand_out((<MemoryFileSystem> disk).lock_file_shared(decoded(path)), file)
    except BaseException as error:
        return refused(error)
    return 0


cdef int memory_lock_directory(
    void* disk, const char* path, bint shared, void** file
) noexcept nogil:
    return -EOPNOTSUPP          # as some network file systems: LOCK alone must do


cdef int memory_names(void* disk, const char* path, void* file) noexcept with gil:
    try:
        return (<MemoryFileSystem> disk).tree.find(decoded(path)) is (<Handle> file).inode
    except BaseException as error:
        return refused(error)


cdef int64_t memory_free_bytes(void* disk, const char* path) noexcept with gil:
    cdef MemoryFileSystem self = <MemoryFileSystem> disk
    try:
        self.begin("free_bytes", decoded(path))
    except BaseException as error:
        return refused(error)
    if self.capacity_bytes is None:
        return <int64_t> 1 << 62
    return max(self.capacity_bytes - self.used_bytes, 0)


cdef void memory_forget(void* disk, void* file, uint64_t offset, uint64_t size) noexcept nogil:
    pass    # there is no cache before it


cdef int memory_map(void* disk, void* file, uint64_t size, const uint8_t** data) noexcept nogil:
    return -EOPNOTSUPP      # each read is to be counted, delayed or failed


cdef void memory_unmap(void* disk, const uint8_t* data, uint64_t size) noexcept nogil:
    pass


cdef int memory_read_mapped(
    void* disk, const uint8_t* data, uint64_t size, bint first, mapped_reader read, void* state
) noexcept nogil:
    return -EFAULT


cdef FileSystemOps MEMORY_OPS
MEMORY_OPS.open = memory_open
MEMORY_OPS.close = memory_close
MEMORY_OPS.pwrite = memory_pwrite
MEMORY_OPS.pread = memory_pread
MEMORY_OPS.write_back = memory_write_back
MEMORY_OPS.datasync = memory_datasync
MEMORY_OPS.allocate = memory_allocate
MEMORY_OPS.truncate = memory_truncate
MEMORY_OPS.size = memory_size
MEMORY_OPS.rename = memory_rename
MEMORY_OPS.link = memory_link
MEMORY_OPS.unlink = memory_unlink
MEMORY_OPS.make_directory = memory_make_directory
MEMORY_OPS.remove_directory = memory_remove_directory
MEMORY_OPS.sync_directory = memory_sync_directory
MEMORY_OPS.list = memory_list
MEMORY_OPS.kind = memory_kind
MEMORY_OPS.lock = memory_lock
MEMORY_OPS.lock_shared = memory_lock_shared
MEMORY_OPS.lock_directory = memory_lock_directory
MEMORY_OPS.names = memory_names
MEMORY_OPS.free_bytes = memory_free_bytes
MEMORY_OPS.forget = memory_forget
MEMORY_OPS.map = memory_map
MEMORY_OPS.unmap = memory_unmap
MEMORY_OPS.read_mapped = memory_read_mapped
