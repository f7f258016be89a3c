"""The extension module over librados."""

include "library.pyx"
include "operations.pyx"
