/* What the parity cases of products with weights in blocks cannot show: weights that begin anywhere in
 * a buffer, and rows that integers cannot hold (zeros, next to nothing, what is not finite). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"
#include "tensor/blocks.h"
#include "tests/support/test.h"

enum { ROWS = 6, COLS = 21, DEPTH = 96, MAX_DEVICES = 16, SHIFT = 256 };

static struct itera_device *devices[MAX_DEVICES];
static int n_devices;
static float a[ROWS * DEPTH], weights[COLS * DEPTH];

/* y = a.bT, where b begins at byte `offset` of its buffer. */
static void multiply(struct itera_device *device, enum itera_dtype dtype, bool integer,
                     size_t offset, float *y)
{
    const int64_t a_dim[] = {ROWS, DEPTH}, b_dim[] = {COLS, DEPTH}, y_dim[] = {ROWS, COLS};
    const size_t bytes = (size_t)itera_dtype_bytes(dtype, COLS * DEPTH);
    const struct itera_attr attr = {.trans_b = 1, .integer = integer};
    uint8_t *planes = calloc(1, SHIFT + bytes);
    assert_non_null(planes);
    itera_blocks_round(dtype, weights, COLS * DEPTH,
                       itera_blocks_at(dtype, planes + offset, COLS * DEPTH, 0));
    struct itera_program *p;
    assert_int_equal(itera_program_create(&p), ITERA_OK);
    const int32_t in[] = {itera_bound(p, "a", ITERA_F32, 2, a_dim),
                          itera_bound(p, "b", dtype, 2, b_dim), ITERA_NONE, ITERA_NONE};
    int32_t out = itera_bound(p, "y", ITERA_F32, 2, y_dim);
    itera_record(p, ITERA_OP_matmul, &attr, in, &out);
    assert_int_equal(p->status, ITERA_OK);
    struct itera_buffer *x, *b, *to;
    assert_int_equal(itera_buffer_create(device, sizeof a, &x), ITERA_OK);
    assert_int_equal(itera_buffer_create(device, SHIFT + bytes, &b), ITERA_OK);
    assert_int_equal(itera_buffer_create(device, ROWS * COLS * 4, &to), ITERA_OK);
    assert_int_equal(itera_buffer_upload(x, 0, a, sizeof a), ITERA_OK);
    assert_int_equal(itera_buffer_upload(b, 0, planes, SHIFT + bytes), ITERA_OK);
    const struct itera_binding bindings[] = {{in[0], x, 0}, {in[1], b, offset}, {out, to, 0}};
    struct itera_executable *e;
    assert_int_equal(itera_compile(device, p, bindings, 3, NULL, NULL, &e), ITERA_OK);
    assert_int_equal(itera_run(e), ITERA_OK);
    assert_int_equal(itera_buffer_download(to, 0, y, ROWS * COLS * 4), ITERA_OK);
    itera_executable_destroy(&e);
    itera_buffer_destroy(&x);
    itera_buffer_destroy(&b);
    itera_buffer_destroy(&to);
    itera_program_destroy(&p);
    free(planes);
}

static void fill(void)
{
    for (int i = 0; i < ROWS * DEPTH; i++)
        a[i] = (float)sin(i * 0.7) + 0.1f;
    for (int i = 0; i < COLS * DEPTH; i++)
        weights[i] = (float)cos(i * 1.3);
}

/* 4 bytes: nothing is aligned to more than a word. */
static void weights_begin_anywhere(void **state)
{
    (void)state;
    fill();
    for (int d = 0; d < n_devices; d++)
        for (int kind = 0; kind < 4; kind++) {
            const enum itera_dtype dtype = kind & 1 ? ITERA_Q4 : ITERA_Q8;
            float aligned[ROWS * COLS], shifted[ROWS * COLS];
            multiply(devices[d], dtype, kind & 2, SHIFT, aligned);
            multiply(devices[d], dtype, kind & 2, 4, shifted);
            assert_memory_equal(aligned, shifted, sizeof aligned);
        }
}

static void odd_rows_stay_odd(void **state)
{
    (void)state;
    fill();
    for (int k = 0; k < DEPTH; k++) {
        a[1 * DEPTH + k] = 0;
        a[2 * DEPTH + k] = 1e-37f;
        a[3 * DEPTH + k] *= 1e30f;
    }
    a[4 * DEPTH + 70] = NAN;
    a[5 * DEPTH + 3] = INFINITY;
    for (int d = 0; d < n_devices; d++)
        for (int kind = 0; kind < 2; kind++) {
            float y[ROWS * COLS], plain[ROWS * COLS];
            multiply(devices[d], kind ? ITERA_Q4 : ITERA_Q8, true, 0, y);
            multiply(devices[d], kind ? ITERA_Q4 : ITERA_Q8, false, 0, plain);
            for (int c = 0; c < COLS; c++) {
                assert_true(isfinite(y[c]));
                assert_true(y[COLS + c] == 0);
                assert_true(fabsf(y[2 * COLS + c]) < 1e-34f);
                assert_true(fabsf(y[3 * COLS + c] - plain[3 * COLS + c]) < 1e30f);
                assert_true(isnan(y[4 * COLS + c]));
                assert_false(isfinite(y[5 * COLS + c]));
            }
        }
}

static int open_devices(void **state)
{
    (void)state;
    struct itera_device_info *infos;
    int count;
    const struct itera_device_options refuse = {.fallback = ITERA_FALLBACK_REFUSE};
    if (itera_devices(&infos, &count))
        return -1;
    for (int i = 0; i < count && n_devices < MAX_DEVICES; i++)
        if (infos[i].type != ITERA_DEVICE_CPU &&
            !itera_device_open(infos[i].id, &refuse, &devices[n_devices]))
            n_devices++;
    free(infos);
    return 0;
}

static int close_devices(void **state)
{
    (void)state;
    for (int i = 0; i < n_devices; i++)
        itera_device_close(&devices[i]);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(weights_begin_anywhere),
                                       cmocka_unit_test(odd_rows_stay_odd)};
    int failed = cmocka_run_group_tests(tests, open_devices, close_devices);
    return failed || n_devices ? failed : 77;
}
