/* The vector exp, log1p, sigmoid and normal distribution, through the kernels that are little else,
 * at every level that this processor has: relative errors of a few ulp over their whole range, the
 * values at the ends of it, and dropout's draws bit for bit. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "backend/cpu/isa.h"
#include "core/rng.h"
#include "tests/support/test.h"

enum { N = 20011 }; /* odd, so that there is a tail */

static float x[N], y[N], ones[N];

static struct itera_arg vector(void *data, int64_t n)
{
    return (struct itera_arg){.data = data,
                              .rows = 1,
                              .cols = n,
                              .ld = n,
                              .dim = {n, 1, 1, 1},
                              .rank = 1,
                              .dtype = ITERA_F32};
}

static void run(enum itera_isa isa, enum itera_op_kind kind, const struct itera_attr *attr,
                struct itera_arg a, struct itera_arg b, struct itera_arg out)
{
    struct itera_call call = {.attr = attr, .in = {a, b}, .out = {out}};
    struct itera_team one = {.rank = 0, .size = 1};
    itera_isa_kernel(isa, kind)->run(&call, &one);
}

/* Fast levels first; the reference has its libm to itself. */
static enum itera_isa next_isa(enum itera_isa isa)
{
    do
        isa++;
    while (isa < ITERA_ISA_COUNT && !itera_isa_available(isa));
    return isa;
}

typedef double exact_fn(double v);

static double neg_exp(double v)
{
    return -exp(v);
}
static double silu(double v)
{
    return v / (1.0 + exp(-v));
}
static double softplus(double v)
{
    return fmax(v, 0) + log1p(exp(-fabs(v)));
}
static double gelu(double v)
{
    return 0.5 * v * erfc(-v / sqrt(2.0));
}
static double softplus_slope(double v)
{
    return -expm1(-v);
}

/* Over [low, high]: relative error below `limit` for op(x), or op(1, x) when `second`. */
static void sweep(enum itera_op_kind kind, exact_fn *exact, bool second, double low, double high,
                  double limit)
{
    struct itera_attr attr = {0};
    for (int i = 0; i < N; i++) {
        x[i] = (float)(low + (high - low) * (i + 0.37) / N);
        ones[i] = 1.0f;
    }
    struct itera_arg vx = vector(x, N), v1 = vector(ones, N);
    for (enum itera_isa isa = next_isa(ITERA_ISA_REF); isa < ITERA_ISA_COUNT; isa = next_isa(isa)) {
        run(isa, kind, &attr, second ? v1 : vx, vx, vector(y, N));
        for (int i = 0; i < N; i++) {
            double want = exact(x[i]);
            if (!(fabs(y[i] - want) <= limit * fabs(want) + 1.7e-38))
                fail_msg("%s %s(%.9g) is %.9g, expected %.9g", itera_isa_name(isa),
                         itera_op_info(kind)->name, (double)x[i], (double)y[i], want);
        }
    }
}

static void few_ulp(void **state)
{
    (void)state;
    sweep(ITERA_OP_neg_exp, neg_exp, false, -100.0, 88.72, 2e-7);
    sweep(ITERA_OP_neg_exp, neg_exp, false, -1.0, 1.0, 2e-7);
    sweep(ITERA_OP_silu, silu, false, -85.0, 100.0, 3e-7);
    sweep(ITERA_OP_softplus, softplus, false, -90.0, 90.0, 3e-7);
    sweep(ITERA_OP_softplus, softplus, false, -3.0, 3.0, 3e-7);
    sweep(ITERA_OP_softplus_bwd, softplus_slope, true, 0.0, 1e-3, 2e-7);
    sweep(ITERA_OP_softplus_bwd, softplus_slope, true, 0.0, 90.0, 2e-7);
    /* The tail's error is that of x^2 / 2 in f32, times itself. */
    sweep(ITERA_OP_gelu, gelu, false, -12.0, 12.0, 6e-6);
    sweep(ITERA_OP_gelu, gelu, false, -2.0, 4.0, 6e-7);
}

static void ends_of_the_range(void **state)
{
    (void)state;
    static const float in[] = {INFINITY, -INFINITY, NAN,   0.0f,   -0.0f,  1e30f, -1e30f,
                               89.0f,    -104.0f,   88.7f, -87.0f, 1e-40f, 3e38f, -3e38f};
    static const struct {
        enum itera_op_kind kind;
        exact_fn *exact;
    } ops[] = {{ITERA_OP_neg_exp, neg_exp},
               {ITERA_OP_silu, silu},
               {ITERA_OP_softplus, softplus},
               {ITERA_OP_gelu, gelu}};
    enum { COUNT = sizeof in / sizeof *in };
    struct itera_attr attr = {0};
    memcpy(x, in, sizeof in);
    for (size_t k = 0; k < sizeof ops / sizeof *ops; k++)
        for (enum itera_isa isa = next_isa(ITERA_ISA_REF); isa < ITERA_ISA_COUNT;
             isa = next_isa(isa)) {
            run(isa, ops[k].kind, &attr, vector(x, COUNT), vector(x, COUNT), vector(y, COUNT));
            for (int i = 0; i < COUNT; i++) {
                float want = (float)ops[k].exact(in[i]);
                bool same = isnan(want) ? isnan(y[i])
                                        : y[i] == want || fabs((double)y[i] - (double)want) <=
                                                              3e-7 * fabs((double)want) + 1.7e-38;
                if (!same)
                    fail_msg("%s %s(%g) is %g, expected %g", itera_isa_name(isa),
                             itera_op_info(ops[k].kind)->name, (double)in[i], (double)y[i],
                             (double)want);
            }
        }
}

static void dropout_draws_the_stream(void **state)
{
    (void)state;
    int32_t rng[4] = {-77, 12345, 6, -1};
    uint64_t seed = (uint32_t)rng[0] | (uint64_t)(uint32_t)rng[1] << 32;
    uint64_t step = (uint32_t)rng[2] | (uint64_t)(uint32_t)rng[3] << 32;
    struct itera_attr attr = {.p = 0.3f, .stream = 9};
    struct itera_arg state_arg = vector(rng, 4);
    state_arg.dtype = ITERA_I32;
    for (int i = 0; i < N; i++)
        ones[i] = 1.0f;
    for (enum itera_isa isa = ITERA_ISA_REF; isa < ITERA_ISA_COUNT; isa = next_isa(isa)) {
        /* rows that start anywhere within a block of draws */
        struct itera_arg m = vector(ones, N), out = vector(y, N);
        m.rows = out.rows = 89;
        m.cols = out.cols = 101;
        m.ld = out.ld = 103;
        memset(y, 0, sizeof y);
        run(isa, ITERA_OP_dropout, &attr, m, state_arg, out);
        for (int r = 0; r < 89; r++)
            for (int c = 0; c < 101; c++) {
                uint32_t draw =
                    itera_rng_at(seed, (uint64_t)9 << 32 ^ step, (uint64_t)(r * 101 + c));
                bool keep = (float)(draw >> 8) * 0x1p-24f >= attr.p;
                float got = y[r * 103 + c];
                assert_true(keep ? fabsf(got - 1.0f / 0.7f) < 1e-6f : got == 0.0f);
            }
    }
}

static void cross_entropy_of_infinities(void **state)
{
    (void)state;
    /* classes of probability 0 in a whole block of the kernel, and a NaN that must not get lost */
    enum { CLASSES = 2500 };
    int32_t target[1] = {2000};
    float loss, lse;
    double scratch[1];
    for (int nan = 0; nan < 2; nan++)
        for (enum itera_isa isa = ITERA_ISA_REF; isa < ITERA_ISA_COUNT; isa = next_isa(isa)) {
            for (int i = 0; i < CLASSES; i++)
                x[i] = i < 1100 ? -INFINITY : 0.5f;
            if (nan)
                x[700] = NAN;
            struct itera_arg ids = vector(target, 1);
            ids.dtype = ITERA_I32;
            struct itera_call call = {.in = {vector(x, CLASSES), ids},
                                      .out = {vector(&loss, 1), vector(&lse, 1)},
                                      .scratch = scratch};
            struct itera_team one = {.rank = 0, .size = 1};
            itera_isa_kernel(isa, ITERA_OP_cross_entropy)->run(&call, &one);
            if (nan)
                assert_true(isnan(loss) && isnan(lse));
            else
                assert_true(fabs(loss - log(1400.0)) < 1e-6);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(few_ulp),
        cmocka_unit_test(ends_of_the_range),
        cmocka_unit_test(dropout_draws_the_stream),
        cmocka_unit_test(cross_entropy_of_infinities),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
