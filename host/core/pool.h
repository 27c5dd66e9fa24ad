/* A team of threads that run one function together (SPMD), with cheap barriers inside. */
#ifndef ITERA_CORE_POOL_H
#define ITERA_CORE_POOL_H

#include <stdatomic.h>
#include <stdint.h>

#include "itera/status.h"

struct itera_pool;

/* What each thread of a team is given. */
struct itera_team {
    int rank; /* 0 <= rank < size; rank 0 is the calling thread */
    int size;
    struct itera_pool *pool;
};

/* threads >= 1, the caller's included. */
enum itera_status itera_pool_create(int threads, struct itera_pool **out);
void itera_pool_destroy(struct itera_pool **pool);
int itera_pool_threads(const struct itera_pool *pool);

/* Runs fn on every thread of the pool and returns when all have returned. One run at a time. */
typedef void itera_team_fn(void *user, struct itera_team *team);
void itera_pool_run(struct itera_pool *pool, itera_team_fn *fn, void *user);

/* Returns when every thread of the team has called it; orders memory between them. */
void itera_team_barrier(struct itera_team *team);

/* Splits [0, n) into one contiguous range per rank, in multiples of `grain` (>= 1). */
static inline void itera_team_range(const struct itera_team *team, int64_t n, int64_t grain,
                                    int64_t *begin, int64_t *end)
{
    int64_t blocks = (n + grain - 1) / grain;
    int64_t b = blocks * team->rank / team->size * grain;
    int64_t e = blocks * (team->rank + 1) / team->size * grain;
    *begin = b < n ? b : n;
    *end = e < n ? e : n;
}

/* The number of processors this process may use. */
int itera_processor_count(void);

#endif
