/* Preloaded into one member: its disk takes CHAOS_SYNC_MS longer for each sync. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

static void wait_first(void) {
    const char* text = getenv("CHAOS_SYNC_MS");
    long ms = text ? atol(text) : 0;
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&time, NULL);
}

int fdatasync(int fd) {
    int (*next)(int) = (int (*)(int)) dlsym(RTLD_NEXT, "fdatasync");
    wait_first();
    return next(fd);
}

int fsync(int fd) {
    int (*next)(int) = (int (*)(int)) dlsym(RTLD_NEXT, "fsync");
    wait_first();
    return next(fd);
}
