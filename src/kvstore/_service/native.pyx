"""The extension module of the native parts of the service: its parts, in the order of their needs."""

include "request_ids.pyx"
include "desk.pyx"
include "messages.pyx"
include "key_values.pyx"
