"""Finding librados."""

cdef extern from "<dlfcn.h>" nogil:
    void* dlopen(const char* path, int flags)
    void* dlsym(void* handle, const char* name)
    char* dlerror()
    int RTLD_NOW, RTLD_LOCAL

NAMES = (
    b"rados_version",
    b"rados_create2",
    b"rados_conf_read_file",
    b"rados_conf_set",
    b"rados_conf_get",
    b"rados_connect",
    b"rados_shutdown",
    b"rados_cluster_fsid",
    b"rados_pool_lookup",
    b"rados_ioctx_create",
    b"rados_ioctx_destroy",
    b"rados_ioctx_set_namespace",
    b"rados_ioctx_get_id",
    b"rados_set_osdmap_full_try",
    b"rados_aio_create_completion",
    b"rados_aio_get_return_value",
    b"rados_aio_get_version",
    b"rados_aio_cancel",
    b"rados_aio_release",
    b"rados_create_write_op",
    b"rados_release_write_op",
    b"rados_write_op_assert_version",
    b"rados_write_op_create",
    b"rados_write_op_write_full",
    b"rados_write_op_truncate",
    b"rados_write_op_omap_set",
    b"rados_write_op_omap_rm_keys",
    b"rados_write_op_remove",
    b"rados_aio_write_op_operate",
    b"rados_create_read_op",
    b"rados_release_read_op",
    b"rados_read_op_read",
    b"rados_read_op_omap_get_vals_by_keys",
    b"rados_read_op_omap_get_vals2",
    b"rados_aio_read_op_operate",
    b"rados_omap_get_next",
    b"rados_omap_get_end",
    b"rados_object_list_begin",
    b"rados_object_list_end",
    b"rados_object_list_is_end",
    b"rados_object_list_cursor_free",
    b"rados_object_list",
    b"rados_object_list_free",
)

cdef Librados rados
cdef bint loaded = False


def load(str name):
    """Load the library ``name`` once for the process: its version, such as ``(3, 0, 0)``.

    Raises OSError that says what is missing: the library, or a function of it.
    """
    global loaded
    cdef void* handle
    cdef void* found
    cdef int major = 0, minor = 0, extra = 0
    cdef size_t place = 0
    if not loaded:
        assert sizeof(Librados) == len(NAMES) * sizeof(void*)
        encoded = name.encode()
        # It stays for good: its threads may run until the process ends.
        handle = dlopen(encoded, RTLD_NOW | RTLD_LOCAL)
        if handle == NULL:
            raise OSError(dlerror().decode("utf-8", "replace"))
        for function in NAMES:
            found = dlsym(handle, function)
            if found == NULL:
                raise OSError(f"{name} has no {function.decode()}")
            (<void**> &rados)[place] = found
            place += 1
        loaded = True
    rados.version(&major, &minor, &extra)
    return major, minor, extra
