/* The chain of a product of few rows: what makes its rows, the product, and a step of a causal convolution
 * of some of its columns.
 *   [rms_norm | layer_norm | silu_mul] matmul [causal_conv1d] */
#include "args/matmul.clh"
#include "backend/gpu/chain.h"
#include "backend/gpu/lower_matmul.h"

static bool is_product(const struct itera_program *p, const struct itera_op *op)
{
    return op->kind == ITERA_OP_matmul && op->attr.trans_b && !op->attr.trans_a &&
           p->tensors[op->in[0]].dtype == ITERA_F32 &&
           itera_shape_rows(&p->tensors[op->out[0]].shape) <= ITERA_FUSED_ROWS;
}

static bool makes_rows(enum itera_op_kind kind)
{
    return kind == ITERA_OP_rms_norm || kind == ITERA_OP_layer_norm || kind == ITERA_OP_silu_mul;
}

/* The op that makes the rows of product `anchor`, if all that read them are such products, too. */
static int32_t rows_of(const struct itera_gpu_uses *u, int32_t anchor)
{
    const struct itera_program *p = u->program;
    const int32_t a = p->ops[anchor].in[0], maker = itera_gpu_maker(u, a);
    if (maker < 0 || !makes_rows(p->ops[maker].kind))
        return ITERA_NONE;
    for (int32_t i = 0; i < p->n_ops; i++) {
        if (!itera_gpu_reads(p, i, a))
            continue;
        const struct itera_op *op = &p->ops[i];
        if (!is_product(p, op) || u->refused[i] ||
            (u->taken[i] && u->taken[i] != &itera_gpu_chain_product) ||

            itera_gpu_maker(u, op->in[0]) != maker)
            return ITERA_NONE;
        for (int k = 1; k < ITERA_MAX_IN; k++)
            if (op->in[k] >= 0 && p->tensors[op->in[k]].base == p->tensors[a].base)
                return ITERA_NONE;
    }
    return maker;
}

/* The convolution of columns that nobody else reads. */
static int32_t conv_of(const struct itera_gpu_uses *u, int32_t anchor)
{
    const struct itera_program *p = u->program;
    const int32_t y = p->ops[anchor].out[0];
    int32_t conv = ITERA_NONE;
    if (p->tensors[y].kind != ITERA_ACTIVATION || p->tensors[y].base != y || u->use[y].writers != 1)
        return ITERA_NONE;
    for (int32_t i = 0; i < p->n_ops && conv < 0; i++)
        if (p->ops[i].kind == ITERA_OP_causal_conv1d && p->tensors[p->ops[i].in[0]].base == y)
            conv = i;
    if (conv < 0)
        return ITERA_NONE;
    const struct itera_tensor *x = &p->tensors[p->ops[conv].in[0]];
    const int64_t begin = x->offset, end = begin + itera_shape_cols(&x->shape);
    if (x->shape.dim[1] != 1 || x->shape.ld != p->tensors[y].shape.ld ||
        itera_shape_rows(&x->shape) != itera_shape_rows(&p->tensors[y].shape) ||
        end > itera_shape_cols(&p->tensors[y].shape))
        return ITERA_NONE;
    for (int32_t i = 0; i < p->n_ops; i++)
        for (int k = 0; k < ITERA_MAX_IN; k++) {
            const int32_t in = p->ops[i].in[k];
            if (in < 0 || p->tensors[in].base != y || (i == conv && k == 0))
                continue;
            const struct itera_tensor *t = &p->tensors[in];
            if (t->shape.ld != x->shape.ld || t->offset >= x->shape.ld ||
                (t->offset < end && begin < t->offset + itera_shape_cols(&t->shape)))
                return ITERA_NONE;
        }
    return conv;
}

static bool find(const struct itera_gpu_uses *u, int32_t anchor, struct itera_gpu_chain *c)
{
    if (!is_product(u->program, &u->program->ops[anchor]))
        return false;
    c->op[ITERA_ROLE_PRODUCT] = anchor;
    c->op[ITERA_ROLE_ROWS] = rows_of(u, anchor);
    c->op[ITERA_ROLE_CONV] = conv_of(u, anchor);
    c->inner[ITERA_ROLE_ROWS] = c->shared[ITERA_ROLE_ROWS] = c->op[ITERA_ROLE_ROWS] >= 0;
    return c->op[ITERA_ROLE_ROWS] >= 0 || c->op[ITERA_ROLE_CONV] >= 0;
}

void itera_fused_rows(struct itera_fused *f, const struct itera_op *rows)
{
    f->g.a = rows->in[0];
    f->w = rows->in[1];
    f->eps = rows->attr.eps;
    if (rows->kind == ITERA_OP_silu_mul) {
        f->stage = STAGE_SILU_MUL;
    } else if (rows->kind == ITERA_OP_layer_norm) {
        f->stage = STAGE_LAYER_NORM;
        f->shift = rows->in[2];
    } else {
        f->stage = STAGE_RMS_NORM;
    }
}

static enum itera_status lower(struct itera_gpu_lowering *l, const struct itera_gpu_chain *c)
{
    const struct itera_op *ops = l->program->ops;
    const int32_t rows = c->op[ITERA_ROLE_ROWS], conv = c->op[ITERA_ROLE_CONV];
    struct itera_fused f = {.g = itera_product_of(l, &ops[c->op[ITERA_ROLE_PRODUCT]]),
                            .w = ITERA_NONE,
                            .shift = ITERA_NONE,
                            .index = ITERA_NONE,
                            .share = ITERA_NONE};
    if (rows >= 0)
        itera_fused_rows(&f, &ops[rows]);
    if (conv >= 0) {
        f.conv = &ops[conv];
        f.conv_first = l->program->tensors[f.conv->in[0]].offset;
    }
    return itera_lower_fused_product(l, &f);
}

const struct itera_gpu_chain_kind itera_gpu_chain_product = {"chain_product", find, lower};
