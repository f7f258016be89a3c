"""Sorted tables on disk.

``block`` searching a block, ``block_build`` making one; ``filter`` which keys are surely absent;
``compression`` codecs; ``sstable_frame`` checksummed frames; ``sstable_build`` writing a table;
``sstable`` looking up in one; ``sstable_cursor`` walking one; ``sstable_verify`` reading every
byte; ``cache`` blocks in memory; ``block_face``, ``table_file`` their Python faces for tests.
"""
