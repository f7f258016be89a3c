"""The C interface of librados, as far as it is used.

Stable since Ceph 12 (``librados.h``); found by name at run time, so that a package built where
there is no Ceph runs where there is. All functions end with 0 or a count, or with a negative errno.
"""

from libc.stdint cimport int64_t, uint64_t

ctypedef void (*rados_callback)(void* completion, void* argument) noexcept nogil

cdef struct rados_item:
    size_t oid_length
    char* oid
    size_t nspace_length
    char* nspace
    size_t locator_length
    char* locator

# In the order of NAMES in library.pyx: the two are loaded as one array of pointers.
cdef struct Librados:
    void (*version)(int* major, int* minor, int* extra) noexcept nogil
    # Clusters.
    int (*create2)(void** cluster, const char* cluster_name, const char* name, uint64_t flags) noexcept nogil
    int (*conf_read_file)(void* cluster, const char* path) noexcept nogil
    int (*conf_set)(void* cluster, const char* option, const char* value) noexcept nogil
    int (*conf_get)(void* cluster, const char* option, char* buffer, size_t size) noexcept nogil
    int (*connect)(void* cluster) noexcept nogil
    void (*shutdown)(void* cluster) noexcept nogil
    int (*cluster_fsid)(void* cluster, char* buffer, size_t size) noexcept nogil
    # Pools; the two that look one up do it in the map that the client has.
    int64_t (*pool_lookup)(void* cluster, const char* name) noexcept nogil
    int (*ioctx_create)(void* cluster, const char* name, void** io) noexcept nogil
    void (*ioctx_destroy)(void* io) noexcept nogil
    void (*ioctx_set_namespace)(void* io, const char* name) noexcept nogil
    int64_t (*ioctx_get_id)(void* io) noexcept nogil
    void (*set_full_try)(void* io) noexcept nogil
    # Completions.
    int (*aio_create_completion)(void* argument, rados_callback complete, rados_callback safe, void** completion) noexcept nogil
    int (*aio_get_return_value)(void* completion) noexcept nogil
    uint64_t (*aio_get_version)(void* completion) noexcept nogil
    int (*aio_cancel)(void* io, void* completion) noexcept nogil
    void (*aio_release)(void* completion) noexcept nogil
    # Writes. What is handed in is copied; keys end with NUL.
    void* (*create_write_op)() noexcept nogil
    void (*release_write_op)(void* op) noexcept nogil
    void (*write_op_assert_version)(void* op, uint64_t version) noexcept nogil
    void (*write_op_create)(void* op, int exclusive, const char* category) noexcept nogil
    void (*write_op_write_full)(void* op, const char* data, size_t size) noexcept nogil
    void (*write_op_truncate)(void* op, uint64_t offset) noexcept nogil
    void (*write_op_omap_set)(void* op, const char** keys, const char** values, const size_t* sizes, size_t count) noexcept nogil
    void (*write_op_omap_rm_keys)(void* op, const char** keys, size_t count) noexcept nogil
    void (*write_op_remove)(void* op) noexcept nogil
    int (*aio_write_op_operate)(void* op, void* io, void* completion, const char* oid, void* mtime, int flags) noexcept nogil
    # Reads. An iterator is there at once, and to be ended whatever becomes of the operation.
    void* (*create_read_op)() noexcept nogil
    void (*release_read_op)(void* op) noexcept nogil
    void (*read_op_read)(void* op, uint64_t offset, size_t size, char* data, size_t* got, int* code) noexcept nogil
    void (*read_op_omap_get_vals_by_keys)(void* op, const char** keys, size_t count, void** iterator, int* code) noexcept nogil
    void (*read_op_omap_get_vals2)(void* op, const char* after, const char* prefix, uint64_t most, void** iterator, unsigned char* more, int* code) noexcept nogil
    int (*aio_read_op_operate)(void* op, void* io, void* completion, const char* oid, int flags) noexcept nogil
    int (*omap_get_next)(void* iterator, char** key, char** value, size_t* size) noexcept nogil
    void (*omap_get_end)(void* iterator) noexcept nogil
    # The objects of a pool's namespace, from a place on.
    void* (*object_list_begin)(void* io) noexcept nogil
    void* (*object_list_end)(void* io) noexcept nogil
    int (*object_list_is_end)(void* io, void* cursor) noexcept nogil
    void (*object_list_cursor_free)(void* io, void* cursor) noexcept nogil
    int (*object_list)(void* io, void* start, void* finish, size_t most, const char* filter, size_t filter_size, rados_item* items, void** next) noexcept nogil
    void (*object_list_free)(size_t count, rados_item* items) noexcept nogil

cdef Librados rados
