"""The extension module of the native parts of the state."""

include "requests.pyx"
