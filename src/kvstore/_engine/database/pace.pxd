"""How fast writers may go while flushes and compactions are behind.

A writer that runs into a full memtable, or into level 0 at `stop_files`, stands still for as long as a
flush or a compaction takes. Instead it is held, a millisecond at a time, to the speed at which the next
memtable would be full when the flush of the one before is expected to end, and to that at which level 0
was last emptied. It looks at this each time that it has written so many bytes, not at each write.
"""


cdef struct Pace:
    # GIL
    double looked_s             # when a writer looked last; of the monotonic clock, as the others
    double owed_s               # what it has been too fast by since then
    double flush_began_s        # of the flush under way; 0: none
    double flush_s_a_byte       # of a memtable; how long the last ones took. 0: not known
    double level0_s_a_table     # how long compactions took for each table of level 0. 0: not known
