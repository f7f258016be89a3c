/* The C libraries of the codecs, where the machine has them: liblz4, libzstd and libsnappy, found
   at run time, so that neither a build nor a wheel needs their headers or packages. Their functions
   run without the GIL. All three have kept these names and their meaning since the major version in
   the file's name. */
#pragma once

#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>

namespace kvstore_codecs {

template <typename Function>
static bool find(void* library, const char* name, Function** into) {
    *into = reinterpret_cast<Function*>(dlsym(library, name));
    return *into != nullptr;
}

static inline void* library(const char* name) {
    return dlopen(name, RTLD_NOW | RTLD_LOCAL);     /* held for the life of the process */
}

struct Lz4 {
    int (*compress)(const char*, char*, int, int);
    int (*decompress)(const char*, char*, int, int);
    bool there;
    Lz4() {
        void* found = library("liblz4.so.1");
        there = found && find(found, "LZ4_compress_default", &compress)
            && find(found, "LZ4_decompress_safe", &decompress);
    }
};

struct Zstd {
    void* (*new_compressor)();
    void* (*new_decompressor)();
    size_t (*free_compressor)(void*);
    size_t (*free_decompressor)(void*);
    size_t (*compress)(void*, void*, size_t, const void*, size_t, int);
    size_t (*decompress)(void*, void*, size_t, const void*, size_t);
    unsigned long long (*content_size)(const void*, size_t);
    unsigned (*is_error)(size_t);
    bool there;
    Zstd() {
        void* found = library("libzstd.so.1");
        there = found && find(found, "ZSTD_createCCtx", &new_compressor)
            && find(found, "ZSTD_createDCtx", &new_decompressor)
            && find(found, "ZSTD_freeCCtx", &free_compressor)
            && find(found, "ZSTD_freeDCtx", &free_decompressor)
            && find(found, "ZSTD_compressCCtx", &compress)
            && find(found, "ZSTD_decompressDCtx", &decompress)
            && find(found, "ZSTD_getFrameContentSize", &content_size)
            && find(found, "ZSTD_isError", &is_error);
    }
};

struct Snappy {
    int (*compress)(const char*, size_t, char*, size_t*);
    int (*decompress)(const char*, size_t, char*, size_t*);
    int (*content_size)(const char*, size_t, size_t*);
    bool there;
    Snappy() {
        void* found = library("libsnappy.so.1");
        there = found && find(found, "snappy_compress", &compress)
            && find(found, "snappy_uncompress", &decompress)
            && find(found, "snappy_uncompressed_length", &content_size);
    }
};

static inline const Lz4& lz4() { static const Lz4 codec; return codec; }
static inline const Zstd& zstd() { static const Zstd codec; return codec; }
static inline const Snappy& snappy() { static const Snappy codec; return codec; }

/* Zstandard's contexts are large and not to be shared: each thread keeps its own pair. */
struct ZstdContexts {
    void* compressor = nullptr;
    void* decompressor = nullptr;
    ~ZstdContexts() {
        if (compressor) zstd().free_compressor(compressor);
        if (decompressor) zstd().free_decompressor(decompressor);
    }
};

static inline ZstdContexts& zstd_contexts() {
    static thread_local ZstdContexts contexts;
    return contexts;
}

static const int ZSTD_LEVEL = 1;
static const size_t LZ4_BYTES_MAX = 0x7E000000;     /* LZ4_MAX_INPUT_SIZE */

}  // namespace kvstore_codecs

static inline int kv_codec_lz4() { return kvstore_codecs::lz4().there; }
static inline int kv_codec_zstd() { return kvstore_codecs::zstd().there; }
static inline int kv_codec_snappy() { return kvstore_codecs::snappy().there; }

/* The compressed bytes are at `into`; their number, or 0 where they don't fit into `limit` (that
   the packed form is as large as the raw one says nothing worse than that it doesn't pay). */
static inline size_t kv_lz4_compress(const uint8_t* data, size_t size, uint8_t* into, size_t limit) {
    if (size > kvstore_codecs::LZ4_BYTES_MAX) return 0;
    int packed = kvstore_codecs::lz4().compress(
        reinterpret_cast<const char*>(data), reinterpret_cast<char*>(into),
        static_cast<int>(size), static_cast<int>(limit));
    return packed > 0 ? static_cast<size_t>(packed) : 0;
}

static inline size_t kv_zstd_compress(const uint8_t* data, size_t size, uint8_t* into, size_t limit) {
    const kvstore_codecs::Zstd& codec = kvstore_codecs::zstd();
    kvstore_codecs::ZstdContexts& own = kvstore_codecs::zstd_contexts();
    if (!own.compressor) own.compressor = codec.new_compressor();
    if (!own.compressor) return 0;
    size_t packed = codec.compress(
        own.compressor, into, limit, data, size, kvstore_codecs::ZSTD_LEVEL);
    return codec.is_error(packed) ? 0 : packed;
}

/* `limit` must be kv_snappy_bound(size) at least. */
static inline size_t kv_snappy_bound(size_t size) { return 32 + size + size / 6; }

static inline size_t kv_snappy_compress(
        const uint8_t* data, size_t size, uint8_t* into, size_t limit) {
    try {
        size_t packed = limit;
        if (kvstore_codecs::snappy().compress(
                reinterpret_cast<const char*>(data), size, reinterpret_cast<char*>(into), &packed))
            return 0;
        return packed;
    } catch (...) {             /* its own memory ran out */
        return 0;
    }
}

/* 0: exactly `raw` bytes are at `into`; -1: not that; -3: no memory. */
static inline int kv_lz4_decompress(const uint8_t* data, size_t size, uint8_t* into, size_t raw) {
    if (size > kvstore_codecs::LZ4_BYTES_MAX || raw > kvstore_codecs::LZ4_BYTES_MAX) return -1;
    int got = kvstore_codecs::lz4().decompress(
        reinterpret_cast<const char*>(data), reinterpret_cast<char*>(into),
        static_cast<int>(size), static_cast<int>(raw));
    return got >= 0 && static_cast<size_t>(got) == raw ? 0 : -1;
}

static inline int kv_zstd_decompress(const uint8_t* data, size_t size, uint8_t* into, size_t raw) {
    const kvstore_codecs::Zstd& codec = kvstore_codecs::zstd();
    kvstore_codecs::ZstdContexts& own = kvstore_codecs::zstd_contexts();
    if (codec.content_size(data, size) != raw) return -1;
    if (!own.decompressor) own.decompressor = codec.new_decompressor();
    if (!own.decompressor) return -3;
    size_t got = codec.decompress(own.decompressor, into, raw, data, size);
    return !codec.is_error(got) && got == raw ? 0 : -1;
}

static inline int kv_snappy_decompress(const uint8_t* data, size_t size, uint8_t* into, size_t raw) {
    const kvstore_codecs::Snappy& codec = kvstore_codecs::snappy();
    const char* packed = reinterpret_cast<const char*>(data);
    size_t claimed = 0;
    try {
        if (codec.content_size(packed, size, &claimed) || claimed != raw) return -1;
        if (codec.decompress(packed, size, reinterpret_cast<char*>(into), &claimed)) return -1;
        return claimed == raw ? 0 : -1;
    } catch (...) {
        return -3;
    }
}
