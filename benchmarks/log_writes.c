// How small records can get into a file of reserved space: docs/performance.md, "Log".
// cc -O2 benchmarks/log_writes.c -o build/log_writes && build/log_writes build/log_writes.tmp
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

enum { FILE_BYTES = 64 << 20, RECORD_BYTES = 176, RECORDS = FILE_BYTES / RECORD_BYTES - 10 };
enum { FAULT, POPULATE, LOCK };

static const char* path;
static char record[RECORD_BYTES];

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static int fresh_file(void) {
    unlink(path);
    int fd = open(path, O_RDWR | O_CREAT, 0644);
    if (fd < 0 || posix_fallocate(fd, 0, FILE_BYTES)) {
        perror(path);
        exit(1);
    }
    return fd;
}

static void report(const char* what, size_t bytes, double began) {
    printf("%-24s %8zu bytes  %.3f us a record\n", what, bytes, (now() - began) / RECORDS * 1e6);
}

static void write_groups(size_t group_bytes) {
    char* group = malloc(group_bytes + RECORD_BYTES);
    size_t size = 0, offset = 0;
    int fd = fresh_file();
    double began = now();
    for (size_t i = 0; i < RECORDS; i++) {
        memcpy(group + size, record, RECORD_BYTES);
        size += RECORD_BYTES;
        if (size >= group_bytes) {
            if (pwrite(fd, group, size, (off_t)offset) != (ssize_t)size) perror("pwrite");
            offset += size;
            size = 0;
        }
    }
    report("pwrite", group_bytes, began);
    close(fd);
    free(group);
}

static void store(const char* what, int ahead, size_t window) {
    int fd = fresh_file();
    char* map = mmap(NULL, FILE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    size_t done = 0;
    double began = now();
    for (size_t i = 0; i < RECORDS; i++) {
        if (ahead != FAULT && (i + 1) * RECORD_BYTES > done) {
            if (ahead == POPULATE && madvise(map + done, window, MADV_POPULATE_WRITE)) perror("madvise");
            if (ahead == LOCK && done) munlock(map + done - window, window);
            if (ahead == LOCK && mlock(map + done, window)) perror("mlock");
            done += window;
        }
        memcpy(map + i * RECORD_BYTES, record, RECORD_BYTES);
    }
    report(what, window, began);
    munmap(map, FILE_BYTES);
    close(fd);
}

int main(int argc, char** argv) {
    path = argc > 1 ? argv[1] : "log_writes.tmp";
    write_groups(RECORD_BYTES);
    for (size_t group = 4096; group <= 262144; group *= 4) write_groups(group);
    store("store", FAULT, 0);
    for (size_t window = 65536; window <= 1 << 20; window *= 4) {
        store("store, populated ahead", POPULATE, window);
        store("store, locked ahead", LOCK, window);
    }
    unlink(path);
    return 0;
}
