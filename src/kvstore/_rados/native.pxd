"""The map of the extension module: one part a file."""

include "library.pxd"
include "operations.pxd"
