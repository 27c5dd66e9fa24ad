#include "program/precision.h"

#include <stdlib.h>
#include <string.h>

#include "core/log.h"

/* The f16 copy of a window of a tensor, as it was after `version` writes to its base. */
struct copy {
    int32_t base, half;
    int64_t offset, rows, cols, ld;
    int32_t version;
};

struct lowering {
    struct itera_program *p;
    struct copy *copies;
    int32_t n_copies, cap_copies;
    int32_t *version; /* per base tensor: writes so far */
};

static bool same_window(const struct copy *c, const struct itera_tensor *t, int32_t version)
{
    return c->base == t->base && c->version == version && c->offset == t->offset &&
           c->ld == t->shape.ld && c->rows == itera_shape_rows(&t->shape) &&
           c->cols == itera_shape_cols(&t->shape);
}

static bool keep_copy(struct lowering *l, struct copy copy)
{
    if (l->n_copies == l->cap_copies) {
        int32_t cap = l->cap_copies ? l->cap_copies * 2 : 64;
        struct copy *grown = realloc(l->copies, (size_t)cap * sizeof *grown);
        if (!grown) {
            l->p->status = itera_fail(ITERA_ERR_MEMORY, "no memory to lower a program's precision");
            return false;
        }
        l->copies = grown;
        l->cap_copies = cap;
    }
    l->copies[l->n_copies++] = copy;
    return true;
}

/* The f16 copy of an operand, recorded now unless there is one. */
static int32_t half_of(struct lowering *l, int32_t id)
{
    struct itera_program *p = l->p;
    const struct itera_tensor t = p->tensors[id];
    int32_t version = l->version[t.base], half = ITERA_NONE;
    for (int32_t i = l->n_copies - 1; i >= 0 && half < 0; i--)
        if (same_window(&l->copies[i], &t, version))
            half = l->copies[i].half;
    if (half < 0) {
        struct itera_attr attr = {.dtype = ITERA_F16};
        half = ITERA_NEW;
        itera_record(p, ITERA_OP_cast, &attr, &id, &half);
        if (p->status ||
            !keep_copy(l, (struct copy){t.base, half, t.offset, itera_shape_rows(&t.shape),
                                        itera_shape_cols(&t.shape), t.shape.ld, version}))
            return ITERA_NONE;
    }
    /* The same elements may be wanted under other dims. */
    if (!itera_shape_equal_dims(&p->tensors[half].shape, &t.shape))
        half = itera_view_dims(p, half, t.shape.rank, t.shape.dim);
    return half;
}

static void count_writes(struct lowering *l, const struct itera_op *op)
{
    const struct itera_op_info *info = itera_op_info(op->kind);
    for (int k = 0; k < info->n_out; k++)
        if (op->out[k] >= 0)
            l->version[l->p->tensors[op->out[k]].base]++;
    for (int k = 0; k < info->n_in; k++)
        if (op->in[k] >= 0 && (info->written_in >> k & 1))
            l->version[l->p->tensors[op->in[k]].base]++;
}

enum itera_status itera_lower_precision(struct itera_program *p)
{
    if (p->status)
        return p->status;
    int32_t n_ops = p->n_ops;
    struct lowering l = {.p = p};
    struct itera_op *ops = malloc(((size_t)n_ops + 1) * sizeof *ops);
    /* Recording casts adds tensors, whose bases are never looked up: they are f16. */
    l.version = calloc((size_t)p->n_tensors + 1, sizeof *l.version);
    if (!ops || !l.version) {
        free(ops);
        free(l.version);
        return itera_fail(ITERA_ERR_MEMORY, "no memory to lower a program's precision");
    }
    memcpy(ops, p->ops, (size_t)n_ops * sizeof *ops);
    p->n_ops = 0;
    enum itera_part part = p->part;
    for (int32_t i = 0; i < n_ops && !p->status; i++) {
        struct itera_op op = ops[i];
        bool product = op.kind == ITERA_OP_matmul || op.kind == ITERA_OP_grouped_matmul;
        p->part = op.part;
        for (int k = 0; product && op.part != ITERA_PART_ROUTER && k < 2; k++)
            if (p->tensors[op.in[k]].dtype == ITERA_F32)
                op.in[k] = half_of(&l, op.in[k]);
        count_writes(&l, &op);
        /* Through record, which grows the list; the operands are already there. */
        if (!p->status)
            itera_record(p, op.kind, &op.attr, op.in, op.out);
    }
    p->part = part;
    free(ops);
    free(l.version);
    free(l.copies);
    return p->status;
}
