"""Which tables make up the database.

``manifest`` its edits on disk; ``live_table`` a table in use; ``version`` the set of them at one
moment; ``merge`` several cursors as one; ``range_cover`` which range tombstone lies over a key;
``user_cursor`` what a reader at one sequence sees; ``table_job`` a sorted run written into new
tables; ``range_job`` what it does about range tombstones.
"""
