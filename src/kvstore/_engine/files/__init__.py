"""The seam to a file system.

``file`` the table of functions that all of the engine's I/O goes through; ``posix`` the real one;
``memory_disk`` (its directories: ``memory_tree``) one in memory that loses what was not synced and
fails where a test wants it; ``disk`` whole small files, directories and the lock; ``guarded`` the
disk of a directory that is held, and that refuses once the directory was moved; ``file_face`` the
table's Python face for tests.
"""
