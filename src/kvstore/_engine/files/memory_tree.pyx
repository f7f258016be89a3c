"""The tree behind MemoryFileSystem and what is left of it after a power loss; see memory_tree.pxd.

What survives is chosen as strictly as POSIX allows. A file's bytes count only after a datasync of
that file, in units of 512-byte sectors, each with any of the contents that it had since; its name
counts only after a sync of the directory that holds it.

A step here is one step for all threads: what it allocates may start the garbage collector, which
may run anybody's code and let other threads in, so the collector waits meanwhile.
"""

import errno

from libc.stdint cimport uint64_t

cdef extern from "Python.h":
    int PyGC_Disable() noexcept
    int PyGC_Enable() noexcept

cdef enum:
    SECTOR_BYTES = 512          # what a device writes whole or not at all


cdef inline void resume_collector(int was_on) noexcept:
    if was_on:
        PyGC_Enable()


cdef void apply(bytearray target, uint64_t offset, bytes content) except *:
    """One entry of a file's journal."""
    cdef uint64_t size = len(target)
    if content is None:
        if offset < size:
            del target[offset:]
        else:
            target.extend(bytes(offset - size))
        return
    if offset > size:
        target.extend(bytes(offset - size))
    target[offset : offset + len(content)] = content


cdef class Inode:
    def __init__(self):
        self.data = bytearray()
        self.durable = bytearray()
        self.journal = []

    cdef void write(self, uint64_t sequence, uint64_t offset, bytes content) except *:
        cdef int was_on = PyGC_Disable()
        try:
            apply(self.data, offset, content)
            self.journal.append((sequence, offset, content))
        finally:
            resume_collector(was_on)

    cdef void resize(self, uint64_t sequence, uint64_t size) except *:
        cdef int was_on = PyGC_Disable()
        try:
            apply(self.data, size, None)
            self.journal.append((sequence, size, None))
        finally:
            resume_collector(was_on)

    cdef void sync(self) except *:
        cdef int was_on = PyGC_Disable()
        try:
            for _, offset, content in self.journal:
                apply(self.durable, offset, content)
            self.journal.clear()
        finally:
            resume_collector(was_on)

    cdef void forget(self) except *:
        """As a kernel does after a failed sync: the pages are clean, and will never be written."""
        self.journal.clear()

    def survivor_of_prefix(self, cut, torn):
        """The bytes with all writes before number `cut`, and `torn` bytes of that one."""
        result = bytearray(self.durable)
        for sequence, offset, content in self.journal:
            if sequence < cut:
                apply(result, offset, content)
            elif sequence == cut and content is not None:
                apply(result, offset, content[: int(torn * (len(content) + 1))])
        return result

    def survivor_of_sectors(self, random):
        """The bytes with each sector as it was after any one of its writes, or before all of them."""
        result = bytearray(self.durable)
        writes = {}
        for _, offset, content in self.journal:
            if content:
                for sector in range(offset // SECTOR_BYTES, (offset + len(content) - 1) // SECTOR_BYTES + 1):
                    writes[sector] = writes.get(sector, 0) + 1
        kept = {sector: random.randint(0, count) for sector, count in sorted(writes.items())}
        for _, offset, content in self.journal:
            if content is None:
                if random.random() < 0.5:
                    apply(result, offset, None)
                continue
            at = offset
            while at < offset + len(content):
                sector = at // SECTOR_BYTES
                end = min((sector + 1) * SECTOR_BYTES, offset + len(content))
                if kept[sector] > 0:
                    kept[sector] -= 1
                    apply(result, at, content[at - offset : end - offset])
                at = end
        return result


cdef class Directory:
    def __init__(self):
        self.entries = {}
        self.durable = {}


cdef list parts_of(str path):
    cdef list parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise OSError(errno.EINVAL, "'..' in a path of the in-memory disk", path)
    return parts


cdef class Tree:
    def __init__(self):
        self.root = Directory()
        self.journal = []

    cdef uint64_t next_sequence(self) noexcept:
        self.sequence += 1
        return self.sequence

    cdef object find(self, str path):
        """The node at `path`, or None."""
        node = self.root
        for part in parts_of(path):
            if not isinstance(node, Directory):
                raise OSError(errno.ENOTDIR, "not a directory", path)
            node = (<Directory> node).entries.get(part)
            if node is None:
                return None
        return node

    cdef tuple parent_of(self, str path):
        """(directory, last name) of `path`; the name need not be there."""
        cdef list parts = parts_of(path)
        if not parts:
            raise OSError(errno.EINVAL, "the root has no parent", path)
        directory = self.find("/".join(parts[: len(parts) - 1]))
        if directory is None:
            raise OSError(errno.ENOENT, "no such directory", path)
        if not isinstance(directory, Directory):
            raise OSError(errno.ENOTDIR, "not a directory", path)
        return directory, parts[len(parts) - 1]

    cdef bint names(self, Inode inode) except -1:
        """Whether a reader sees the file under some name."""
        cdef list waiting = [self.root]
        while waiting:
            for node in (<Directory> waiting.pop()).entries.values():
                if node is inode:
                    return True
                if isinstance(node, Directory):
                    waiting.append(node)
        return False

    cdef void change(self, tuple changes) except *:
        cdef Directory directory
        cdef int was_on = PyGC_Disable()
        try:
            for directory, name, node in changes:
                if node is None:
                    directory.entries.pop(name, None)
                else:
                    directory.entries[name] = node
            self.journal.append((self.next_sequence(), changes))
        finally:
            resume_collector(was_on)

    cdef void sync_directory(self, Directory directory) except *:
        """Makes its changes durable, and all earlier ones of directories that those touch too."""
        cdef list kept = []
        cdef list chosen = []
        cdef Directory touched
        cdef int was_on = PyGC_Disable()
        try:
            touching = {id(directory)}
            for step in reversed(self.journal):
                ids = {id(change[0]) for change in step[1]}
                if ids & touching:
                    touching |= ids
                    chosen.append(step)
                else:
                    kept.append(step)
            for _, changes in reversed(chosen):
                for touched, name, node in changes:
                    if node is None:
                        touched.durable.pop(name, None)
                    else:
                        touched.durable[name] = node
            kept.reverse()
            self.journal = kept
        finally:
            resume_collector(was_on)

    cdef list inodes(self):
        """Every file that is seen or on the device, once, in a fixed order."""
        cdef list result = []
        cdef set seen = set()
        self.inodes_below(self.root, seen, result)
        # A directory that is gone for readers may come back with all that is in it.
        for _, changes in self.journal:
            for _, _, node in changes:
                if node is not None:
                    self.inodes_below(node, seen, result)
        return result

    cdef int inodes_below(self, object top, set seen, list result) except -1:
        cdef list waiting = [top]
        while waiting:
            node = waiting.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            if isinstance(node, Inode):
                result.append(node)
                continue
            for names in ((<Directory> node).entries, (<Directory> node).durable):
                waiting.extend(names[name] for name in sorted(names, reverse=True))
        return 0

    cdef Tree copy(self):
        """All of it as it is now. No other thread of Python comes between."""
        cdef Tree result = Tree()
        cdef Inode inode
        cdef dict made = {}
        cdef list moved
        cdef int was_on = PyGC_Disable()
        try:
            result.sequence = self.sequence
            result.root = copied(self.root, made)
            for sequence, changes in self.journal:
                moved = []
                for directory, name, node in changes:
                    moved.append((copied(directory, made), name, copied(node, made)))
                result.journal.append((sequence, tuple(moved)))
            return result
        finally:
            resume_collector(was_on)

    cdef Tree survivor(self, str keep, object random):
        cdef Inode inode
        cdef Directory directory
        files = self.inodes()
        cut, torn = 0, 0.0
        if keep == "prefix":
            pending = {step[0] for step in self.journal}
            for inode in files:
                pending.update(entry[0] for entry in inode.journal)
            cut = random.choice([*sorted(pending), self.sequence + 1])
            torn = random.random()
        steps = []
        for sequence, changes in self.journal:
            if keep == "all" or sequence < cut or (keep == "random" and random.random() < 0.5):
                steps.append(changes)
        contents = {}
        for inode in files:
            if keep == "all":
                contents[id(inode)] = bytearray(inode.data)
            elif keep == "random":
                contents[id(inode)] = inode.survivor_of_sectors(random)
            else:
                contents[id(inode)] = inode.survivor_of_prefix(cut, torn)
        names = {}
        for changes in steps:
            for directory, name, node in changes:
                held = names.setdefault(id(directory), dict(directory.durable))
                if node is None:
                    held.pop(name, None)
                else:
                    held[name] = node
        cdef Tree result = Tree()
        result.root = rebuilt(self.root, names, contents, {})
        return result


cdef object copied(object node, dict made):
    """The node's copy; hard links stay one file. None for None."""
    cdef Inode inode
    cdef Directory directory
    if node is None or id(node) in made:
        return made.get(id(node))
    if isinstance(node, Inode):
        inode = Inode()
        inode.data = bytearray((<Inode> node).data)
        inode.durable = bytearray((<Inode> node).durable)
        inode.journal = list((<Inode> node).journal)
        made[id(node)] = inode
        return inode
    directory = Directory()
    made[id(node)] = directory
    for name, child in (<Directory> node).entries.items():
        directory.entries[name] = copied(child, made)
    for name, child in (<Directory> node).durable.items():
        directory.durable[name] = copied(child, made)
    return directory


cdef object rebuilt(object node, dict names, dict contents, dict made):
    """A fresh node that holds only what survived; hard links stay one file."""
    cdef Inode inode
    cdef Directory directory
    if id(node) in made:
        return made[id(node)]
    if isinstance(node, Inode):
        inode = Inode()
        inode.durable = contents[id(node)]
        inode.data = bytearray(inode.durable)
        made[id(node)] = inode
        return inode
    directory = Directory()
    made[id(node)] = directory
    for name, child in names.get(id(node), (<Directory> node).durable).items():
        directory.durable[name] = rebuilt(child, names, contents, made)
    directory.entries = dict(directory.durable)
    return directory
