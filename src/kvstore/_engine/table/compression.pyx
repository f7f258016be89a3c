"""Block compression: see compression.pxd."""

import importlib
import threading

from libc.stdint cimport uint8_t
from libc.string cimport memcpy

from kvstore._engine.primitives.native cimport Buffer, buffer_free, buffer_init, buffer_reserve
from kvstore.errors import ConfigurationError, InvalidArgumentError
from kvstore.extras import install_line


cdef extern from "kvstore/_engine/table/codecs.h" nogil:
    bint kv_codec_lz4() noexcept
    bint kv_codec_zstd() noexcept
    bint kv_codec_snappy() noexcept
    size_t kv_lz4_compress(const uint8_t* data, size_t size, uint8_t* into, size_t limit) noexcept
    size_t kv_zstd_compress(const uint8_t* data, size_t size, uint8_t* into, size_t limit) noexcept
    size_t kv_snappy_bound(size_t size) noexcept
    size_t kv_snappy_compress(const uint8_t* data, size_t size, uint8_t* into, size_t limit) noexcept
    int kv_lz4_decompress(const uint8_t* data, size_t size, uint8_t* into, size_t raw) noexcept
    int kv_zstd_decompress(const uint8_t* data, size_t size, uint8_t* into, size_t raw) noexcept
    int kv_snappy_decompress(const uint8_t* data, size_t size, uint8_t* into, size_t raw) noexcept


cdef enum:
    SAVING_SHIFT = 3            # an eighth, 12.5 %
    ZSTD_LEVEL = 1

cdef tuple NAMES = ("none", "lz4", "zstd", "snappy")
cdef tuple PACKAGES = (None, "lz4.block", "zstandard", "cramjam")
cdef list modules = [None, None, None, None]
# zstandard's contexts must not be shared by threads: each keeps its own pair.
cdef object contexts = threading.local()
cdef bint packages_only = False


cdef object module_of(int compression):
    """The package's module, or None where it isn't installed."""
    if modules[compression] is None:
        try:
            modules[compression] = importlib.import_module(PACKAGES[compression])
        except ImportError:
            return None
    return modules[compression]


cdef bint in_library(int compression) noexcept nogil:
    """Whether the C library does it."""
    if packages_only:
        return False
    if compression == COMPRESSION_LZ4:
        return kv_codec_lz4()
    if compression == COMPRESSION_ZSTD:
        return kv_codec_zstd()
    return compression == COMPRESSION_SNAPPY and kv_codec_snappy()


cpdef int compression_of(object name) except -1:
    if name is None:
        return COMPRESSION_NONE
    if name not in NAMES:
        raise InvalidArgumentError(
            f"compression must be one of {', '.join(map(repr, NAMES))} or None, not {name!r}"
        )
    cdef int compression = NAMES.index(name)
    if compression == COMPRESSION_NONE or in_library(compression):
        return compression
    if module_of(compression) is None:
        raise ConfigurationError(
            f"compression {name!r} needs lib{name} or a package that is not installed: "
            + install_line(name)
        )
    return compression


# --- without the GIL ------------------------------------------------------------------------

cdef int compress(int compression, const uint8_t* data, size_t size, Buffer* into) noexcept nogil:
    # No Python object may live here, not even on a path that isn't taken: Cython takes the GIL at
    # the end of such a function to let go of it, for every block.
    cdef size_t limit = size - (size >> SAVING_SHIFT)
    cdef size_t room = limit
    cdef size_t packed
    if compression == COMPRESSION_NONE:
        return 0
    if compression == COMPRESSION_SNAPPY:
        room = kv_snappy_bound(size)
    if buffer_reserve(into, room) < 0:
        return 0
    if not in_library(compression):
        return compress_with_gil(compression, data, size, into, limit)
    if compression == COMPRESSION_LZ4:
        packed = kv_lz4_compress(data, size, into.data + into.size, room)
    elif compression == COMPRESSION_ZSTD:
        packed = kv_zstd_compress(data, size, into.data + into.size, room)
    else:
        packed = kv_snappy_compress(data, size, into.data + into.size, room)
    if packed == 0 or packed > limit:
        return 0
    into.size += packed
    return 1


cdef int decompress(
    int compression, const uint8_t* data, size_t size, uint8_t* into, size_t raw_size
) noexcept nogil:
    if not in_library(compression):
        return decompress_with_gil(compression, data, size, into, raw_size)
    if compression == COMPRESSION_LZ4:
        return kv_lz4_decompress(data, size, into, raw_size)
    if compression == COMPRESSION_ZSTD:
        return kv_zstd_decompress(data, size, into, raw_size)
    return kv_snappy_decompress(data, size, into, raw_size)


# --- with the GIL, by the packages ----------------------------------------------------------

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
    if compression == COMPRESSION_ZSTD:
        return zstd_contexts()[0].compress(data)
    return bytes(module_of(COMPRESSION_SNAPPY).snappy.compress_raw(data))


cdef int compress_with_gil(
    int compression, const uint8_t* data, size_t size, Buffer* into, size_t limit
) noexcept with gil:
    """`into` has room for `limit`."""
    try:
        packed = compress_in_python(compression, data[:size])
        if <size_t> len(packed) > limit:
            return 0
        memcpy(into.data + into.size, <const uint8_t*> packed, len(packed))
        into.size += len(packed)
        return 1
    except Exception:  # noqa: BLE001 - the block is stored as it is; nothing is lost by it
        return 0


cdef size_t snappy_content_size(bytes data) except? 0:
    """The varint that a Snappy block begins with: bytes of what it holds."""
    size, shift = 0, 0
    for byte in data[:5]:
        size |= (byte & 0x7F) << shift
        if byte < 0x80:
            return size
        shift += 7
    raise ValueError("no size")


cdef object decompress_in_python(int compression, bytes data, size_t raw_size):
    if compression == COMPRESSION_LZ4:
        return module_of(COMPRESSION_LZ4).decompress(data, uncompressed_size=raw_size)
    # These packages allocate what the block claims to hold: ask for the claim first.
    if compression == COMPRESSION_ZSTD:
        if module_of(COMPRESSION_ZSTD).frame_content_size(data) != raw_size:
            return None
        return zstd_contexts()[1].decompress(data, max_output_size=raw_size)
    if snappy_content_size(data) != raw_size:
        return None
    return bytes(module_of(COMPRESSION_SNAPPY).snappy.decompress_raw(data))


cdef int decompress_with_gil(
    int compression, const uint8_t* data, size_t size, uint8_t* into, size_t raw_size
) noexcept with gil:
    try:
        if module_of(compression) is None:
            return DECOMPRESS_MISSING
        raw = decompress_in_python(compression, data[:size], raw_size)
        if raw is None or <size_t> len(raw) != raw_size:
            return DECOMPRESS_DAMAGED
        memcpy(into, <const uint8_t*> (<bytes> raw), raw_size)
        return DECOMPRESSED
    except MemoryError:
        return DECOMPRESS_NO_MEMORY
    except Exception:  # noqa: BLE001 - each package has its own errors for the same thing
        return DECOMPRESS_DAMAGED


# --- for tests ------------------------------------------------------------------------------

def does_without_gil(name):
    return in_library(NAMES.index(name))


def only_packages(bint only):
    global packages_only
    packages_only = only


def packed(name, bytes data):
    cdef int compression = NAMES.index(name)
    cdef const uint8_t* raw = data
    cdef size_t size = len(data)
    cdef Buffer into
    buffer_init(&into)
    try:
        if not compress(compression, raw, size, &into):
            return None
        return <bytes> into.data[: into.size]
    finally:
        buffer_free(&into)


def unpacked(name, bytes data, size_t raw_size):
    cdef bytearray into = bytearray(raw_size + 1)
    cdef int result = decompress(NAMES.index(name), data, len(data), into, raw_size)
    if result != DECOMPRESSED:
        raise ValueError(f"decompression ended with {result}")
    return bytes(into[:raw_size])
