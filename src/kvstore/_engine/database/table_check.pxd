"""Checks of the files of an open database, a piece at a time, beside all that goes on."""

from kvstore._engine.table.native cimport TableCheck
from kvstore._engine.version.native cimport LiveTable


cdef class TableChecking:
    """One live table. It keeps the table's file from being removed; one thread at a time."""
    cdef Store store
    cdef LiveTable* file        # retained
    cdef TableCheck check       # begun where its table isn't NULL
    cdef bint begun
