"""The extension module of the room version: its parts, in the order of their needs."""

include "live_table.pyx"
include "edit.pyx"
include "manifest.pyx"
include "merge.pyx"
include "version.pyx"
include "table_job.pyx"
include "user_cursor.pyx"
