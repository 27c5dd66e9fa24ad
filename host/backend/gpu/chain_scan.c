/* Chains of one step of a mixer:
 *   [rms_norm of dt] [of B] [of C] matmul selective_scan       (mamba, itera-m)
 *   softplus_mean [matmul] itera_scan matmul skip_gate         (itera) */
#include "args/scan_selective.clh"
#include "args/step.clh"
#include "backend/gpu/chain.h"
#include "backend/gpu/choice.h"
#include "ops/scan.h"

enum {
    LANES = ITERA_GPU_LOCAL,
    MOST_STATES = 256,
    ALONE = 8192, /* elements of a matrix that one workgroup reads alone, at most */
};

/* The product that makes t, with weights as they are stored, which nobody else reads. */
static int32_t product_of(const struct itera_gpu_uses *u, int32_t t, int32_t reader)
{
    const struct itera_program *p = u->program;
    const int32_t maker = itera_gpu_maker(u, t);
    if (maker < 0 || p->ops[maker].kind != ITERA_OP_matmul || itera_gpu_only_reader(u, t) != reader)
        return ITERA_NONE;
    const struct itera_op *op = &p->ops[maker];
    return op->attr.trans_b && !op->attr.trans_a && !op->attr.accumulate && op->in[3] < 0 &&
                   p->tensors[op->in[0]].dtype == ITERA_F32
               ? maker
               : ITERA_NONE;
}

/* The norm that makes t for one reader. */
static int32_t norm_of(const struct itera_gpu_uses *u, int32_t t, int32_t reader)
{
    const int32_t maker = itera_gpu_maker(u, t);
    return maker >= 0 && u->program->ops[maker].kind == ITERA_OP_rms_norm &&
                   itera_gpu_only_reader(u, t) == reader
               ? maker
               : ITERA_NONE;
}

static void set_inner(struct itera_gpu_chain *c, enum itera_gpu_role role, int32_t op)
{
    c->op[role] = op;
    c->inner[role] = op >= 0;
}

static bool find_selective(const struct itera_gpu_uses *u, int32_t anchor,
                           struct itera_gpu_chain *c)
{
    const struct itera_program *p = u->program;
    const struct itera_op *scan = &p->ops[anchor];
    if (scan->kind != ITERA_OP_selective_scan || scan->out[1] >= 0 ||
        scan->attr.variant != ITERA_SCAN_AUTO || p->tensors[scan->in[0]].shape.dim[1] != 1)
        return false;
    const int32_t product = product_of(u, scan->in[1], anchor);
    if (product < 0)
        return false;
    c->op[ITERA_ROLE_SCAN] = anchor;
    set_inner(c, ITERA_ROLE_PRODUCT, product);
    set_inner(c, ITERA_ROLE_ROWS, norm_of(u, p->ops[product].in[0], product));
    set_inner(c, ITERA_ROLE_B_NORM, norm_of(u, scan->in[3], anchor));
    set_inner(c, ITERA_ROLE_C_NORM, norm_of(u, scan->in[4], anchor));
    return true;
}

static const struct itera_op *op_in(const struct itera_gpu_lowering *l,
                                    const struct itera_gpu_chain *c, enum itera_gpu_role role)
{
    return c->op[role] < 0 ? NULL : &l->program->ops[c->op[role]];
}

static enum itera_status lower_selective(struct itera_gpu_lowering *l,
                                         const struct itera_gpu_chain *c)
{
    const struct itera_op *scan = op_in(l, c, ITERA_ROLE_SCAN);
    const struct itera_op *product = op_in(l, c, ITERA_ROLE_PRODUCT);
    const struct itera_op *low = op_in(l, c, ITERA_ROLE_ROWS);
    const struct itera_op *b = op_in(l, c, ITERA_ROLE_B_NORM);
    const struct itera_op *cn = op_in(l, c, ITERA_ROLE_C_NORM);
    const int64_t *dim = itera_gpu_tensor(l, scan->in[0])->shape.dim;
    const int64_t states = itera_gpu_cols(l, scan->in[2]), slots = itera_gpu_class(states);
    const int64_t split = slots > 32 ? 32 : slots, wide = LANES / split;
    const int64_t rank = itera_gpu_cols(l, product->in[0]);
    if (rank > MOST_RANK || rank < 1 || states > MOST_STATES || states < 1)
        return itera_refuse(&l->why, "selective_scan: %lld states, of dt %lld columns",
                            (long long)states, (long long)rank);
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "selective_scan_step");
    itera_gpu_in(l, d, scan->in[0]);
    itera_gpu_in(l, d, low ? low->in[0] : product->in[0]);
    itera_gpu_in(l, d, product->in[1]);
    itera_gpu_in(l, d, product->in[2]);
    itera_gpu_in(l, d, scan->in[2]);
    itera_gpu_in(l, d, b ? b->in[0] : scan->in[3]);
    itera_gpu_in(l, d, cn ? cn->in[0] : scan->in[4]);
    itera_gpu_in(l, d, scan->in[5]);
    itera_gpu_in(l, d, scan->in[6]);
    itera_gpu_inout(l, d, scan->in[7]);
    itera_gpu_in(l, d, low ? low->in[1] : ITERA_NONE);
    itera_gpu_in(l, d, b ? b->in[1] : ITERA_NONE);
    itera_gpu_in(l, d, cn ? cn->in[1] : ITERA_NONE);
    itera_gpu_out(l, d, scan->out[0]);
    const uint32_t has = (scan->in[5] >= 0 ? HAS_D : 0) | (scan->in[6] >= 0 ? HAS_Z : 0) |
                         (scan->in[7] >= 0 ? HAS_STATE : 0) | (product->in[2] >= 0 ? HAS_BIAS : 0) |
                         (low ? HAS_LOW_NORM : 0) | (b ? HAS_B_NORM : 0) | (cn ? HAS_C_NORM : 0);
    ITERA_GPU_ARGS(d, selective_scan_step_args, .batch = dim[0], .channels = dim[2],
                   .states = states, .rank = rank, .scales = itera_gpu_scales(l, product->in[1]),
                   .act = product->attr.act, .has = has, .low_eps = low ? low->attr.eps : 0,
                   .b_eps = b ? b->attr.eps : 0, .c_eps = cn ? cn->attr.eps : 0);
    ITERA_GPU_CONSTANT(d, SPLIT, split);
    ITERA_GPU_CONSTANT(d, STATES, slots / split);
    ITERA_GPU_CONSTANT(d, W_TYPE, itera_gpu_tensor(l, product->in[1])->dtype);
    ITERA_GPU_CONSTANT(d, RANK, rank);
    itera_gpu_groups(l, d, dim[0] * itera_gpu_div_up(dim[2], wide), 1, 1);
    return ITERA_OK;
}

const struct itera_gpu_chain_kind itera_gpu_chain_selective = {"chain_selective_scan",
                                                               find_selective, lower_selective};

static int64_t elements(const struct itera_program *p, int32_t t)
{
    return itera_shape_elements(&p->tensors[t].shape);
}

static bool find_itera(const struct itera_gpu_uses *u, int32_t anchor, struct itera_gpu_chain *c)
{
    const struct itera_program *p = u->program;
    const struct itera_op *scan = &p->ops[anchor];
    if (scan->kind != ITERA_OP_itera_scan || scan->attr.variant != ITERA_SCAN_AUTO ||
        p->tensors[scan->in[2]].shape.dim[1] != 1)
        return false;
    const int32_t mean = itera_gpu_maker(u, scan->in[0]);
    const int32_t output = itera_gpu_only_reader(u, scan->out[0]);
    if (mean < 0 || p->ops[mean].kind != ITERA_OP_softplus_mean ||
        itera_gpu_only_reader(u, scan->in[0]) != anchor || output < 0 ||
        itera_gpu_maker(u, scan->out[0]) != anchor)
        return false;
    const int32_t gate = itera_gpu_only_reader(u, p->ops[output].out[0]);
    if (gate < 0 || p->ops[gate].kind != ITERA_OP_skip_gate ||
        product_of(u, p->ops[gate].in[0], gate) != output ||
        itera_gpu_maker(u, p->ops[output].in[0]) != anchor || p->ops[output].in[2] >= 0 ||
        p->ops[output].attr.act || elements(p, p->ops[output].in[1]) > ALONE)
        return false;
    c->op[ITERA_ROLE_GATE] = gate;
    set_inner(c, ITERA_ROLE_SCAN, anchor);
    set_inner(c, ITERA_ROLE_MEAN, mean);
    set_inner(c, ITERA_ROLE_OUTPUT, output);
    const int32_t input = product_of(u, scan->in[2], anchor);
    if (input >= 0 && p->ops[input].in[2] < 0 && !p->ops[input].attr.act &&
        elements(p, p->ops[input].in[1]) <= ALONE)
        set_inner(c, ITERA_ROLE_PRODUCT, input);
    return true;
}

static enum itera_status lower_itera(struct itera_gpu_lowering *l, const struct itera_gpu_chain *c)
{
    const struct itera_op *scan = op_in(l, c, ITERA_ROLE_SCAN),
                          *mean = op_in(l, c, ITERA_ROLE_MEAN);
    const struct itera_op *input = op_in(l, c, ITERA_ROLE_PRODUCT);
    const struct itera_op *output = op_in(l, c, ITERA_ROLE_OUTPUT);
    const struct itera_op *gate = op_in(l, c, ITERA_ROLE_GATE);
    const int64_t states = itera_gpu_cols(l, scan->in[2]);
    if (states > STEP_STATES || states < 1)
        return itera_refuse(&l->why, "itera_scan: %lld states", (long long)states);
    int64_t lanes = LANES;
    while (lanes > 1 && LANES / lanes < states)
        lanes /= 2;
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "itera_scan_step");
    itera_gpu_in(l, d, mean->in[0]);
    itera_gpu_in(l, d, scan->in[1]);
    itera_gpu_in(l, d, input ? ITERA_NONE : scan->in[2]);
    itera_gpu_in(l, d, input ? input->in[1] : ITERA_NONE);
    itera_gpu_in(l, d, input ? input->in[0] : ITERA_NONE);
    itera_gpu_in(l, d, output->in[1]);
    itera_gpu_in(l, d, gate->in[1]);
    itera_gpu_in(l, d, gate->in[2]);
    itera_gpu_in(l, d, gate->in[3]);
    itera_gpu_inout(l, d, scan->in[3]);
    itera_gpu_out(l, d, gate->out[0]);
    ITERA_GPU_ARGS(d, itera_scan_step_args, .width = itera_gpu_cols(l, mean->in[0]),
                   .states = states, .depth = input ? itera_gpu_cols(l, input->in[0]) : 0,
                   .channels = itera_gpu_cols(l, gate->out[0]), .lanes = lanes,
                   .b_scales = input ? itera_gpu_scales(l, input->in[1]) : 0,
                   .c_scales = itera_gpu_scales(l, output->in[1]), .makes_u = input != NULL,
                   .has = (gate->in[3] >= 0 ? HAS_Z : 0) | (scan->in[3] >= 0 ? HAS_STATE : 0));
    ITERA_GPU_CONSTANT(d, W_TYPE, input ? itera_gpu_tensor(l, input->in[1])->dtype : ITERA_F32);
    ITERA_GPU_CONSTANT(d, C_TYPE, itera_gpu_tensor(l, output->in[1])->dtype);
    itera_gpu_groups(l, d, itera_gpu_rows(l, gate->out[0]), 1, 1);
    return ITERA_OK;
}

const struct itera_gpu_chain_kind itera_gpu_chain_itera = {"chain_itera_scan", find_itera,
                                                           lower_itera};
