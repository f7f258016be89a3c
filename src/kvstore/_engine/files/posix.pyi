from kvstore._engine.files.file import FileSystem

class PosixFileSystem(FileSystem):
    """The operating system's files. Stateless: any number of instances are the same disk."""
