/* What the elementwise, norm, embedding, loss and optimiser ops refuse, and that they say why; what
 * their gradient rules refuse. */
#include <string.h>

#include "program/autodiff.h"
#include "tests/support/test.h"

/* An operand: up to three dims (0 ends them); i32 when `whole`. */
struct operand {
    int64_t dim[3];
    bool whole;
};

struct refusal {
    enum itera_op_kind kind;
    struct itera_attr attr;
    struct operand in[6];
    enum itera_status status;
    const char *says;
};

static int32_t declare(struct itera_program *p, const struct operand *o)
{
    int rank = 0;
    while (rank < 3 && o->dim[rank])
        rank++;
    return rank ? itera_bound(p, "operand", o->whole ? ITERA_I32 : ITERA_F32, rank, o->dim)
                : ITERA_NONE;
}

static void refused(void **state)
{
    (void)state;
    static const struct refusal refusals[] = {
        {ITERA_OP_add, {0}, {{{2, 3}, 0}, {{3, 2}, 0}}, ITERA_ERR_SHAPE, "add: b"},
        {ITERA_OP_silu, {0}, {{{2, 3}, 1}}, ITERA_ERR_SHAPE, "silu: x"},
        {ITERA_OP_silu_mul_bwd,
         {0},
         {{{2, 3}, 0}, {{2, 3}, 0}, {{2, 4}, 0}},
         ITERA_ERR_SHAPE,
         "silu_mul_bwd: z"},
        {ITERA_OP_skip_gate,
         {0},
         {{{2, 3}, 0}, {{2, 3}, 0}, {{2}, 0}},
         ITERA_ERR_SHAPE,
         "skip_gate: d"},
        {ITERA_OP_softplus_mean_bwd,
         {0},
         {{{2, 2}, 0}, {{4, 3}, 0}},
         ITERA_ERR_SHAPE,
         "for each of the 4 rows"},
        {ITERA_OP_dropout, {.p = 1.0f}, {{{2, 3}, 0}, {{4}, 1}}, ITERA_ERR_ARGUMENT, "p is 1"},
        {ITERA_OP_dropout, {.p = 0.1f}, {{{2, 3}, 0}, {{3}, 1}}, ITERA_ERR_SHAPE, "dropout: rng"},
        {ITERA_OP_layer_norm,
         {0},
         {{{2, 3}, 0}, {{3}, 0}, {{4}, 0}},
         ITERA_ERR_SHAPE,
         "layer_norm: bias"},
        {ITERA_OP_gated_rms_norm,
         {.groups = 2},
         {{{2, 3}, 0}, {{2, 3}, 0}, {{3}, 0}},
         ITERA_ERR_SHAPE,
         "3 channels cannot be split into 2 groups"},
        {ITERA_OP_gated_rms_norm,
         {.groups = -1},
         {{{2, 3}, 0}, {{2, 3}, 0}, {{3}, 0}},
         ITERA_ERR_SHAPE,
         "-1 groups"},
        {ITERA_OP_embedding, {0}, {{{5, 3}, 0}, {{2}, 0}}, ITERA_ERR_SHAPE, "embedding: ids"},
        {ITERA_OP_embedding_bwd, {0}, {{{2, 3}, 0}, {{2}, 1}}, ITERA_ERR_ARGUMENT, "count"},
        {ITERA_OP_embedding_bwd,
         {.count = 4},
         {{{2, 3}, 0}, {{3}, 1}},
         ITERA_ERR_SHAPE,
         "3 ids for the 2 rows"},
        {ITERA_OP_position_embedding,
         {0},
         {{{1, 5, 3}, 0}, {{4, 3}, 0}},
         ITERA_ERR_SHAPE,
         "5 steps, but the table has 4 positions"},
        {ITERA_OP_cross_entropy,
         {0},
         {{{2, 3}, 0}, {{3}, 1}},
         ITERA_ERR_SHAPE,
         "cross_entropy: targets"},
        {ITERA_OP_kl_loss, {0}, {{{2, 3}, 0}, {{2, 3}, 0}}, ITERA_ERR_ARGUMENT, "temperature"},
        {ITERA_OP_adamw,
         {0},
         {{{9}, 0}, {{9}, 0}, {{9}, 0}, {{8}, 0}, {{8}, 0}, {{2}, 0}},
         ITERA_ERR_SHAPE,
         "adamw: v"},
    };
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        const struct refusal *r = &refusals[i];
        const struct itera_op_info *info = itera_op_info(r->kind);
        struct itera_program *p;
        assert_int_equal(itera_program_create(&p), ITERA_OK);
        int32_t in[ITERA_MAX_IN], out[ITERA_MAX_OUT];
        for (int k = 0; k < ITERA_MAX_IN; k++)
            in[k] = k < 6 ? declare(p, &r->in[k]) : ITERA_NONE;
        for (int k = 0; k < ITERA_MAX_OUT; k++)
            out[k] = ITERA_NEW;
        itera_record(p, r->kind, &r->attr, in, out);
        if (p->status != r->status || !strstr(itera_last_error(), r->says))
            fail_msg("%s: status %d, \"%s\"; expected %d and \"%s\"", info->name, p->status,
                     p->status ? itera_last_error() : "", r->status, r->says);
        itera_program_destroy(&p);
    }
}

/* y has no gradient with respect to x, for the reason that `says` is part of. Destroys p. */
static void expect_no_gradient(struct itera_program *p, int32_t y, int32_t x, const char *says)
{
    int32_t grad = ITERA_NEW, seed = itera_bound(p, "seed", ITERA_F32, p->tensors[y].shape.rank,
                                                 p->tensors[y].shape.dim);
    assert_int_equal(itera_differentiate(p, y, seed, 1, &x, &grad), ITERA_ERR_UNSUPPORTED);
    assert_non_null(strstr(itera_last_error(), says));
    itera_program_destroy(&p);
}

static void gradients_refused(void **state)
{
    (void)state;
    const int64_t dim[] = {4, 6, 3};
    struct itera_program *p;

    assert_int_equal(itera_program_create(&p), ITERA_OK);
    int32_t x = itera_bound(p, "x", ITERA_F32, 2, dim);
    int32_t weight = itera_bound(p, "weight", ITERA_F32, 1, dim + 1);
    int32_t in[3] = {x, weight, ITERA_NONE}, out[2] = {ITERA_NEW, ITERA_NONE};
    itera_record(p, ITERA_OP_rms_norm, NULL, in, out);
    expect_no_gradient(p, out[0], x, "recorded without rstd");

    assert_int_equal(itera_program_create(&p), ITERA_OK);
    x = itera_bound(p, "student", ITERA_F32, 2, dim);
    int32_t teacher = itera_bound(p, "teacher", ITERA_F32, 2, dim);
    int32_t pair[2] = {x, teacher};
    struct itera_attr attr = {.scale = 1.0f};
    out[0] = ITERA_NEW;
    itera_record(p, ITERA_OP_kl_loss, &attr, pair, out);
    expect_no_gradient(p, out[0], teacher, "teacher");

    assert_int_equal(itera_program_create(&p), ITERA_OK);
    x = itera_bound(p, "x", ITERA_F32, 3, dim);
    int32_t table = itera_bound(p, "table", ITERA_F32, 2, dim + 1);
    int32_t start = itera_bound(p, "start", ITERA_I32, 1, dim);
    int32_t moved[3] = {x, table, start};
    out[0] = ITERA_NEW;
    itera_record(p, ITERA_OP_position_embedding, NULL, moved, out);
    expect_no_gradient(p, out[0], table, "without start");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refused),
        cmocka_unit_test(gradients_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
