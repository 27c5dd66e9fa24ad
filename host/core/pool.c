#include "core/pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>

#include "core/log.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define spin_hint() _mm_pause()
#elif defined(__aarch64__)
#define spin_hint() __asm__ volatile("yield")
#else
#define spin_hint() ((void)0)
#endif

/* How long a waiting thread spins before it gives its processor away. A barrier inside a program
 * is met within microseconds; between programs the workers sleep on a condition variable. */
enum { SPIN_BARRIER = 4096, SPIN_IDLE = 2048 };

struct itera_pool {
    int threads;
    int spin; /* 0 when there are more threads than processors: spinning would only delay others */
    pthread_t *handles;
    int started;
    cpu_set_t allowed; /* processors of the process when the pool was made */
    int *processors;   /* their numbers */
    int n_processors;
    int caller; /* the one that the caller of the current run is on; -1: unknown */

    pthread_mutex_t mutex;
    pthread_cond_t wake;
    atomic_uint generation; /* raised by one for each run */
    bool stop;
    itera_team_fn *fn;
    void *user;

    _Alignas(64) atomic_int running; /* workers that have not finished the run */
    _Alignas(64) atomic_int arrived; /* at the barrier */
    _Alignas(64) atomic_uint sense;  /* raised by one as a barrier opens */
};

struct worker_start {
    struct itera_pool *pool;
    int rank;
};

static void wait_a_little(const struct itera_pool *pool, int *spins, int limit)
{
    if (pool->spin && (*spins)++ < limit)
        spin_hint();
    else
        sched_yield();
}

/* Keeps a worker off the processor of the run's caller. The kernel may wake it right there and, on
 * some virtual machines, leave both there for seconds, each waiting for the other's time slice. A
 * team as large as the machine gets a processor per thread; a smaller one leaves the choice among
 * the others to the kernel. *placed is what was last asked for; -1: nothing. */
static void keep_apart(const struct itera_pool *pool, int rank, int *placed)
{
    if (pool->caller < 0 || pool->threads > pool->n_processors)
        return;
    cpu_set_t set;
    if (pool->threads == pool->n_processors) {
        int at = 0;
        while (at < pool->n_processors && pool->processors[at] != pool->caller)
            at++;
        int target = pool->processors[(at + rank) % pool->n_processors];
        if (*placed == target)
            return;
        CPU_ZERO(&set);
        CPU_SET(target, &set);
        *placed = target;
    } else {
        if (*placed == pool->caller || sched_getcpu() != pool->caller)
            return;
        set = pool->allowed;
        CPU_CLR(pool->caller, &set);
        *placed = pool->caller;
    }
    /* A refusal costs speed only. */
    (void)pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}

static void *worker(void *user)
{
    int placed = -1;
    struct worker_start start = *(struct worker_start *)user;
    free(user);
    struct itera_pool *pool = start.pool;
    unsigned seen = 0;
    for (;;) {
        for (int i = 0; pool->spin && i < SPIN_IDLE; i++) {
            if (atomic_load_explicit(&pool->generation, memory_order_acquire) != seen)
                break;
            spin_hint();
        }
        pthread_mutex_lock(&pool->mutex);
        while (atomic_load_explicit(&pool->generation, memory_order_relaxed) == seen && !pool->stop)
            pthread_cond_wait(&pool->wake, &pool->mutex);
        if (pool->stop) {
            pthread_mutex_unlock(&pool->mutex);
            return NULL;
        }
        seen = atomic_load_explicit(&pool->generation, memory_order_relaxed);
        itera_team_fn *fn = pool->fn;
        void *arg = pool->user;
        pthread_mutex_unlock(&pool->mutex);
        keep_apart(pool, start.rank, &placed);

        struct itera_team team = {.rank = start.rank, .size = pool->threads, .pool = pool};
        fn(arg, &team);
        atomic_fetch_sub_explicit(&pool->running, 1, memory_order_release);
    }
}

enum itera_status itera_pool_create(int threads, struct itera_pool **out)
{
    *out = NULL;
    if (threads < 1 || threads > 1024)
        return itera_fail(ITERA_ERR_ARGUMENT, "threads: %d is outside 1 to 1024", threads);
    struct itera_pool *pool = aligned_alloc(64, (sizeof *pool + 63) / 64 * 64);
    if (!pool)
        return itera_fail(ITERA_ERR_MEMORY, "no memory for a thread pool");
    *pool = (struct itera_pool){.threads = threads, .spin = threads <= itera_processor_count()};
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pool->handles = calloc((size_t)threads, sizeof *pool->handles);
    pool->processors = calloc(CPU_SETSIZE, sizeof *pool->processors);
    enum itera_status status = ITERA_ERR_MEMORY;
    if (!pool->handles || !pool->processors)
        goto fail;
    if (sched_getaffinity(0, sizeof pool->allowed, &pool->allowed) == 0)
        for (int i = 0; i < CPU_SETSIZE; i++)
            if (CPU_ISSET(i, &pool->allowed))
                pool->processors[pool->n_processors++] = i;
    for (int i = 1; i < threads; i++) {
        struct worker_start *start = malloc(sizeof *start);
        if (!start)
            goto fail;
        *start = (struct worker_start){pool, i};
        if (pthread_create(&pool->handles[pool->started], NULL, worker, start)) {
            free(start);
            goto fail;
        }
        pool->started++;
    }
    *out = pool;
    return ITERA_OK;
fail:
    itera_pool_destroy(&pool);
    return itera_fail(status, "could not start %d threads; use fewer (threads)", threads);
}

void itera_pool_destroy(struct itera_pool **pool_in_out)
{
    struct itera_pool *pool = *pool_in_out;
    if (!pool)
        return;
    pthread_mutex_lock(&pool->mutex);
    pool->stop = true;
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
    for (int i = 0; i < pool->started; i++)
        pthread_join(pool->handles[i], NULL);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->mutex);
    free(pool->handles);
    free(pool->processors);
    free(pool);
    *pool_in_out = NULL;
}

int itera_pool_threads(const struct itera_pool *pool)
{
    return pool->threads;
}

void itera_pool_run(struct itera_pool *pool, itera_team_fn *fn, void *user)
{
    struct itera_team team = {.rank = 0, .size = pool->threads, .pool = pool};
    if (pool->threads == 1) {
        fn(user, &team);
        return;
    }
    atomic_store_explicit(&pool->running, pool->threads - 1, memory_order_relaxed);
    pthread_mutex_lock(&pool->mutex);
    pool->fn = fn;
    pool->user = user;
    pool->caller = sched_getcpu();
    atomic_fetch_add_explicit(&pool->generation, 1, memory_order_release);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
    fn(user, &team);
    for (int spins = 0; atomic_load_explicit(&pool->running, memory_order_acquire);)
        wait_a_little(pool, &spins, SPIN_BARRIER);
}

void itera_team_barrier(struct itera_team *team)
{
    if (team->size == 1)
        return;
    struct itera_pool *pool = team->pool;
    unsigned sense = atomic_load_explicit(&pool->sense, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&pool->arrived, 1, memory_order_acq_rel) == team->size - 1) {
        atomic_store_explicit(&pool->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&pool->sense, sense + 1, memory_order_release);
        return;
    }
    for (int spins = 0; atomic_load_explicit(&pool->sense, memory_order_acquire) == sense;)
        wait_a_little(pool, &spins, SPIN_BARRIER);
}

int itera_processor_count(void)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0)
        return CPU_COUNT(&set);
    return 1;
}
