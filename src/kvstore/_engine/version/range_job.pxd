"""Range tombstones in a job: which versions they let go of, and which of them live on.

Keys with a history and keys without are read at other sequences, so tombstones are cut where the one
kind ends and the other begins. Of one kind, sequences between which nobody can read are one *group*, named
by the first sequence from them on at which somebody can. Of the tombstones of a group the newest one
over a key decides; older ones under it go. A version is let go of where a newer tombstone of its own group lies over it. A tombstone that all
readers see goes where no level below has anything in its range, once what it hides has gone.
"""

from libc.stdint cimport uint64_t

from kvstore._engine.memtable.native cimport RangeRun, RangeTombstone
from kvstore._engine.primitives.native cimport Buffer, Slice, Status
from kvstore._engine.table.native cimport Table, TableBuilder


cdef struct TableJob            # table_job.pxd


cdef struct RangeGroup:
    bint history                    # of which kind of keys
    uint64_t reader
    RangeRun* run


cdef struct RangeInput:
    # What the job is given; the keys lie in memtables that its caller holds, or in `tables`.
    RangeTombstone* tombstones
    size_t count
    size_t capacity
    Table** tables                  # held
    size_t tables_count
    size_t tables_capacity


cdef struct RangeJob:
    RangeGroup* groups              # first those of keys with a history; each kind by reader
    size_t groups_count
    size_t history_groups           # of keys with a history
    RangeTombstone* spans           # what lives on, ascending by start
    size_t spans_count
    size_t spans_capacity
    Buffer frame


# All tombstones of a run, of which the entries are those of child `source` of the job's input; or of a
# table, which is opened. -1: see status.
cdef int range_input_add(RangeInput* input, const RangeRun* run, int source) noexcept nogil
cdef int range_input_add_table(
    RangeInput* input, LiveTable* file, int source, Status* status
) noexcept nogil
cdef void range_input_free(RangeInput* input) noexcept nogil

# -1: no memory; to be freed all the same.
cdef int range_job_begin(RangeJob* ranges, TableJob* job) noexcept nogil
cdef void range_job_free(RangeJob* ranges) noexcept nogil
# Nobody reads keys of this kind before it.
cdef uint64_t first_reader(TableJob* job, bint history) noexcept nogil
# The tombstone that lets go of this version, or NULL. `history`: whether the key has one.
cdef const RangeTombstone* range_job_over(
    RangeJob* ranges, TableJob* job, Slice user_key, bint history, uint64_t sequence
) noexcept nogil
# Whether some tombstone that lives on lies over the key and begins before it.
cdef bint range_job_crosses(RangeJob* ranges, Slice user_key) noexcept nogil
# Whether some tombstone that lives on reaches into [low, high); NULL data: no bound.
cdef bint range_job_reaches(RangeJob* ranges, Slice low, Slice high) noexcept nogil
# Gives the builder what lies in [low, high), which is not nothing; its bounds (internal keys) into
# `smallest` and `largest`. -1: see status.
cdef int range_job_write(
    RangeJob* ranges, TableBuilder* builder, Slice low, Slice high, Buffer* smallest,
    Buffer* largest, Status* status
) noexcept nogil
