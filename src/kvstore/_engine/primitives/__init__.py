"""Bytes in memory, and nothing that knows a file.

``memory`` the one seam to C memory, which tests can make fail; ``pod_vector`` a growing array that
never throws; ``slice`` borrowed bytes; ``buffer`` owned bytes that grow; ``arena`` memory given out
and freed as a whole; ``bytes_view`` a Python buffer held for a call; ``coding`` fixed and varint
integers; ``crc32c`` the checksum of all formats; ``key``, ``key_head`` internal keys and their
comparison; ``status`` errors without exceptions; ``atomics``; ``lock`` a mutex; ``threads`` why one
did not start; ``cursor`` the interface of everything that walks sorted entries, ``cursor_face`` its
Python face for tests.
"""
