"""Sorted tables on disk.

``block`` searching a block, ``block_build`` making one; ``table_index`` which block may hold a
key; ``filter`` which keys are surely absent; ``compression`` codecs; ``sstable_frame`` checksummed
frames; ``sstable_properties`` counts and bounds; ``range_frame`` range tombstones;
``sstable_build`` writing a table; ``sstable`` looking up in one; ``sstable_cursor`` walking one;
``sstable_verify`` reading every byte; ``sstable_salvage`` what is whole of a damaged one; ``cache``
blocks in memory; ``block_face``, ``table_file`` their Python faces for tests.
"""
