/* Threads that stay, and loops over tasks that all of them share.

   One thread calls `pool_run`; the others wake, and every one runs the same function. In it, `pool_each` hands out
   the tasks of a loop, one after the other to whoever is free, so that a thread whose processor is taken away for a
   while holds up one task and not its share; behind it all tasks are done. */
#ifndef POOL_H
#define POOL_H

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <time.h>

#include "fp24.h"

enum { SPINS = 2000, YIELDS = 2000, IDLE_SPINS = 20000 };

struct pool;
typedef void (*pool_function)(struct pool *, int thread, void *context);
typedef void (*pool_task)(void *context, int task);

struct pool {
    int threads;
    pthread_t *others;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    pool_function function;
    void *context;
    long calls; /* of pool_run; -1: the end */
    char apart0[64];
    int next; /* task of the loop under way */
    char apart1[64];
    int arrived;
    char apart2[64];
    long phase; /* loops that are over */
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

/* Waits until *number is no longer `old`: spinning, then giving the processor to others, then asleep. */
static long pool_await(const long *number, long old) {
    long now;
    for (long round = 0; (now = __atomic_load_n(number, __ATOMIC_ACQUIRE)) == old; round++) {
        if (round < SPINS)
            pool_pause();
        else if (round < SPINS + YIELDS)
            sched_yield();
        else
            nanosleep(&(struct timespec){0, 50000}, NULL);
    }
    return now;
}

/* All threads meet; the last one begins the next loop. */
static void pool_meet(struct pool *pool) {
    if (pool->threads == 1) {
        pool->next = 0;
        return;
    }
    long phase = __atomic_load_n(&pool->phase, __ATOMIC_RELAXED);
    if (__atomic_add_fetch(&pool->arrived, 1, __ATOMIC_ACQ_REL) == pool->threads) {
        __atomic_store_n(&pool->arrived, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&pool->next, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&pool->phase, phase + 1, __ATOMIC_RELEASE);
    } else {
        pool_await(&pool->phase, phase);
    }
}

static void pool_each(struct pool *pool, pool_task task, void *context, int count) {
    for (;;) {
        int one = __atomic_fetch_add(&pool->next, 1, __ATOMIC_RELAXED);
        if (one >= count)
            break;
        task(context, one);
    }
    pool_meet(pool);
}

static void *pool_thread(void *start) {
    struct pool *pool = ((struct pool_start *)start)->pool;
    int thread = ((struct pool_start *)start)->thread;
    long seen = 0;
    free(start);
    for (;;) {
        for (int round = 0; round < IDLE_SPINS && __atomic_load_n(&pool->calls, __ATOMIC_ACQUIRE) == seen; round++)
            pool_pause();
        if (__atomic_load_n(&pool->calls, __ATOMIC_ACQUIRE) == seen) {
            pthread_mutex_lock(&pool->mutex);
            while (pool->calls == seen)
                pthread_cond_wait(&pool->wake, &pool->mutex);
            pthread_mutex_unlock(&pool->mutex);
        }
        seen = __atomic_load_n(&pool->calls, __ATOMIC_ACQUIRE);
        if (seen < 0)
            return NULL;
        pool->function(pool, thread, pool->context);
        pool_meet(pool);
    }
}

static void pool_signal(struct pool *pool, long calls) {
    pthread_mutex_lock(&pool->mutex);
    __atomic_store_n(&pool->calls, calls, __ATOMIC_RELEASE);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
}

static void pool_run(struct pool *pool, pool_function function, void *context) {
    pool->function = function;
    pool->context = context;
    if (pool->threads > 1)
        pool_signal(pool, pool->calls + 1);
    function(pool, 0, context);
    pool_meet(pool);
}

static void pool_free(struct pool *pool) {
    if (pool->threads > 1)
        pool_signal(pool, -1);
    for (int k = 0; k + 1 < pool->threads; k++)
        pthread_join(pool->others[k], NULL);
    pthread_mutex_destroy(&pool->mutex);
    pthread_cond_destroy(&pool->wake);
    free(pool->others);
    free(pool);
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
    pool->threads = made;
    return pool;
}

#endif
