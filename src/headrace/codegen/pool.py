"""NAME_pool.h and NAME_pool.c: a small pool of POSIX threads for programs compiled with threads above 1.

Parts are taken one by one from a counter, by the caller as well as by the threads, so that a thread that is
late costs nothing: the caller waits only for parts that were begun. A call that finds the pool in use by
another thread, or itself in a child of the process that started it, runs its parts on the calling thread.
"""

from __future__ import annotations

from string import Template

# what the pool takes from the C library
EXTERNAL = frozenset(
    {
        *(f"pthread_mutex_{verb}" for verb in ("init", "lock", "trylock", "unlock", "destroy")),
        *(f"pthread_cond_{verb}" for verb in ("init", "wait", "signal", "broadcast", "destroy")),
        *("pthread_create", "pthread_join", "pthread_sigmask", "sigfillset", "sysconf", "getpid"),
    }
)
_HEADER = Template("""\
/* Threads for ${name}: start a pool, and pass &pool.threads as `threads` of ${name}_inputs.
 *
 * The pool lies in memory of the caller, who keeps it in its place until it is stopped. Any number of instances
 * may use one pool at the same time: it works for one of them, the others run on their own threads meanwhile.
 * Idle threads spin for some microseconds, then sleep. They take no signals. In a child made by fork() there are
 * no threads: everything runs on the calling thread, stopping does nothing, and a pool started there works.
 */
#ifndef ${upper}_POOL_H
#define ${upper}_POOL_H
#include "${name}.h"
#include <pthread.h>
#include <sys/types.h>
#ifdef __cplusplus
extern "C" {
#endif

#define ${upper}_THREADS ${threads}

typedef struct {
    ${name}_threads threads;
    pthread_t thread[${upper}_THREADS - 1];
    int count; /* threads beside the caller's */
    int spins; /* how often an idle thread looks before it sleeps */
    pid_t process;
    pthread_mutex_t in_use, lock; /* lock guards all below but next */
    pthread_cond_t work, done;
    int stopping, busy; /* busy: threads that are at work on the present job */
    unsigned long job;
    ${name}_part *part; /* NULL: no job */
    void *call;
    size_t parts, next;
} ${name}_pool;

/* Starts threads so that `threads` work on a kernel, the caller's among them: 1 to ${upper}_THREADS.
 * Returns their number, which is less where the system gives no more; 0 where there can be no pool. */
int ${name}_pool_start(${name}_pool *pool, int threads);
/* Ends them. No run may be using the pool. */
void ${name}_pool_stop(${name}_pool *pool);
size_t ${name}_pool_bytes(void);

#ifdef __cplusplus
}
#endif
#endif
""")
_SOURCE = Template("""\
/* A pool of POSIX threads for ${name}; ${name}_pool.h says how to use it. */
#define _POSIX_C_SOURCE 200809L
#define _DARWIN_C_SOURCE
#define _DEFAULT_SOURCE
#include "${name}_pool.h"
#include <signal.h>
#include <string.h>
#include <unistd.h>

static inline void rest(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __asm__ volatile("pause");
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Parts until there are none left. */
static void take(${name}_pool *p, ${name}_part *part, void *call, size_t parts)
{
    for (;;) {
        const size_t n = __atomic_fetch_add(&p->next, 1, __ATOMIC_RELAXED);
        if (n >= parts) return;
        part(call, n);
    }
}

static void *work(void *argument)
{
    ${name}_pool *const p = (${name}_pool *)argument;
    unsigned long seen = 0;
    for (;;) {
        for (int i = 0; i < p->spins && __atomic_load_n(&p->job, __ATOMIC_RELAXED) == seen; i++) rest();
        pthread_mutex_lock(&p->lock);
        while (!p->stopping && (!p->part || p->job == seen)) pthread_cond_wait(&p->work, &p->lock);
        if (p->stopping) break;
        ${name}_part *const part = p->part;
        void *const call = p->call;
        const size_t parts = p->parts;
        seen = p->job;
        __atomic_store_n(&p->busy, p->busy + 1, __ATOMIC_RELAXED);
        pthread_mutex_unlock(&p->lock);
        take(p, part, call, parts);
        pthread_mutex_lock(&p->lock);
        __atomic_store_n(&p->busy, p->busy - 1, __ATOMIC_RELAXED);
        if (!p->busy) pthread_cond_signal(&p->done);
        pthread_mutex_unlock(&p->lock);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

static void parallel_for(void *context, size_t parts, ${name}_part *part, void *call)
{
    ${name}_pool *const p = (${name}_pool *)context;
    if (p->count == 0 || getpid() != p->process || pthread_mutex_trylock(&p->in_use)) {
        for (size_t n = 0; n < parts; n++) part(call, n);
        return;
    }
    pthread_mutex_lock(&p->lock);
    p->part = part;
    p->call = call;
    p->parts = parts;
    __atomic_store_n(&p->next, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&p->job, p->job + 1, __ATOMIC_RELAXED);
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
    take(p, part, call, parts);
    for (int i = 0; i < p->spins && __atomic_load_n(&p->busy, __ATOMIC_RELAXED); i++) rest();
    pthread_mutex_lock(&p->lock);
    p->part = NULL;
    while (p->busy) pthread_cond_wait(&p->done, &p->lock);
    pthread_mutex_unlock(&p->lock);
    pthread_mutex_unlock(&p->in_use);
}

int ${name}_pool_start(${name}_pool *pool, int threads)
{
    sigset_t all, old;
    memset(pool, 0, sizeof *pool);
    pool->threads.parallel_for = parallel_for;
    pool->threads.context = pool;
    pool->process = getpid();
    pool->spins = sysconf(_SC_NPROCESSORS_ONLN) >= threads ? 1000 : 0;
    if (pthread_mutex_init(&pool->in_use, NULL)) return 0;
    if (pthread_mutex_init(&pool->lock, NULL)) return 0;
    if (pthread_cond_init(&pool->work, NULL) || pthread_cond_init(&pool->done, NULL)) return 0;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    while (pool->count < threads - 1 && pool->count < ${upper}_THREADS - 1) {
        if (pthread_create(&pool->thread[pool->count], NULL, work, pool)) break;
        pool->count++;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return pool->count + 1;
}

void ${name}_pool_stop(${name}_pool *pool)
{
    if (pool->count == 0 || getpid() != pool->process) return;
    pthread_mutex_lock(&pool->lock);
    pool->stopping = 1;
    __atomic_store_n(&pool->job, pool->job + 1, __ATOMIC_RELAXED);
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    for (int i = 0; i < pool->count; i++) pthread_join(pool->thread[i], NULL);
    pool->count = 0;
    pthread_cond_destroy(&pool->work);
    pthread_cond_destroy(&pool->done);
    pthread_mutex_destroy(&pool->lock);
    pthread_mutex_destroy(&pool->in_use);
}

size_t ${name}_pool_bytes(void) { return sizeof(${name}_pool); }
""")


def pool_header(name: str, threads: int) -> str:
    """Text of NAME_pool.h; threads: the most that work on one kernel, at least 2."""
    return _HEADER.substitute(name=name, upper=name.upper(), threads=threads)


def pool_source(name: str) -> str:
    """Text of NAME_pool.c."""
    return _SOURCE.substitute(name=name, upper=name.upper())
