"""The extension module of the room log: its parts, in the order of their needs."""

include "log_file.pyx"
include "log_read.pyx"
include "log_range.pyx"
include "log_recovery.pyx"
include "log_salvage.pyx"
include "log.pyx"
include "log_tail.pyx"
