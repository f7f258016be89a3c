/* Preloaded into a process: one of its system calls on files below a directory fails, or does half of
   what it was asked for. The process says which by fail_call().

   Or the process ends: with KILL_AT=n by SIGKILL, at the n-th call below KILL_BELOW that changes
   something, whatever its kind and thread. How many there were is in the file KILL_COUNTED when it
   ends by itself.

   Or each call below a directory is looked at, from watch_the_gil() on: calls_with_gil() names those that
   were made with Python's GIL held. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(&name)) dlsym(RTLD_NEXT, #name))

static char directory[PATH_MAX], kind[32];
static atomic_long left, seen; /* calls before the one that fails, 0: none does; calls so far */
static int error;              /* what it fails with; 0: it does half */
static int kills;              /* the process, rather than fail: then of all kinds that change something */
static int (*has_gil)(void);   /* where calls are watched: of all kinds */
static char with_gil[1 << 16]; /* their kinds, a space before each; whoever writes it has the GIL */

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

/* Each call from now on below a directory. */
void watch_the_gil(const char* below) {
    with_gil[0] = 0;
    fail_call(below, "", 0, 0);
    has_gil = (int (*)(void)) dlsym(RTLD_DEFAULT, "PyGILState_Check");
}

/* The kinds of the calls since that their callers held the GIL over. */
const char* calls_with_gil(void) { return with_gil; }

static void look_at_the_gil(const char* which) {
    size_t length = strlen(with_gil);
    if (has_gil()) snprintf(with_gil + length, sizeof(with_gil) - length, " %s", which);
}

__attribute__((constructor)) static void begin_to_count(void) {
    const char *at = getenv("KILL_AT"), *below = getenv("KILL_BELOW");
    if (!at || !below) return;
    kills = 1;
    fail_call(below, "", atol(at), 0);
}

__attribute__((destructor)) static void tell_the_count(void) {
    const char* counted = getenv("KILL_COUNTED");
    FILE* file = kills && counted ? fopen(counted, "w") : NULL;
    if (!file) return;
    fprintf(file, "%ld\n", calls_seen());
    fclose(file);
}

static int changes_something(const char* which) {
    return strcmp(which, "open") && strcmp(which, "opendir") && strcmp(which, "pread") &&
           strcmp(which, "close") && strcmp(which, "stat") && strcmp(which, "fstat") &&
           strcmp(which, "flock") && strcmp(which, "statvfs");
}

static int is_asked_for(const char* which) {
    if (has_gil) return 1;
    return directory[0] && (kills ? changes_something(which) : !strcmp(which, kind));
}

static int is_meant(const char* which, const char* path) {
    if (!is_asked_for(which) || strncmp(path, directory, strlen(directory))) return 0;
    atomic_fetch_add(&seen, 1);
    if (has_gil) look_at_the_gil(which);
    int meant = atomic_load(&left) > 0 && atomic_fetch_sub(&left, 1) == 1;
    if (meant && kills) raise(SIGKILL);
    return meant;
}

static int is_meant_of(const char* which, int fd) {
    char link[32], path[PATH_MAX];
    int before = errno;
    if (!is_asked_for(which)) return 0;
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
    if (is_meant("open", path) || (flags & O_CREAT && is_meant("create", path))) return (int) refused();
    return NEXT(open64)(path, flags, mode);
}

ssize_t write(int fd, const void* data, size_t size) {
    return is_meant_of("write", fd) ? refused() : NEXT(write)(fd, data, size);
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

int rmdir(const char* path) { return is_meant("rmdir", path) ? (int) refused() : NEXT(rmdir)(path); }

int stat64(const char* path, struct stat64* result) {
    return is_meant("stat", path) ? (int) refused() : NEXT(stat64)(path, result);
}

int fstat64(int fd, struct stat64* result) {
    return is_meant_of("fstat", fd) ? (int) refused() : NEXT(fstat64)(fd, result);
}

int statvfs64(const char* path, struct statvfs64* result) {
    return is_meant("statvfs", path) ? (int) refused() : NEXT(statvfs64)(path, result);
}

int flock(int fd, int operation) {
    return is_meant_of("flock", fd) ? (int) refused() : NEXT(flock)(fd, operation);
}
