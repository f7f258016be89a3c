"""The option `history_prefixes`, as jobs want it: see version/history.pxd."""

from kvstore._engine.primitives.native cimport kv_free, kv_malloc, slice_of
from kvstore._engine.version.native cimport HistoryKeys, KeyRange


cdef HistoryKeys* history_of(tuple prefixes, list bounds) except NULL:
    """Of the keys that begin with one of the prefixes, to be given to kv_free().

    Ascending, and none within another. Their bytes are borrowed from what is added to `bounds`.
    """
    cdef HistoryKeys* keys
    cdef bytes low, high
    cdef bytes last = None
    for low in sorted(set(prefixes)):
        if last is None or not low.startswith(last):
            last = low
            bounds.append((low, after_prefix(low)))
    keys = <HistoryKeys*> kv_malloc(sizeof(HistoryKeys) + len(bounds) * sizeof(KeyRange))
    if keys == NULL:
        raise MemoryError("no memory for a database")
    keys.ranges = <KeyRange*> (keys + 1)
    keys.count = 0
    for low, high in bounds:
        keys.ranges[keys.count].low = slice_of(<const char*> low, len(low))
        keys.ranges[keys.count].high = slice_of(NULL, 0)
        if high is not None:
            keys.ranges[keys.count].high = slice_of(<const char*> high, len(high))
        keys.count += 1
    return keys
