/* Preloaded into kvd: before each sync the file $DISK_TROUBLE says what becomes of it.
   "slow MS": it takes so much longer; "hang": it begins when the file says something else;
   "fail": it fails with EIO; "fail PART": so does that of a file whose path has PART in it; anything
   else, or no file: nothing. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void wait_ms(long ms) {
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&time, NULL);
}

static void read_words(char* words, size_t size) {
    const char* path = getenv("DISK_TROUBLE");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    ssize_t length = file < 0 ? 0 : read(file, words, size - 1);
    if (file >= 0) close(file);
    words[length < 0 ? 0 : length] = 0;
}

static int path_has(int fd, const char* part) {
    char link[32], path[PATH_MAX];
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof(path) - 1);
    path[length < 0 ? 0 : length] = 0;
    return strstr(path, part) != NULL;
}

static int obey(int fd) {
    char words[32];
    read_words(words, sizeof(words));
    if (!strncmp(words, "slow ", 5)) wait_ms(atol(words + 5));
    while (!strncmp(words, "hang", 4)) {
        wait_ms(5);
        read_words(words, sizeof(words));
    }
    if (!strncmp(words, "fail ", 5)) return path_has(fd, words + 5);
    return !strcmp(words, "fail");
}

static int sync_with(const char* name, int fd) {
    int (*next)(int) = (int (*)(int)) dlsym(RTLD_NEXT, name);
    if (obey(fd)) {
        errno = EIO;
        return -1;
    }
    return next(fd);
}

int fdatasync(int fd) { return sync_with("fdatasync", fd); }
int fsync(int fd) { return sync_with("fsync", fd); }
