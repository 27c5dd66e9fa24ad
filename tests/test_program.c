/* Recording, autodiff, fusion and the memory plan, through the CPU backend. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"
#include "core/rng.h"
#include "itera/describe.h"
#include "program/autodiff.h"
#include "program/fuse.h"
#include "program/plan.h"
#include "tests/support/test.h"

/* A program on the CPU, with a buffer per bound tensor. */
struct harness {
    struct itera_device *device;
    struct itera_program *p;
    struct itera_buffer *buffers[256];
    struct itera_executable *executable;
};

static void harness_open(struct harness *h, int threads)
{
    memset(h, 0, sizeof *h);
    struct itera_device_options options = {.threads = threads};
    assert_int_equal(itera_device_open("cpu", &options, &h->device), ITERA_OK);
    assert_int_equal(itera_program_create(&h->p), ITERA_OK);
}

static void harness_compile(struct harness *h)
{
    struct itera_binding bindings[256];
    int n = 0;
    assert_int_equal(h->p->status, ITERA_OK);
    for (int32_t t = 0; t < h->p->n_tensors; t++) {
        const struct itera_tensor *x = &h->p->tensors[t];
        if (x->kind != ITERA_BOUND || x->base != t)
            continue;
        size_t bytes = (size_t)itera_shape_elements(&x->shape) * 4;
        assert_int_equal(itera_buffer_create(h->device, bytes, &h->buffers[t]), ITERA_OK);
        float *values = malloc(bytes + 4);
        struct itera_rng rng = {.seed = 5, .stream = (uint64_t)t};
        for (size_t i = 0; i < bytes / 4; i++)
            values[i] = itera_rng_normal(&rng);
        assert_int_equal(itera_buffer_upload(h->buffers[t], 0, values, bytes), ITERA_OK);
        free(values);
        bindings[n++] = (struct itera_binding){t, h->buffers[t], 0};
    }
    assert_int_equal(itera_compile(h->device, h->p, bindings, n, NULL, NULL, &h->executable),
                     ITERA_OK);
}

static void harness_read(struct harness *h, int32_t t, float *out)
{
    assert_int_equal(itera_buffer_download(h->buffers[t], 0, out, h->buffers[t]->bytes), ITERA_OK);
}

static void harness_close(struct harness *h)
{
    itera_executable_destroy(&h->executable);
    for (int i = 0; i < 256; i++)
        itera_buffer_destroy(&h->buffers[i]);
    itera_program_destroy(&h->p);
    itera_device_close(&h->device);
}

static int32_t op1(struct itera_program *p, enum itera_op_kind kind, int32_t x)
{
    int32_t out[1] = {ITERA_NEW};
    return itera_record(p, kind, NULL, &x, out);
}

static int32_t op2(struct itera_program *p, enum itera_op_kind kind, int32_t a, int32_t b)
{
    int32_t in[2] = {a, b}, out[1] = {ITERA_NEW};
    return itera_record(p, kind, NULL, in, out);
}

static int32_t linear(struct itera_program *p, int32_t x, int32_t w)
{
    int32_t in[4] = {x, w, ITERA_NONE, ITERA_NONE}, out[1] = {ITERA_NEW};
    struct itera_attr attr = {.trans_b = 1};
    return itera_record(p, ITERA_OP_matmul, &attr, in, out);
}

/* An output that can be read: y copied to a bound tensor. */
static int32_t expose(struct itera_program *p, const char *name, int32_t y)
{
    struct itera_shape s = p->tensors[y].shape;
    int32_t out[1] = {itera_bound(p, name, ITERA_F32, s.rank, s.dim)};
    return itera_record(p, ITERA_OP_copy, NULL, &y, out);
}

static void recording_reports_shapes(void **state)
{
    (void)state;
    struct itera_program *p;
    assert_int_equal(itera_program_create(&p), ITERA_OK);
    int32_t a = itera_bound(p, "a", ITERA_F32, 2, (int64_t[]){2, 3});
    int32_t b = itera_bound(p, "b", ITERA_F32, 2, (int64_t[]){2, 4});
    assert_int_equal(op2(p, ITERA_OP_add, a, b), ITERA_NONE);
    assert_int_equal(p->status, ITERA_ERR_SHAPE);
    assert_non_null(strstr(itera_last_error(), "add"));
    /* The first error stays; later recording does nothing. */
    int32_t before = p->n_ops;
    op1(p, ITERA_OP_silu, a);
    assert_int_equal(p->n_ops, before);
    itera_program_destroy(&p);
    assert_null(p);
}

static void absurd_sizes_are_refused(void **state)
{
    (void)state;
    struct itera_program *p;
    assert_int_equal(itera_program_create(&p), ITERA_OK);
    int64_t dim[3] = {(int64_t)1 << 40, (int64_t)1 << 40, 4};
    assert_int_equal(itera_bound(p, "huge", ITERA_F32, 3, dim), ITERA_NONE);
    assert_int_equal(p->status, ITERA_ERR_LIMIT);
    itera_program_destroy(&p);
}

/* Two activations that are alive at the same time must not overlap, and the arena must be smaller
 * than the sum of all. */
static void plan_keeps_lives_apart(void **state)
{
    (void)state;
    struct itera_program *p;
    assert_int_equal(itera_program_create(&p), ITERA_OK);
    struct itera_rng rng = {.seed = 3};
    int32_t live[40];
    int n = 0;
    int64_t total = 0;
    live[n++] = itera_bound(p, "x", ITERA_F32, 2, (int64_t[]){7, 33});
    for (int i = 0; i < 39; i++) {
        int32_t a = live[itera_rng_below(&rng, (uint32_t)n)];
        int32_t b = live[itera_rng_below(&rng, (uint32_t)n)];
        live[n++] = op2(p, ITERA_OP_add, a, b);
        total += 7 * 33 * 4;
    }
    struct itera_plan plan;
    assert_int_equal(itera_plan_create(p, 64, NULL, &plan), ITERA_OK);
    assert_true(plan.bytes < total);
    for (int32_t s = 0; s < p->n_tensors; s++) {
        for (int32_t t = s + 1; t < p->n_tensors; t++) {
            if (plan.offset[s] < 0 || plan.offset[t] < 0)
                continue;
            int first[2] = {-1, -1}, last[2] = {-1, -1};
            for (int32_t i = 0; i < p->n_ops; i++)
                for (int k = 0; k < 2; k++) {
                    int32_t x = k ? t : s;
                    bool in = p->ops[i].in[0] == x || p->ops[i].in[1] == x;
                    bool out = p->ops[i].out[0] == x;
                    if (out)
                        first[k] = i;
                    if (in || out)
                        last[k] = i;
                }
            /* In place at one op is allowed: there the one ends as the other begins. */
            bool overlap_in_time = first[0] < last[1] && first[1] < last[0];
            int64_t bytes = 7 * 33 * 4;
            bool overlap_in_space =
                plan.offset[s] < plan.offset[t] + bytes && plan.offset[t] < plan.offset[s] + bytes;
            assert_false(overlap_in_time && overlap_in_space);
        }
    }
    itera_plan_destroy(&plan);
    itera_program_destroy(&p);
}

/* y = silu(x w^T) + x, with and without fusion. */
static void fusion_keeps_results(void **state)
{
    (void)state;
    float results[2][5 * 16];
    for (int fused = 0; fused < 2; fused++) {
        struct harness h;
        harness_open(&h, 1);
        int32_t x = itera_bound(h.p, "x", ITERA_F32, 2, (int64_t[]){5, 16});
        int32_t w = itera_bound(h.p, "w", ITERA_F32, 2, (int64_t[]){16, 16});
        int32_t y = op2(h.p, ITERA_OP_add, op1(h.p, ITERA_OP_silu, linear(h.p, x, w)), x);
        int32_t out = expose(h.p, "out", y);
        int32_t before = h.p->n_ops;
        if (fused) {
            assert_int_equal(itera_fuse_epilogues(h.p), ITERA_OK);
            assert_int_equal(h.p->n_ops, before - 2);
        }
        harness_compile(&h);
        assert_int_equal(itera_run(h.executable), ITERA_OK);
        harness_read(&h, out, results[fused]);
        harness_close(&h);
    }
    for (int i = 0; i < 5 * 16; i++)
        assert_true(fabsf(results[0][i] - results[1][i]) <= 1e-5f * (1 + fabsf(results[0][i])));
}

/* The product must not be written at once to what it reads. */
static void fusion_keeps_operands(void **state)
{
    (void)state;
    struct harness h;
    harness_open(&h, 1);
    int32_t x = itera_bound(h.p, "x", ITERA_F32, 2, (int64_t[]){16, 16});
    int32_t w = itera_bound(h.p, "w", ITERA_F32, 2, (int64_t[]){16, 16});
    int32_t in[2] = {linear(h.p, x, w), w};
    itera_record(h.p, ITERA_OP_add, NULL, in, &x);
    int32_t before = h.p->n_ops;
    assert_int_equal(itera_fuse_epilogues(h.p), ITERA_OK);
    assert_int_equal(h.p->n_ops, before);
    harness_close(&h);
}

/* Outside training, every sum and activation of a model is part of the op before it. */
static void models_fuse(void **state)
{
    (void)state;
    static const char *const presets[] = {"micro", "itera-m-micro", "transformer-micro",
                                          "mamba-tiny"};
    for (size_t i = 0; i < sizeof presets / sizeof *presets; i++) {
        struct itera_description *d;
        char *text;
        assert_int_equal(itera_describe_config(presets[i], 0, &d), ITERA_OK);
        assert_int_equal(itera_describe_ops(d->config, "prefill", 16, &text), ITERA_OK);
        assert_null(strstr(text, " add "));
        assert_null(strstr(text, " silu "));
        assert_null(strstr(text, " gelu "));
        assert_null(strstr(text, " softplus "));
        free(text);
        itera_description_destroy(&d);
    }
}

/* A value that something else reads as well must stay. */
static void fusion_keeps_shared_values(void **state)
{
    (void)state;
    struct harness h;
    harness_open(&h, 1);
    int32_t x = itera_bound(h.p, "x", ITERA_F32, 2, (int64_t[]){5, 16});
    int32_t w = itera_bound(h.p, "w", ITERA_F32, 2, (int64_t[]){16, 16});
    int32_t m = linear(h.p, x, w);
    op2(h.p, ITERA_OP_add, op1(h.p, ITERA_OP_silu, m), m);
    int32_t before = h.p->n_ops;
    assert_int_equal(itera_fuse_epilogues(h.p), ITERA_OK);
    assert_int_equal(h.p->n_ops, before);
    harness_close(&h);
}

/* The gradient of sum(seed * f(x)) by autodiff and by central differences along random directions.
 * f uses x through both halves, as a whole, and twice, so that every path of autodiff is taken:
 * assembled views, accumulation, borrowed gradients. */
static int32_t tangled(struct itera_program *p, int32_t x, int32_t w, bool whole)
{
    int32_t left = itera_view_cols(p, x, 0, 8), right = itera_view_cols(p, x, 8, 8);
    int32_t gated = op2(p, ITERA_OP_silu_mul, left, right);
    int32_t a = linear(p, gated, w);
    int32_t b = op2(p, ITERA_OP_add, a, gated);
    b = op2(p, ITERA_OP_mul, b, linear(p, a, w)); /* w is used twice */
    if (whole)
        b = op2(p, ITERA_OP_add, op2(p, ITERA_OP_add, b, left),
                itera_view_cols(p, op1(p, ITERA_OP_silu, x), 4, 8));
    return b;
}

static double objective(bool whole, const float *x, const float *w, const float *seed)
{
    struct harness h;
    harness_open(&h, 1);
    int32_t tx = itera_bound(h.p, "x", ITERA_F32, 2, (int64_t[]){3, 16});
    int32_t tw = itera_bound(h.p, "w", ITERA_F32, 2, (int64_t[]){8, 8});
    int32_t out = expose(h.p, "out", tangled(h.p, tx, tw, whole));
    harness_compile(&h);
    itera_buffer_upload(h.buffers[tx], 0, x, 3 * 16 * 4);
    itera_buffer_upload(h.buffers[tw], 0, w, 8 * 8 * 4);
    assert_int_equal(itera_run(h.executable), ITERA_OK);
    float y[24];
    harness_read(&h, out, y);
    harness_close(&h);
    double sum = 0;
    for (int i = 0; i < 24; i++)
        sum += (double)seed[i] * y[i];
    return sum;
}

static void gradients_through_views(void **state)
{
    (void)state;
    for (int whole = 0; whole < 2; whole++) {
        struct harness h;
        harness_open(&h, 2);
        int32_t x = itera_bound(h.p, "x", ITERA_F32, 2, (int64_t[]){3, 16});
        int32_t w = itera_bound(h.p, "w", ITERA_F32, 2, (int64_t[]){8, 8});
        int32_t unused = itera_bound(h.p, "unused", ITERA_F32, 1, (int64_t[]){4});
        int32_t seed = itera_bound(h.p, "seed", ITERA_F32, 2, (int64_t[]){3, 8});
        int32_t y = tangled(h.p, x, w, whole);
        int32_t gw = itera_bound(h.p, "gw", ITERA_F32, 2, (int64_t[]){8, 8});
        int32_t wrt[3] = {x, w, unused}, grads[3] = {ITERA_NEW, gw, ITERA_NEW};
        assert_int_equal(itera_differentiate(h.p, y, seed, 3, wrt, grads), ITERA_OK);
        assert_int_equal(grads[1], gw);
        int32_t gx = expose(h.p, "gx", grads[0]), gu = expose(h.p, "gu", grads[2]);
        assert_int_equal(itera_fuse_epilogues(h.p), ITERA_OK);
        harness_compile(&h);
        assert_int_equal(itera_run(h.executable), ITERA_OK);
        /* Twice: nothing may depend on what a run leaves behind. */
        assert_int_equal(itera_run(h.executable), ITERA_OK);
        float vx[48], vw[64], vs[24], dx[48], dw[64], du[4];
        harness_read(&h, x, vx);
        harness_read(&h, w, vw);
        harness_read(&h, seed, vs);
        harness_read(&h, gx, dx);
        harness_read(&h, gw, dw);
        harness_read(&h, gu, du);
        harness_close(&h);
        for (int i = 0; i < 4; i++)
            assert_true(du[i] == 0);
        struct itera_rng rng = {.seed = 11};
        for (int trial = 0; trial < 4; trial++) {
            float px[2][48], pw[2][64];
            double expected = 0, step = 1e-2;
            for (int i = 0; i < 48; i++) {
                float d = trial % 2 ? 0 : itera_rng_normal(&rng);
                px[0][i] = vx[i] + (float)step * d;
                px[1][i] = vx[i] - (float)step * d;
                expected += (double)dx[i] * d;
            }
            for (int i = 0; i < 64; i++) {
                float d = trial % 2 ? itera_rng_normal(&rng) : 0;
                pw[0][i] = vw[i] + (float)step * d;
                pw[1][i] = vw[i] - (float)step * d;
                expected += (double)dw[i] * d;
            }
            double slope =
                (objective(whole, px[0], pw[0], vs) - objective(whole, px[1], pw[1], vs)) /
                (2 * step);
            assert_true(fabs(slope - expected) <= 5e-3 * (fabs(expected) + 1));
        }
    }
}

/* One half of x through two views, the other not at all: as many elements as x has, and yet the
 * gradients add on one side and are zero on the other. */
static void overlapping_views_add_up(void **state)
{
    (void)state;
    struct harness h;
    harness_open(&h, 1);
    int32_t x = itera_bound(h.p, "x", ITERA_F32, 2, (int64_t[]){3, 16});
    int32_t seed = itera_bound(h.p, "seed", ITERA_F32, 2, (int64_t[]){3, 8});
    int32_t y =
        op2(h.p, ITERA_OP_add, itera_view_cols(h.p, x, 0, 8), itera_view_cols(h.p, x, 0, 8));
    int32_t grad[1] = {ITERA_NEW};
    assert_int_equal(itera_differentiate(h.p, y, seed, 1, &x, grad), ITERA_OK);
    int32_t gx = expose(h.p, "gx", grad[0]);
    harness_compile(&h);
    assert_int_equal(itera_run(h.executable), ITERA_OK);
    float dx[48], s[24];
    harness_read(&h, gx, dx);
    harness_read(&h, seed, s);
    for (int r = 0; r < 3; r++)
        for (int c = 0; c < 16; c++)
            assert_true(dx[16 * r + c] == (c < 8 ? 2 * s[8 * r + c] : 0));
    harness_close(&h);
}

static void unbound_tensors_are_refused(void **state)
{
    (void)state;
    struct harness h;
    harness_open(&h, 1);
    int32_t x = itera_bound(h.p, "the-input", ITERA_F32, 1, (int64_t[]){4});
    op1(h.p, ITERA_OP_silu, x);
    struct itera_executable *e;
    assert_int_equal(itera_compile(h.device, h.p, NULL, 0, NULL, NULL, &e), ITERA_ERR_ARGUMENT);
    assert_null(e);
    assert_non_null(strstr(itera_last_error(), "the-input"));
    struct itera_buffer *small;
    assert_int_equal(itera_buffer_create(h.device, 12, &small), ITERA_OK);
    struct itera_binding b = {x, small, 0};
    assert_int_equal(itera_compile(h.device, h.p, &b, 1, NULL, NULL, &e), ITERA_ERR_ARGUMENT);
    assert_int_equal(itera_buffer_upload(small, 8, &b, 8), ITERA_ERR_ARGUMENT);
    itera_buffer_destroy(&small);
    harness_close(&h);
}

static void devices_are_named(void **state)
{
    (void)state;
    struct itera_device *device;
    assert_int_equal(itera_device_open("opencl:99", NULL, &device), ITERA_ERR_DEVICE);
    assert_null(device);
    assert_non_null(strstr(itera_last_error(), "cpu"));
    struct itera_device_options options = {.isa = "mmx"};
    assert_int_equal(itera_device_open("cpu", &options, &device), ITERA_ERR_ARGUMENT);
    options = (struct itera_device_options){.threads = -1};
    assert_int_equal(itera_device_open("cpu", &options, &device), ITERA_ERR_ARGUMENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recording_reports_shapes),    cmocka_unit_test(absurd_sizes_are_refused),
        cmocka_unit_test(plan_keeps_lives_apart),      cmocka_unit_test(fusion_keeps_results),
        cmocka_unit_test(fusion_keeps_shared_values),  cmocka_unit_test(gradients_through_views),
        cmocka_unit_test(unbound_tensors_are_refused), cmocka_unit_test(devices_are_named),
        cmocka_unit_test(fusion_keeps_operands),       cmocka_unit_test(models_fuse),
        cmocka_unit_test(overlapping_views_add_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
