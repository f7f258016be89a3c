"""The option `history_prefixes`, as jobs want it."""

from kvstore._engine.version.native cimport HistoryKeys


cdef HistoryKeys* history_of(tuple prefixes, list bounds) except NULL
