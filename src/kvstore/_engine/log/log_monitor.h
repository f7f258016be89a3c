// What the log needs of POSIX threads: Cython can't wait on a condition without the GIL. C types
// without constructors that could throw and without destructors: in the child of a fork, where the
// threads that waited aren't there, destroying a condition would wait for them.
#ifndef KVSTORE_LOG_MONITOR_H
#define KVSTORE_LOG_MONITOR_H

#include <pthread.h>
#include <time.h>

namespace kvstore_log {

// A mutex, a condition for each of the log's own threads, and a line of those who wait for the
// flusher. They are called one at a time, each by the one before it: woken all at once they would only
// meet again at the next lock (Python's).
struct Monitor {
    struct Waiter {
        pthread_cond_t condition;
        Waiter* next;
        bool called;
    };
    pthread_mutex_t mutex;
    pthread_cond_t changed;     // of the thread that writes behind
    pthread_cond_t asked;       // of the one that syncs
    Waiter* first;
    Waiter* last;

    Monitor() : first(nullptr), last(nullptr) {
        pthread_mutex_init(&mutex, nullptr);
        pthread_condattr_t attributes;
        pthread_condattr_init(&attributes);
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
        pthread_cond_init(&changed, &attributes);
        pthread_condattr_destroy(&attributes);
        pthread_cond_init(&asked, nullptr);
    }
    void lock() { pthread_mutex_lock(&mutex); }
    void unlock() { pthread_mutex_unlock(&mutex); }
    void wait() { pthread_cond_wait(&changed, &mutex); }
    void wait_microseconds(long microseconds) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += microseconds * 1000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&changed, &mutex, &until);
    }
    void notify() { pthread_cond_broadcast(&changed); }
    void wait_until_asked() { pthread_cond_wait(&asked, &mutex); }
    void ask() { pthread_cond_signal(&asked); }
    // `again`: at the head, as one who was called in vain.
    void wait_in_line(bool again) {
        Waiter own;
        pthread_cond_init(&own.condition, nullptr);
        own.called = false;
        own.next = again ? first : nullptr;
        if (again) {
            first = &own;
            if (last == nullptr) last = &own;
        } else {
            if (last != nullptr) last->next = &own; else first = &own;
            last = &own;
        }
        while (!own.called) pthread_cond_wait(&own.condition, &mutex);
        pthread_cond_destroy(&own.condition);
    }
    void call_next() {
        Waiter* next = first;
        if (next == nullptr) return;
        first = next->next;
        if (first == nullptr) last = nullptr;
        next->called = true;
        pthread_cond_signal(&next->condition);
    }
};

}  // namespace kvstore_log

#endif
