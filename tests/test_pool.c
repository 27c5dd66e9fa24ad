/* The thread team: every rank runs, barriers order memory, and more threads than processors work.
 */
#include <string.h>

#include "core/pool.h"
#include "tests/support/test.h"

enum { ROUNDS = 200, MAX_TEAM = 5 };

struct shared {
    int64_t cell[MAX_TEAM];
    int wrong[MAX_TEAM];
};

/* In each round every rank adds what all ranks wrote in the round before. */
static void rounds(void *user, struct itera_team *team)
{
    struct shared *s = user;
    for (int r = 1; r <= ROUNDS; r++) {
        s->cell[team->rank] = r * 10 + team->rank;
        itera_team_barrier(team);
        for (int i = 0; i < team->size; i++)
            s->wrong[team->rank] += s->cell[i] != r * 10 + i;
        itera_team_barrier(team);
    }
}

static void barriers_order_memory(void **state)
{
    (void)state;
    for (int threads = 1; threads <= MAX_TEAM; threads++) {
        struct itera_pool *pool;
        assert_int_equal(itera_pool_create(threads, &pool), ITERA_OK);
        assert_int_equal(itera_pool_threads(pool), threads);
        for (int run = 0; run < 20; run++) {
            struct shared s = {0};
            itera_pool_run(pool, rounds, &s);
            for (int i = 0; i < threads; i++)
                assert_int_equal(s.wrong[i], 0);
        }
        itera_pool_destroy(&pool);
        assert_null(pool);
    }
}

static void ranges_cover_once(void **state)
{
    (void)state;
    for (int size = 1; size <= 7; size++) {
        for (int64_t n = 0; n <= 40; n++) {
            for (int64_t grain = 1; grain <= 16; grain *= 4) {
                int64_t next = 0;
                for (int rank = 0; rank < size; rank++) {
                    struct itera_team team = {.rank = rank, .size = size};
                    int64_t begin, end;
                    itera_team_range(&team, n, grain, &begin, &end);
                    assert_true(begin == next && end >= begin);
                    assert_true(end == n || end % grain == 0);
                    next = end;
                }
                assert_true(next == n);
            }
        }
    }
}

static void bad_counts_are_refused(void **state)
{
    (void)state;
    struct itera_pool *pool;
    assert_int_equal(itera_pool_create(0, &pool), ITERA_ERR_ARGUMENT);
    assert_null(pool);
    assert_int_equal(itera_pool_create(100000, &pool), ITERA_ERR_ARGUMENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(barriers_order_memory),
        cmocka_unit_test(ranges_cover_once),
        cmocka_unit_test(bad_counts_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
