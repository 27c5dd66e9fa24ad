#include "program/fuse.h"

#include <stdlib.h>

#include "core/log.h"

/* How often each tensor is read, views counted for their base as well. */
static int32_t *count_uses(const struct itera_program *p)
{
    int32_t *uses = calloc((size_t)p->n_tensors + 1, sizeof *uses);
    if (!uses)
        return NULL;
    for (int32_t i = 0; i < p->n_ops; i++)
        for (int k = 0; k < ITERA_MAX_IN; k++) {
            int32_t t = p->ops[i].in[k];
            if (t < 0)
                continue;
            uses[t]++;
            if (p->tensors[t].base != t)
                uses[p->tensors[t].base]++;
        }
    return uses;
}

/* The op that writes t in full, looking back from op `before`; -1 when it is not a plain producer.
 */
static int32_t producer(const struct itera_program *p, int32_t t, int32_t before)
{
    for (int32_t i = before - 1; i >= 0; i--)
        for (int k = 0; k < ITERA_MAX_OUT; k++)
            if (p->ops[i].out[k] == t)
                return i;
    return -1;
}

/* Whether op b's output 0 may be written at op a's place instead, given that b's input t is a's
 * output: t must be a private activation read by b alone, and nothing between a and b may touch
 * b's output or write b's other operands. Nor may a read what b writes. */
static bool movable(const struct itera_program *p, const int32_t *uses, int32_t a, int32_t b,
                    int32_t t)
{
    if (a < 0 || p->ops[a].out[0] != t || uses[t] != 1 || p->tensors[t].base != t ||
        p->tensors[t].kind != ITERA_ACTIVATION)
        return false;
    const struct itera_op *late = &p->ops[b];
    for (int j = 0; j < ITERA_MAX_IN; j++) /* what a reads would be overwritten under it */
        if (late->out[0] >= 0 && p->ops[a].in[j] >= 0 &&
            p->tensors[p->ops[a].in[j]].base == p->tensors[late->out[0]].base)
            return false;
    for (int32_t i = a + 1; i < b; i++) {
        const struct itera_op *op = &p->ops[i];
        const struct itera_op_info *info = itera_op_info(op->kind);
        for (int k = 0; k < ITERA_MAX_OUT; k++) {
            if (op->out[k] < 0)
                continue;
            int32_t base = p->tensors[op->out[k]].base;
            for (int j = 0; j < ITERA_MAX_IN; j++)
                if (late->in[j] >= 0 && late->in[j] != t && p->tensors[late->in[j]].base == base)
                    return false;
            if (late->out[0] >= 0 && p->tensors[late->out[0]].base == base)
                return false;
        }
        for (int k = 0; k < info->n_in; k++) {
            if (op->in[k] < 0)
                continue;
            if (late->out[0] >= 0 && p->tensors[op->in[k]].base == p->tensors[late->out[0]].base)
                return false;
            if (info->written_in >> k & 1)
                for (int j = 0; j < ITERA_MAX_IN; j++)
                    if (late->in[j] >= 0 &&
                        p->tensors[late->in[j]].base == p->tensors[op->in[k]].base)
                        return false;
        }
    }
    return true;
}

static void drop_ops(struct itera_program *p, const bool *dead)
{
    int32_t kept = 0;
    for (int32_t i = 0; i < p->n_ops; i++)
        if (!dead[i])
            p->ops[kept++] = p->ops[i];
    p->n_ops = kept;
}

static bool same_matrix(const struct itera_program *p, int32_t a, int32_t b)
{
    const struct itera_shape *x = &p->tensors[a].shape, *y = &p->tensors[b].shape;
    return itera_shape_rows(x) == itera_shape_rows(y) && itera_shape_cols(x) == itera_shape_cols(y);
}

/* The producer of op b's input `slot`, if b can be folded into it and it is of `kind`; else NULL.
 */
static struct itera_op *foldable(const struct itera_program *p, const int32_t *uses, int32_t b,
                                 int slot, enum itera_op_kind kind, int32_t *where)
{
    int32_t t = p->ops[b].in[slot];
    if (t < 0 || p->ops[b].out[0] < 0 || !same_matrix(p, t, p->ops[b].out[0]))
        return NULL;
    *where = producer(p, t, b);
    if (*where < 0 || p->ops[*where].kind != kind || !movable(p, uses, *where, b, t))
        return NULL;
    return &p->ops[*where];
}

/* Each of these folds op i into an earlier op, or returns false. */
static bool fold_activation(struct itera_program *p, const int32_t *uses, int32_t i,
                            enum itera_op_kind into, enum itera_act act)
{
    int32_t at;
    struct itera_op *op = foldable(p, uses, i, 0, into, &at);
    if (!op || op->attr.act || op->attr.accumulate)
        return false;
    if (into == ITERA_OP_matmul && op->in[3] >= 0) /* the activation would come before residual */
        return false;
    if (into == ITERA_OP_grouped_matmul && op->attr.trans_a)
        return false;
    op->attr.act = (uint8_t)act;
    op->out[0] = p->ops[i].out[0];
    return true;
}

static bool fold_residual(struct itera_program *p, const int32_t *uses, int32_t i,
                          enum itera_op_kind into)
{
    for (int slot = 0; slot < 2; slot++) {
        int32_t at;
        struct itera_op *op = foldable(p, uses, i, slot, into, &at);
        int32_t other = p->ops[i].in[1 - slot];
        if (!op || op->in[3] >= 0 || op->attr.accumulate)
            continue;
        /* The other summand must be there already when the producer runs. */
        if (other < 0 || other == op->out[0] || producer(p, other, i) > at ||
            producer(p, p->tensors[other].base, i) > at)
            continue;
        op->in[3] = other;
        op->out[0] = p->ops[i].out[0];
        return true;
    }
    return false;
}

static bool fold_gate(struct itera_program *p, const int32_t *uses, int32_t i)
{
    int32_t at;
    struct itera_op *op = foldable(p, uses, i, 0, ITERA_OP_selective_scan, &at);
    int32_t z = p->ops[i].in[1];
    if (!op || op->in[6] >= 0)
        return false;
    int32_t z_base = p->tensors[z].base;
    if (producer(p, z_base, i) > at || producer(p, z, i) > at)
        return false;
    op->in[6] = z;
    op->out[0] = p->ops[i].out[0];
    return true;
}

typedef bool fold_fn(struct itera_program *p, const int32_t *uses, int32_t i);

static bool fold_forward(struct itera_program *p, const int32_t *uses, int32_t i)
{
    switch (p->ops[i].kind) {
    case ITERA_OP_silu:
        return fold_activation(p, uses, i, ITERA_OP_causal_conv1d, ITERA_ACT_SILU);
    case ITERA_OP_silu_mul:
        return fold_gate(p, uses, i);
    case ITERA_OP_softplus:
        return fold_activation(p, uses, i, ITERA_OP_matmul, ITERA_ACT_SOFTPLUS);
    default:
        return false;
    }
}

static bool fold_epilogue(struct itera_program *p, const int32_t *uses, int32_t i)
{
    switch (p->ops[i].kind) {
    case ITERA_OP_silu:
        return fold_activation(p, uses, i, ITERA_OP_matmul, ITERA_ACT_SILU) ||
               fold_activation(p, uses, i, ITERA_OP_grouped_matmul, ITERA_ACT_SILU);
    case ITERA_OP_gelu:
        return fold_activation(p, uses, i, ITERA_OP_matmul, ITERA_ACT_GELU) ||
               fold_activation(p, uses, i, ITERA_OP_grouped_matmul, ITERA_ACT_GELU);
    case ITERA_OP_add:
        return fold_residual(p, uses, i, ITERA_OP_matmul) ||
               fold_residual(p, uses, i, ITERA_OP_moe_combine);
    default:
        return false;
    }
}

static enum itera_status run_pass(struct itera_program *p, fold_fn *fold)
{
    if (p->status)
        return p->status;
    int32_t *uses = count_uses(p);
    bool *dead = calloc((size_t)p->n_ops + 1, sizeof *dead);
    if (!uses || !dead) {
        p->status = itera_fail(ITERA_ERR_MEMORY, "no memory to fuse a program");
    } else {
        for (int32_t i = 0; i < p->n_ops; i++) {
            dead[i] = fold(p, uses, i);
            if (dead[i]) /* its operands now belong to the op it was folded into */
                for (int k = 0; k < ITERA_MAX_IN + ITERA_MAX_OUT; k++)
                    *(k < ITERA_MAX_IN ? &p->ops[i].in[k] : &p->ops[i].out[k - ITERA_MAX_IN]) =
                        ITERA_NONE;
        }
        drop_ops(p, dead);
    }
    free(uses);
    free(dead);
    return p->status;
}

enum itera_status itera_fuse_forward(struct itera_program *p)
{
    return run_pass(p, fold_forward);
}

enum itera_status itera_fuse_epilogues(struct itera_program *p)
{
    return run_pass(p, fold_epilogue);
}
