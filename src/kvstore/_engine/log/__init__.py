"""The write-ahead log of a database, and the Raft log of a member.

``log_format`` the bytes; ``log`` appending, group commit, syncs; ``log_file`` the segment that is
written; ``log_read`` a segment read record by record; ``log_recovery`` what opening may cut, and
what it must refuse; ``log_salvage`` what repair can still read of a damaged one.
"""
