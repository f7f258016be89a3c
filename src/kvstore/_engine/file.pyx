"""FileSystem is the base of the disks that an engine can stand on; see file.pxd."""


cdef class FileSystem:
    def __init__(self):
        if type(self) is FileSystem:
            raise TypeError("FileSystem is abstract; use PosixFileSystem or MemoryFileSystem")
