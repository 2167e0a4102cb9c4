/* Threads that stay, and loops over tasks that all of them share.

   One thread calls `pool_run`; the others wake, and every one runs the same function. In it, `pool_each` hands out
   the tasks of a loop, one after the other to whoever is free, and returns when all of them are done. Nobody waits
   for a thread that has no task: one whose processor is taken away between two tasks, or that wakes late, finds the
   loops behind which the others are already over, and skips them. */
#ifndef POOL_H
#define POOL_H

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "fp24.h"

enum { SPINS = 2000, YIELDS = 2000, IDLE_SPINS = 20000, CONTEXT_BYTES = 512, TASK_BITS = 24 };

struct pool;
typedef void (*pool_function)(struct pool *, int thread, int64_t loop, void *context);
typedef void (*pool_task)(void *context, int task);

/* A loop has a number, one more than that of the loop before it, in whatever call. */
struct pool {
    int threads;
    pid_t process; /* whose threads they are: a process that forks from it has none */
    pthread_t *others;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    pool_function function;
    char context[CONTEXT_BYTES]; /* a copy: who comes late must not look at what the caller has taken back */
    int64_t first;               /* loop of the call */
    int64_t calls;               /* of pool_run; odd while the members above change; -1: the end */
    char apart0[64];
    int64_t ticket; /* loop under way, and its next task in the low bits */
    char apart1[64];
    int64_t done; /* tasks of it that are done */
    char apart2[64];
};

struct pool_start {
    struct pool *pool;
    int thread;
};

INLINE void pool_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Waits until a loop is over: spinning, then giving the processor to others, then asleep. */
static void pool_await(const struct pool *pool, int64_t loop) {
    for (int round = 0; __atomic_load_n(&pool->ticket, __ATOMIC_ACQUIRE) >> TASK_BITS == loop; round++) {
        if (round < SPINS)
            pool_pause();
        else if (round < SPINS + YIELDS)
            sched_yield();
        else
            nanosleep(&(struct timespec){0, 50000}, NULL);
    }
}

/* Tasks 0 to count - 1 of loop *loop, of which every thread has the same number; it is one more afterwards. No
   tasks are no loop. */
static void pool_each(struct pool *pool, int64_t *loop, pool_task task, void *context, int count) {
    if (count < 1)
        return;
    int64_t own = (*loop)++, ticket = __atomic_load_n(&pool->ticket, __ATOMIC_ACQUIRE);
    while (ticket >> TASK_BITS == own && (ticket & ((1 << TASK_BITS) - 1)) < count) {
        if (!__atomic_compare_exchange_n(&pool->ticket, &ticket, ticket + 1, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
            continue;
        task(context, (int)(ticket & ((1 << TASK_BITS) - 1)));
        if (__atomic_add_fetch(&pool->done, 1, __ATOMIC_ACQ_REL) == count) {
            __atomic_store_n(&pool->done, 0, __ATOMIC_RELAXED);
            __atomic_store_n(&pool->ticket, (own + 1) << TASK_BITS, __ATOMIC_RELEASE);
        }
        ticket = __atomic_load_n(&pool->ticket, __ATOMIC_ACQUIRE);
    }
    pool_await(pool, own);
}

/* Runs the call that is under way, unless it changes while its context is copied. */
static int64_t pool_join(struct pool *pool, int thread) {
    char context[CONTEXT_BYTES] __attribute__((aligned(16)));
    int64_t calls = __atomic_load_n(&pool->calls, __ATOMIC_ACQUIRE), first = pool->first;
    pool_function function = pool->function;
    if (calls < 0 || calls & 1)
        return calls;
    memcpy(context, pool->context, sizeof context);
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    if (__atomic_load_n(&pool->calls, __ATOMIC_RELAXED) == calls)
        function(pool, thread, first, context);
    return calls;
}

static void *pool_thread(void *start) {
    struct pool *pool = ((struct pool_start *)start)->pool;
    int thread = ((struct pool_start *)start)->thread;
    int64_t seen = 0;
    free(start);
    while (seen >= 0) {
        for (int round = 0; round < IDLE_SPINS && __atomic_load_n(&pool->calls, __ATOMIC_ACQUIRE) == seen; round++)
            pool_pause();
        if (__atomic_load_n(&pool->calls, __ATOMIC_ACQUIRE) == seen) {
            pthread_mutex_lock(&pool->mutex);
            while (pool->calls == seen)
                pthread_cond_wait(&pool->wake, &pool->mutex);
            pthread_mutex_unlock(&pool->mutex);
        }
        seen = pool_join(pool, thread);
    }
    return NULL;
}

/* Says that the call has changed, or is the last. */
static void pool_signal(struct pool *pool, int64_t calls) {
    pthread_mutex_lock(&pool->mutex);
    __atomic_store_n(&pool->calls, calls, __ATOMIC_RELEASE);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
}

/* Runs `function` on all threads, each with its own copy of the `bytes` of `context`; the caller has the original. */
static void pool_run(struct pool *pool, pool_function function, void *context, int bytes) {
    int64_t first = pool->ticket >> TASK_BITS;
    if (pool->threads > 1 && pool->process == getpid()) {
        __atomic_store_n(&pool->calls, pool->calls + 1, __ATOMIC_RELAXED);
        __atomic_thread_fence(__ATOMIC_RELEASE);
        pool->function = function;
        pool->first = first;
        memcpy(pool->context, context, bytes);
        pool_signal(pool, pool->calls + 1);
    }
    function(pool, 0, first, context);
}

static void pool_free(struct pool *pool) {
    if (pool->process != getpid())
        return;
    if (pool->threads > 1)
        pool_signal(pool, -1);
    for (int k = 0; k + 1 < pool->threads; k++)
        pthread_join(pool->others[k], NULL);
    pthread_mutex_destroy(&pool->mutex);
    pthread_cond_destroy(&pool->wake);
    free(pool->others);
    free(pool);
}

/* Signals that a thread does not bring upon itself are for the threads of Python. */
static void pool_block_signals(sigset_t *before) {
    static const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT};
    sigset_t blocked;
    sigfillset(&blocked);
    for (unsigned k = 0; k < sizeof own / sizeof *own; k++)
        sigdelset(&blocked, own[k]);
    pthread_sigmask(SIG_SETMASK, &blocked, before);
}

/* A pool of so many threads, the caller's among them; of fewer where the machine gives no more. NULL: no memory. */
static struct pool *pool_new(int threads) {
    struct pool *pool = calloc(1, sizeof *pool);
    if (!pool)
        return NULL;
    pool->others = calloc(threads, sizeof *pool->others);
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->wake, NULL);
    /* The number is known before any of them looks at it: they wait for the first call. */
    int made = 1;
    sigset_t signals;
    pool_block_signals(&signals);
    for (; pool->others && made < threads; made++) {
        struct pool_start *start = malloc(sizeof *start);
        if (!start)
            break;
        *start = (struct pool_start){pool, made};
        if (pthread_create(&pool->others[made - 1], NULL, pool_thread, start)) {
            free(start);
            break;
        }
    }
    pthread_sigmask(SIG_SETMASK, &signals, NULL);
    pool->threads = made;
    pool->process = getpid();
    return pool;
}

#endif
