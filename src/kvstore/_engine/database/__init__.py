"""The database: everything put together.

``store`` state, opening, recovery, installing versions; ``database`` writes and reads, the Python
class; ``batch`` batches; ``read`` one key; ``iterator`` iterators and snapshots; ``compaction``
flush and compaction, ``background`` their threads; ``introspect`` statistics, sizes, checkpoints;
``maintenance`` repair and destroy; ``bulk_read``, ``bulk_write``, ``bulk_rows``, ``column`` whole
arrays.
"""
