"""What an open database says about itself: sizes, counters, a check of every byte, a copy.

The caller has checked that the store is open.
"""



cdef int verify_tables(Store store) except -1
cdef list table_bytes_of_ranges(Store store, tuple ranges)
cdef dict statistics(Store store)
cdef object property_value(Store store, object name)
# Everything is flushed already; `path` must not exist.
cdef int copy_tables(Store store, str path) except -1
