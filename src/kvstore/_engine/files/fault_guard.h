/* Reading a file through a memory map, where a page that can't be had ends the reading and not the
   process.

   The kernel says so with SIGBUS, to the thread that read. One handler for the process, put in place
   with the first map and never taken away: a fault of a guarded reading goes back to where that
   began, any other one to whoever was there before, as if this one weren't. It stands as long as
   nobody else takes its place, which is looked at now and then (guard_holds()), and can do nothing for
   a thread that blocks SIGBUS, which the kernel then ends together with the process. */
#pragma once

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

namespace kvstore_files {

struct FaultGuard {
    sigjmp_buf back;
    const uint8_t* from;
    const uint8_t* end;
};

/* In the memory that a thread has from its start: the first use of any other kind may allocate, which a
   handler of signals must not. */
#define KVSTORE_THREAD_LOCAL static thread_local __attribute__((tls_model("initial-exec")))

KVSTORE_THREAD_LOCAL FaultGuard* guard_here = nullptr;
KVSTORE_THREAD_LOCAL unsigned readings = 0;
enum { READINGS_UNSEEN = 64 };      /* of each thread, until it is looked at again */
static int standing = 0;            /* atomic: whether it stood then */
static struct sigaction handler_before;
static pthread_mutex_t handler_lock = PTHREAD_MUTEX_INITIALIZER;
static bool installed = false;

static void on_bus_error(int number, siginfo_t* info, void* context) {
    FaultGuard* guard = guard_here;
    if (guard != nullptr) {
        const uint8_t* at = static_cast<const uint8_t*>(info->si_addr);
        /* By raise(): a handler that came later was told of the fault and hands it on (Python's
           faulthandler does). */
        bool handed_on = info->si_code == SI_TKILL && info->si_pid == getpid();
        if (handed_on || (info->si_code > 0 && at >= guard->from && at < guard->end)) {
            siglongjmp(guard->back, 1);
        }
    }
    if (handler_before.sa_flags & SA_SIGINFO) {
        handler_before.sa_sigaction(number, info, context);
    } else if (handler_before.sa_handler != SIG_DFL && handler_before.sa_handler != SIG_IGN) {
        handler_before.sa_handler(number);
    } else if (handler_before.sa_handler == SIG_DFL || info->si_code > 0) {
        /* A fault comes again as soon as this returns; what somebody sent has to be sent again. */
        struct sigaction plain;
        memset(&plain, 0, sizeof plain);
        plain.sa_handler = SIG_DFL;
        sigaction(number, &plain, nullptr);
        if (info->si_code <= 0) raise(number);
    }
}

static inline bool is_ours(const struct sigaction* now) {
    return (now->sa_flags & SA_SIGINFO) && now->sa_sigaction == on_bus_error;
}

/* Whether a map may be read: as of this moment for the `first` reading of a part, else as of some
   readings ago, since it is a call of the system. */
static inline int guard_holds(int first) {
    struct sigaction now;
    if (!first && ++readings % READINGS_UNSEEN) return __atomic_load_n(&standing, __ATOMIC_RELAXED);
    int holds = sigaction(SIGBUS, nullptr, &now) == 0 && is_ours(&now);
    __atomic_store_n(&standing, holds, __ATOMIC_RELAXED);
    return holds;
}

/* Whether the handler stands; puts it in place the first time. */
static inline int guard_stands() {
    struct sigaction now;
    pthread_mutex_lock(&handler_lock);
    if (!installed && sigaction(SIGBUS, nullptr, &handler_before) == 0) {
        memset(&now, 0, sizeof now);
        now.sa_sigaction = on_bus_error;
        /* Not deferred: the way back doesn't restore the mask of signals, which would be a call. */
        now.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
        sigemptyset(&now.sa_mask);
        installed = sigaction(SIGBUS, &now, nullptr) == 0;
    }
    int stands = installed && sigaction(SIGBUS, nullptr, &now) == 0 && is_ours(&now);
    __atomic_store_n(&standing, stands, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&handler_lock);
    return stands;
}

/* What `work` returns; -EFAULT where it met a page of [from, end) that can't be had. It ends there
   then, so it must hold no lock, and what it keeps must be reached through `state`. */
static inline int run_guarded(
        int (*work)(void* state), void* state, const uint8_t* from, const uint8_t* end) {
    FaultGuard guard;
    guard.from = from;
    guard.end = end;
    if (sigsetjmp(guard.back, 0)) {
        guard_here = nullptr;
        return -EFAULT;
    }
    guard_here = &guard;
    __asm__ volatile("" : : : "memory");
    int result = work(state);
    __asm__ volatile("" : : : "memory");
    guard_here = nullptr;
    return result;
}

}  // namespace kvstore_files
