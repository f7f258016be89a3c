"""Block compression: see compression.pxd."""

import importlib
import threading

from libc.stdint cimport uint8_t
from libc.string cimport memcpy

from kvstore._engine.primitives.buffer cimport Buffer, buffer_reserve
from kvstore.errors import ConfigurationError, InvalidArgumentError


cdef enum:
    SAVING_SHIFT = 3            # an eighth, 12.5 %
    ZSTD_LEVEL = 1

cdef tuple NAMES = ("none", "lz4", "zstd")
cdef tuple PACKAGES = (None, "lz4.block", "zstandard")
cdef list modules = [None, None, None]
# zstandard's contexts must not be shared by threads: each keeps its own pair.
cdef object contexts = threading.local()


cdef object module_of(int compression):
    """The package's module, or None where it isn't installed."""
    if modules[compression] is None:
        try:
            modules[compression] = importlib.import_module(PACKAGES[compression])
        except ImportError:
            return None
    return modules[compression]


cpdef int compression_of(object name) except -1:
    if name is None:
        return COMPRESSION_NONE
    if name not in NAMES:
        raise InvalidArgumentError(
            f"compression must be one of {', '.join(map(repr, NAMES))} or None, not {name!r}"
        )
    cdef int compression = NAMES.index(name)
    if compression != COMPRESSION_NONE and module_of(compression) is None:
        raise ConfigurationError(
            f"compression {name!r} needs a package that is not installed: pip install kvstore[{name}]"
        )
    return compression


cdef object zstd_contexts():
    if not hasattr(contexts, "zstd"):
        module = module_of(COMPRESSION_ZSTD)
        contexts.zstd = (
            module.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=False),
            module.ZstdDecompressor(),
        )
    return contexts.zstd


cdef bytes compress_in_python(int compression, bytes data):
    if compression == COMPRESSION_LZ4:
        return module_of(COMPRESSION_LZ4).compress(data, store_size=False)
    return zstd_contexts()[0].compress(data)


cdef int compress(int compression, const uint8_t* data, size_t size, Buffer* into) noexcept nogil:
    cdef size_t limit = size - (size >> SAVING_SHIFT)
    if compression == COMPRESSION_NONE or buffer_reserve(into, limit) < 0:
        return 0
    with gil:
        try:
            packed = compress_in_python(compression, data[:size])
            if <size_t> len(packed) > limit:
                return 0
            memcpy(into.data + into.size, <const uint8_t*> packed, len(packed))
            into.size += len(packed)
            return 1
        except Exception:  # noqa: BLE001 - the block is stored as it is; nothing is lost by it
            return 0


cdef object decompress_in_python(int compression, bytes data, size_t raw_size):
    if compression == COMPRESSION_LZ4:
        return module_of(COMPRESSION_LZ4).decompress(data, uncompressed_size=raw_size)
    # The package allocates what the frame claims to hold: ask for the claim first.
    if module_of(COMPRESSION_ZSTD).frame_content_size(data) != raw_size:
        return None
    return zstd_contexts()[1].decompress(data, max_output_size=raw_size)


cdef int decompress(
    int compression, const uint8_t* data, size_t size, uint8_t* into, size_t raw_size
) noexcept nogil:
    with gil:
        try:
            if module_of(compression) is None:
                return DECOMPRESS_MISSING
            raw = decompress_in_python(compression, data[:size], raw_size)
            if raw is None or <size_t> len(raw) != raw_size:
                return DECOMPRESS_DAMAGED
            memcpy(into, <const uint8_t*> (<bytes> raw), raw_size)
            return DECOMPRESSED
        except Exception:  # noqa: BLE001 - each package has its own errors for the same thing
            return DECOMPRESS_DAMAGED
