/* What the parity cases of matmul cannot show: offsets that are not in order, results that do not
 * depend on the team, and recording errors. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/isa.h"
#include "program/program.h"
#include "tensor/blocks.h"
#include "tests/support/test.h"

static struct itera_arg matrix(float *data, int64_t rows, int64_t cols, int64_t ld)
{
    return (struct itera_arg){.data = data,
                              .rows = rows,
                              .cols = cols,
                              .ld = ld,
                              .dim = {rows, cols, 1, 1},
                              .rank = 2,
                              .dtype = ITERA_F32};
}

static float *numbers(int64_t n, uint32_t seed)
{
    float *x = malloc((size_t)n * sizeof *x);
    assert_non_null(x);
    for (int64_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = (float)(int32_t)seed * 0x1p-31f;
    }
    return x;
}

struct job {
    const struct itera_kernel *kernel;
    const struct itera_call *call;
};

static void run_job(void *user, struct itera_team *team)
{
    const struct job *job = user;
    job->kernel->run(job->call, team);
}

static void run(enum itera_isa isa, enum itera_op_kind kind, struct itera_call *call, int threads)
{
    struct job job = {itera_isa_kernel(isa, kind), call};
    size_t bytes = job.kernel->scratch ? job.kernel->scratch(call, threads) : 0;
    call->scratch = bytes ? aligned_alloc(64, (bytes + 63) / 64 * 64) : NULL;
    struct itera_pool *pool;
    assert_int_equal(itera_pool_create(threads, &pool), ITERA_OK);
    itera_pool_run(pool, run_job, &job);
    itera_pool_destroy(&pool);
    free(call->scratch);
}

static void assert_close(const float *x, const float *y, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        assert_true(x[i] - y[i] < 1e-4f && y[i] - x[i] < 1e-4f);
}

/* Shapes on both sides of each choice the fast kernels make: dot products or tiles, b kept or
 * packed per block, a packed or not, one depth or several. */
static void teams_agree_to_the_bit(void **state)
{
    (void)state;
    static const struct {
        int64_t m, n, k;
        uint8_t trans_a, trans_b;
    } shape[] = {{3, 70, 50, 0, 1},     {90, 8, 40, 0, 1},  {75, 90, 33, 0, 1},
                 {61, 200, 1100, 0, 1}, {40, 70, 90, 0, 0}, {600, 40, 300, 1, 0},
                 {64, 65, 70, 1, 1},    {1, 1, 1, 0, 1}};
    for (size_t s = 0; s < sizeof shape / sizeof *shape; s++) {
        const int64_t m = shape[s].m, n = shape[s].n, k = shape[s].k;
        float *a = numbers(m * k, 1), *b = numbers(n * k, 2);
        float *expected = numbers(m * n, 3), *one = numbers(m * n, 4), *many = numbers(m * n, 5);
        struct itera_attr attr = {.trans_a = shape[s].trans_a, .trans_b = shape[s].trans_b};
        struct itera_call call = {.attr = &attr};
        call.in[0] = attr.trans_a ? matrix(a, k, m, m) : matrix(a, m, k, k);
        call.in[1] = attr.trans_b ? matrix(b, n, k, k) : matrix(b, k, n, n);
        call.out[0] = matrix(expected, m, n, n);
        run(ITERA_ISA_REF, ITERA_OP_matmul, &call, 1);
        for (int isa = ITERA_ISA_REF + 1; isa < ITERA_ISA_COUNT; isa++) {
            if (!itera_isa_available((enum itera_isa)isa))
                continue;
            call.out[0].data = one;
            run((enum itera_isa)isa, ITERA_OP_matmul, &call, 1);
            assert_close(one, expected, m * n);
            for (int threads = 2; threads <= 5; threads++) {
                memset(many, 0xff, (size_t)(m * n) * sizeof *many);
                call.out[0].data = many;
                run((enum itera_isa)isa, ITERA_OP_matmul, &call, threads);
                assert_memory_equal(many, one, (size_t)(m * n) * sizeof *many);
            }
        }
        free(a);
        free(b);
        free(expected);
        free(one);
        free(many);
    }
}

/* What an integer product has for a: rounded to blocks of 32 int8 with one scale. */
static void round_to_int8(float *a, int64_t n)
{
    for (float *end = a + n; a < end; a += ITERA_BLOCK) {
        float most = 0;
        for (int i = 0; i < ITERA_BLOCK; i++)
            most = fmaxf(most, fabsf(a[i]));
        for (int i = 0; i < ITERA_BLOCK; i++)
            a[i] = most > 0 ? rintf(a[i] * (127 / most)) * (most / 127) : 0;
    }
}

/* Values of a whose products are the largest there are, in all combinations of signs. */
static void extremes(float *a, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        a[i] = i / 5 % 3 ? 1 : -1;
}

static struct itera_arg blocks_of(enum itera_dtype dtype, int64_t rows, int64_t cols, uint32_t seed,
                                  bool extreme)
{
    struct itera_arg b = matrix(NULL, rows, cols, cols);
    const int64_t n = rows * cols;
    b.dtype = dtype;
    b.data = malloc(itera_dtype_bytes(dtype, n));
    assert_non_null(b.data);
    struct itera_blocks x = itera_blocks_at(dtype, b.data, n, 0);
    for (int64_t i = 0; i < n / ITERA_BLOCK * itera_block_bytes(dtype); i++) {
        seed = seed * 1664525u + 1013904223u;
        x.bytes[i] = extreme ? (uint8_t)(i % 7 < 5 ? 0x80 : 0x7f) : (uint8_t)(seed >> 24);
    }
    for (int64_t i = 0; i < n / ITERA_BLOCK; i++)
        x.scales[i] = itera_f32_to_f16((float)(i % 13 - 5) / 256);
    return b;
}

/* Beside the reference on what the integers stand for, as closely as f32 sums allow: rows around
 * those of a tile and those that make dot products, columns around a panel's, all of the bytes'
 * values, and the largest sums. */
static void integer_products_are_exact(void **state)
{
    (void)state;
    static const struct {
        int64_t m, n, k;
    } shape[] = {{1, 8, 32}, {1, 77, 352}, {3, 67, 64}, {8, 64, 1056}, {9, 8, 96}, {23, 75, 288}};
    for (size_t s = 0; s < 4 * (sizeof shape / sizeof *shape); s++) {
        const int64_t m = shape[s / 4].m, n = shape[s / 4].n, k = shape[s / 4].k;
        const bool extreme = s & 1;
        struct itera_attr attr = {.trans_b = 1}, integer = {.trans_b = 1, .integer = 1};
        float *a = numbers(m * k, 1), *expected = numbers(m * n, 3), *one = numbers(m * n, 4);
        float *many = numbers(m * n, 5);
        if (extreme)
            extremes(a, m * k);
        struct itera_call call = {.attr = &integer};
        call.in[0] = matrix(a, m, k, k);
        call.in[1] = blocks_of(s & 2 ? ITERA_Q4 : ITERA_Q8, n, k, 2, extreme);
        for (int isa = ITERA_ISA_REF + 1; isa < ITERA_ISA_COUNT; isa++) {
            if (!itera_isa_available((enum itera_isa)isa))
                continue;
            call.out[0] = matrix(one, m, n, n);
            run((enum itera_isa)isa, ITERA_OP_matmul, &call, 1);
            for (int threads = 2; threads <= 3; threads++) {
                call.out[0].data = many;
                run((enum itera_isa)isa, ITERA_OP_matmul, &call, threads);
                assert_memory_equal(many, one, (size_t)(m * n) * sizeof *many);
            }
            float *rounded = malloc((size_t)(m * k) * sizeof *rounded);
            assert_non_null(rounded);
            memcpy(rounded, a, (size_t)(m * k) * sizeof *rounded);
            round_to_int8(rounded, m * k);
            struct itera_call exact = call;
            exact.attr = &attr;
            exact.in[0].data = rounded;
            exact.out[0].data = expected;
            run(ITERA_ISA_REF, ITERA_OP_matmul, &exact, 1);
            for (int64_t i = 0; i < m * n; i++)
                assert_true(fabsf(one[i] - expected[i]) <= 1e-5f * (1 + fabsf(expected[i])));
            free(rounded);
        }
        free(a);
        free(call.in[1].data);
        free(expected);
        free(one);
        free(many);
    }
}

/* What is not finite makes its own row so, and no other; it has no integer whose sums could
 * overflow, as UBSan would say. */
static void integer_products_of_no_numbers(void **state)
{
    (void)state;
    enum { N = 75, K = 352 };
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int s = 0; s < 4; s++) {
        const int64_t m = s & 1 ? 23 : 4; /* tiles and dot products */
        struct itera_attr attr = {.trans_b = 1, .integer = 1};
        float *a = numbers(m * K, 1), *want = numbers(m * N, 3), *got = numbers(m * N, 4);
        struct itera_call call = {.attr = &attr};
        call.in[0] = matrix(a, m, K, K);
        call.in[1] = blocks_of(s & 2 ? ITERA_Q4 : ITERA_Q8, N, K, 2, false);
        for (int isa = ITERA_ISA_REF + 1; isa < ITERA_ISA_COUNT; isa++) {
            if (!itera_isa_available((enum itera_isa)isa))
                continue;
            for (int i = 0; i < 3; i++)
                a[i * K + 40] = 0;
            call.out[0] = matrix(want, m, N, N);
            run((enum itera_isa)isa, ITERA_OP_matmul, &call, 1);
            for (int i = 0; i < 3; i++)
                a[i * K + 40] = bad[i];
            call.out[0] = matrix(got, m, N, N);
            run((enum itera_isa)isa, ITERA_OP_matmul, &call, 1);
            for (int64_t i = 0; i < 3 * N; i++)
                assert_false(isfinite(got[i]));
            assert_memory_equal(got + 3 * N, want + 3 * N, (size_t)((m - 3) * N) * sizeof *got);
        }
        free(a);
        free(call.in[1].data);
        free(want);
        free(got);
    }
}

/* Offsets are data of the run, and nothing has checked them. */
static void wild_offsets_stay_inside(void **state)
{
    (void)state;
    enum { ROWS = 37, N = 21, K = 19, EXPERTS = 4 };
    static int32_t offsets[][EXPERTS + 1] = {
        {0, 10, 10, 30, ROWS},
        {5, 9, 20, 20, 30}, /* rows before the first and after the last expert */
        {0, 30, 10, 35, 12},
        {-7, INT32_MIN, 12, INT32_MAX, 3},
        {INT32_MAX, 0, 0, 0, 0},
        {0, 0, 0, 0, 0},
    };
    for (size_t o = 0; o < sizeof offsets / sizeof *offsets; o++) {
        for (int form = 0; form < 3; form++) { /* nn, nt, tn */
            struct itera_attr attr = {
                .experts = EXPERTS, .trans_b = form == 1, .trans_a = form == 2};
            float *a = numbers(ROWS * K, 1);
            float *b = form == 2 ? numbers(ROWS * N, 2) : numbers(EXPERTS * N * K, 2);
            const int64_t y_rows = form == 2 ? EXPERTS * K : ROWS;
            float *expected = numbers(y_rows * N, 3), *y = numbers(y_rows * N, 4);
            struct itera_call call = {.attr = &attr};
            call.in[0] = matrix(a, ROWS, K, K);
            call.in[1] = form == 2   ? matrix(b, ROWS, N, N)
                         : form == 1 ? matrix(b, EXPERTS * N, K, K)
                                     : matrix(b, EXPERTS * K, N, N);
            call.in[2] = matrix((float *)(void *)offsets[o], 1, EXPERTS + 1, EXPERTS + 1);
            call.in[2].dtype = ITERA_I32;
            call.out[0] = matrix(expected, y_rows, N, N);
            run(ITERA_ISA_REF, ITERA_OP_grouped_matmul, &call, 1);
            for (int isa = ITERA_ISA_REF + 1; isa < ITERA_ISA_COUNT; isa++) {
                if (!itera_isa_available((enum itera_isa)isa))
                    continue;
                for (int threads = 1; threads <= 3; threads++) {
                    memset(y, 0xff, (size_t)(y_rows * N) * sizeof *y);
                    call.out[0].data = y;
                    run((enum itera_isa)isa, ITERA_OP_grouped_matmul, &call, threads);
                    assert_close(y, expected, y_rows * N);
                }
            }
            free(a);
            free(b);
            free(expected);
            free(y);
        }
    }
}

static enum itera_status record(const struct itera_attr *attr, int64_t a_rows, int64_t a_cols,
                                int64_t b_rows, int64_t b_cols, int64_t bias)
{
    struct itera_program *p;
    assert_int_equal(itera_program_create(&p), ITERA_OK);
    int64_t a_dim[2] = {a_rows, a_cols}, b_dim[2] = {b_rows, b_cols};
    int32_t in[4] = {itera_bound(p, "a", ITERA_F32, 2, a_dim),
                     itera_bound(p, "b", ITERA_F32, 2, b_dim), ITERA_NONE, ITERA_NONE};
    if (bias)
        in[2] = itera_bound(p, "bias", ITERA_F32, 1, &bias);
    int32_t out = ITERA_NEW;
    itera_record(p, ITERA_OP_matmul, attr, in, &out);
    enum itera_status status = p->status;
    itera_program_destroy(&p);
    return status;
}

static void recording_checks_shapes(void **state)
{
    (void)state;
    struct itera_attr nt = {.trans_b = 1}, wild = {.act = 77}, both = {.accumulate = 1};
    assert_int_equal(record(&nt, 5, 7, 3, 7, 3), ITERA_OK);
    assert_int_equal(record(&nt, 5, 7, 3, 8, 0), ITERA_ERR_SHAPE);
    assert_int_equal(record(&nt, 5, 7, 3, 7, 4), ITERA_ERR_SHAPE);
    assert_int_equal(record(&wild, 5, 7, 7, 3, 0), ITERA_ERR_ARGUMENT);
    assert_int_equal(record(&both, 5, 7, 7, 3, 3), ITERA_ERR_ARGUMENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(teams_agree_to_the_bit),
        cmocka_unit_test(integer_products_are_exact),
        cmocka_unit_test(integer_products_of_no_numbers),
        cmocka_unit_test(wild_offsets_stay_inside),
        cmocka_unit_test(recording_checks_shapes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
