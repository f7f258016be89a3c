"""Whether keys are as a batch expects them, at the moment before it is written."""


# Forget what the disk said: of another write, and it may be of another database.
cdef int forget_read(WriteBatch batch) except -1
# Asks the disk for what of that only the disk knows; others may write meanwhile.
cdef int read_expected(Store store, WriteBatch batch) except -1
# False: the disk is to be asked (once more: what it said is of before the last flush). Gives the GIL
# up nowhere, so that nothing can come between it and the write. ConflictError for the first key that
# isn't as it is expected.
cdef bint is_as_expected(Store store, WriteBatch batch) except -1
