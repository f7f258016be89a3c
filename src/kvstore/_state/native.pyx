"""The extension module of the native parts of the state: its parts, in the order of their needs."""

include "requests.pyx"
include "commands.pyx"
include "sessions.pyx"
include "records.pyx"
include "applying.pyx"
include "operations.pyx"
