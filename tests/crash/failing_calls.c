/* Preloaded into a process: one of its system calls on files below a directory fails, or does half of
   what it was asked for. The process says which by fail_call(). */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/types.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(&name)) dlsym(RTLD_NEXT, #name))

static char directory[PATH_MAX], kind[32];
static atomic_long left, seen; /* calls before the one that fails, 0: none does; calls so far */
static int error;              /* what it fails with; 0: it does half */

/* The at-th call of a kind from now on below a directory; at 0: none any more. */
void fail_call(const char* below, const char* which, long at, int number) {
    atomic_store(&left, 0);
    snprintf(directory, sizeof(directory), "%s", below);
    snprintf(kind, sizeof(kind), "%s", which);
    error = number;
    atomic_store(&seen, 0);
    atomic_store(&left, at);
}

/* How many calls of the kind there were since. */
long calls_seen(void) { return atomic_load(&seen); }

static int is_meant(const char* which, const char* path) {
    if (!directory[0] || strcmp(which, kind) || strncmp(path, directory, strlen(directory))) return 0;
    atomic_fetch_add(&seen, 1);
    return atomic_load(&left) > 0 && atomic_fetch_sub(&left, 1) == 1;
}

static int is_meant_of(const char* which, int fd) {
    char link[32], path[PATH_MAX];
    int before = errno;
    if (!directory[0] || strcmp(which, kind)) return 0;
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof(path) - 1);
    errno = before;
    if (length < 0) return 0;
    path[length] = 0;
    return is_meant(which, path);
}

static long refused(void) {
    errno = error;
    return -1;
}

int open64(const char* path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return is_meant("open", path) ? (int) refused() : NEXT(open64)(path, flags, mode);
}

ssize_t pwrite64(int fd, const void* data, size_t size, off64_t offset) {
    if (is_meant_of("pwrite", fd)) {
        if (error) return refused();
        size = (size + 1) / 2;
    }
    return NEXT(pwrite64)(fd, data, size, offset);
}

ssize_t pread64(int fd, void* into, size_t size, off64_t offset) {
    if (is_meant_of("pread", fd)) {
        if (error) return refused();
        size = (size + 1) / 2;
    }
    return NEXT(pread64)(fd, into, size, offset);
}

int ftruncate64(int fd, off64_t size) {
    return is_meant_of("ftruncate", fd) ? (int) refused() : NEXT(ftruncate64)(fd, size);
}

int posix_fallocate64(int fd, off64_t offset, off64_t size) {
    return is_meant_of("fallocate", fd) ? error : NEXT(posix_fallocate64)(fd, offset, size);
}

int fdatasync(int fd) { return is_meant_of("fdatasync", fd) ? (int) refused() : NEXT(fdatasync)(fd); }
int fsync(int fd) { return is_meant_of("fsync", fd) ? (int) refused() : NEXT(fsync)(fd); }

int close(int fd) {
    int meant = is_meant_of("close", fd), result = NEXT(close)(fd);
    return meant ? (int) refused() : result; /* it is closed all the same, as Linux does */
}

DIR* opendir(const char* path) {
    return is_meant("opendir", path) ? (refused(), NULL) : NEXT(opendir)(path);
}

int rename(const char* old, const char* new) {
    return is_meant("rename", old) ? (int) refused() : NEXT(rename)(old, new);
}

int link(const char* old, const char* new) {
    return is_meant("link", old) ? (int) refused() : NEXT(link)(old, new);
}

int unlink(const char* path) {
    return is_meant("unlink", path) ? (int) refused() : NEXT(unlink)(path);
}

int mkdir(const char* path, mode_t mode) {
    return is_meant("mkdir", path) ? (int) refused() : NEXT(mkdir)(path, mode);
}
