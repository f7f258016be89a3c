"""Opening of a log: every record of every segment is checked, and the tail judged."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from kvstore._engine.primitives.native cimport Status
from kvstore._engine.files.native cimport FileSystem


cdef class Applier:
    """What becomes of the records that opening reads, in one pass: of those that check, in their order,
    of kinds that aren't sticky. Whether the log's end is damaged shows only after them."""
    # 0; 1: settle() is to be called before the next one; -1 with `status`, which ends the opening.
    cdef int take(self, const RecordHeader* record, const uint8_t* payload, Status* status) noexcept nogil
    cdef int settle(self) except -1


cdef class Recovered:
    """What a log's directory holds."""
    cdef readonly object summary        # the Recovery that users see
    cdef readonly dict spans            # number of each segment -> its Span
    cdef readonly dict sticky           # kind -> (index, term, payload) of the newest such record
    cdef readonly list hollows          # records with damaged payloads, in their order
    cdef uint64_t number                # of the newest segment, 0 none
    cdef uint64_t end                   # of its valid part
    cdef uint32_t chain                 # of its last record
    cdef bytes log_id                   # of all segments; None without any
    cdef bytes database_id


cdef str segment_name(str path, uint64_t number)
# Whether a file of this name in a log's directory may be the log's.
cdef bint is_own_log_name(str name)
# `applier`: gets the records, or None.
# Raises CorruptionError or StorageError; changes nothing unless `repair`, which makes the newest
# segment's valid part durable and removes files that were left half made.
# `noted`: what somebody else knows of the log, (oldest segment that must be there, newest one that was
# durable, up to which offset), or None. `report_short`: a log that ends before it is told of in the
# summary, and nothing of it is touched; else it is damage. `hollow`: records whose payload is damaged,
# and that were durable, are noted and passed; else they are damage as any other. `report_damage`: where there is any, the log
# ends before it, and the summary says so; nothing is touched.
cdef Recovered recover(
    FileSystem disk, str path, frozenset sticky_kinds, bint repair, tuple noted, bint report_short,
    bint hollow, bint report_damage, Applier applier
)
