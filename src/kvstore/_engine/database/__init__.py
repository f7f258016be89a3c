"""The database: everything put together.

``store`` state, opening, recovery, installing versions; ``database`` writes and reads, the Python
class; ``batch`` batches; ``read`` one key; ``iterator`` iterators and snapshots; ``compaction``
flush and compaction, ``background`` their threads; ``introspect`` statistics, sizes, checkpoints;
``maintenance`` destroying; ``repair`` saving what is whole, ``repair_write`` the tables of it,
``repair_report`` what it says; ``bulk_read``, ``bulk_write``, ``bulk_rows``, ``column`` whole
arrays.
"""
