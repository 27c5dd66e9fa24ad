/* The chain of a mixture of experts of few rows, in three dispatches:
 *   [[norm] matmul moe_route] moe_sort moe_gather grouped_matmul [silu_mul] grouped_matmul moe_combine
 * Rows keep their order: each finds its experts by moe_route's index, so that there is no sort. Without
 * the part in brackets the choice is made by ops of their own. */
#include "args/matmul.clh"
#include "backend/gpu/chain.h"
#include "backend/gpu/choice.h"
#include "backend/gpu/lower_matmul.h"

enum { ALONE = 16384 }; /* elements of a router that one workgroup reads alone, at most */

static void set_inner(struct itera_gpu_chain *c, enum itera_gpu_role role, int32_t op)
{
    c->op[role] = op;
    c->inner[role] = true;
}

static bool is_grouped(const struct itera_program *p, int32_t i)
{
    const struct itera_op *op = &p->ops[i];
    return op->kind == ITERA_OP_grouped_matmul && op->attr.trans_b && !op->attr.trans_a;
}

/* The op of a kind that writes t, an activation that no other op does. */
static int32_t writer_of(const struct itera_gpu_uses *u, int32_t t, enum itera_op_kind kind)
{
    const struct itera_program *p = u->program;
    const int32_t base = p->tensors[t].base;
    return p->tensors[base].kind == ITERA_ACTIVATION && u->use[base].writers == 1 &&
                   p->ops[u->use[base].writer].kind == kind
               ? u->use[base].writer
               : ITERA_NONE;
}

/* The experts themselves; false when there is something else about them. */
static bool find_experts(const struct itera_gpu_uses *u, int32_t anchor, struct itera_gpu_chain *c)
{
    const struct itera_program *p = u->program;
    const struct itera_op *combine = &p->ops[anchor];
    const int32_t down = itera_gpu_maker(u, combine->in[0]);
    if (down < 0 || !is_grouped(p, down) || p->ops[down].attr.act ||
        itera_gpu_only_reader(u, combine->in[0]) != anchor ||
        itera_gpu_only_reader(u, p->ops[down].in[0]) != down)
        return false;
    int32_t up = itera_gpu_maker(u, p->ops[down].in[0]);
    if (up >= 0 && p->ops[up].kind == ITERA_OP_silu_mul) {
        const int32_t gate = up, *in = p->ops[gate].in, base = p->tensors[in[0]].base;
        up = writer_of(u, in[0], ITERA_OP_grouped_matmul);
        if (up < 0 || p->tensors[in[1]].base != base || p->ops[up].out[0] != base ||
            itera_gpu_only_reader(u, base) != gate)
            return false;
        set_inner(c, ITERA_ROLE_GATE, gate);
    }
    if (up < 0 || !is_grouped(p, up))
        return false;
    const int32_t gather = itera_gpu_maker(u, p->ops[up].in[0]);
    const int32_t sort = writer_of(u, combine->in[1], ITERA_OP_moe_sort);
    if (gather < 0 || p->ops[gather].kind != ITERA_OP_moe_gather || sort < 0 ||
        itera_gpu_only_reader(u, p->ops[up].in[0]) != up)
        return false;
    const int32_t *sorted = p->ops[sort].out; /* offsets, order, position */
    if (p->ops[up].in[2] != sorted[0] || p->ops[down].in[2] != sorted[0] ||
        p->ops[gather].in[1] != sorted[1] || combine->in[1] != sorted[2] ||
        u->use[sorted[0]].readers != 2 || u->use[sorted[1]].readers != 1 ||
        u->use[sorted[2]].readers != 1 + itera_gpu_reads(p, gather, sorted[2]))
        return false;
    set_inner(c, ITERA_ROLE_SORT, sort);
    set_inner(c, ITERA_ROLE_GATHER, gather);
    c->op[ITERA_ROLE_UP] = up;
    set_inner(c, ITERA_ROLE_DOWN, down);
    c->op[ITERA_ROLE_COMBINE] = anchor;
    return true;
}

/* Adds how the experts are chosen, where one workgroup can do that for a row. */
static void find_router(const struct itera_gpu_uses *u, int32_t route, struct itera_gpu_chain *c)
{
    const struct itera_program *p = u->program;
    const int32_t logits = p->ops[route].in[0], router = itera_gpu_maker(u, logits);
    if (router < 0 || p->ops[router].kind != ITERA_OP_matmul ||
        itera_gpu_only_reader(u, logits) != route)
        return;
    const struct itera_op *op = &p->ops[router];
    const struct itera_shape *b = &p->tensors[op->in[1]].shape;
    if (!op->attr.trans_b || op->attr.trans_a || op->attr.accumulate || op->attr.act ||
        op->in[3] >= 0 || itera_shape_elements(b) > ALONE || itera_shape_rows(b) > ROUTED_EXPERTS ||
        p->tensors[op->in[0]].dtype != ITERA_F32)
        return;
    set_inner(c, ITERA_ROLE_PRODUCT, router);
    c->op[ITERA_ROLE_ROUTE] = route;
    const int32_t x = p->ops[c->op[ITERA_ROLE_GATHER]].in[0], norm = itera_gpu_maker(u, x);
    if (norm >= 0 && itera_gpu_maker(u, op->in[0]) == norm &&
        (p->ops[norm].kind == ITERA_OP_rms_norm || p->ops[norm].kind == ITERA_OP_layer_norm) &&
        u->use[p->tensors[x].base].readers == 2)
        set_inner(c, ITERA_ROLE_ROWS, norm);
}

static bool find(const struct itera_gpu_uses *u, int32_t anchor, struct itera_gpu_chain *c)
{
    const struct itera_program *p = u->program;
    const struct itera_op *combine = &p->ops[anchor];
    if (combine->kind != ITERA_OP_moe_combine ||
        itera_shape_rows(&p->tensors[combine->out[0]].shape) > ITERA_FUSED_ROWS ||
        !find_experts(u, anchor, c))
        return false;
    const int32_t index = p->ops[c->op[ITERA_ROLE_SORT]].in[0];
    const int32_t route = writer_of(u, index, ITERA_OP_moe_route);
    if (route < 0 || p->ops[route].out[0] != index || p->ops[route].out[1] != combine->in[2] ||
        p->tensors[p->ops[c->op[ITERA_ROLE_GATHER]].in[0]].dtype != ITERA_F32)
        return false;
    find_router(u, route, c);
    return true;
}

/* Lanes by which one workgroup has all experts' logits. */
static struct itera_lanes route_lanes(int64_t experts)
{
    struct itera_lanes lanes = {32, 1, 1};
    while (ITERA_GPU_LOCAL / lanes.k_lanes * 4 < experts)
        lanes.k_lanes /= 2;
    while (ITERA_GPU_LOCAL / lanes.k_lanes * lanes.cols < experts)
        lanes.cols *= 2;
    return lanes;
}

static const struct itera_fused nothing = {
    .w = ITERA_NONE,
    .shift = ITERA_NONE,
    .index = ITERA_NONE,
    .share = ITERA_NONE,
    .g = {.bias = ITERA_NONE, .residual = ITERA_NONE, .y = ITERA_NONE, .trans_b = true}};

static enum itera_status lower_route(struct itera_gpu_lowering *l, const struct itera_gpu_chain *c,
                                     const struct itera_op *route, const struct itera_op *norm)
{
    struct itera_fused f = nothing;
    l->op_index = c->op[ITERA_ROLE_PRODUCT];
    f.g = itera_product_of(l, &l->program->ops[l->op_index]);
    f.g.y = ITERA_NONE;
    f.experts = EXPERTS_ROUTE;
    f.n_experts = f.g.cols;
    f.index = route->out[0];
    f.share = route->out[1];
    f.over_all = route->attr.softmax_first && !route->attr.renormalize;
    if (norm)
        itera_fused_rows(&f, norm);
    const struct itera_lanes lanes = route_lanes(f.n_experts);
    if (!itera_can_fuse(l, &f, false, false, lanes))
        return itera_refuse(&l->why, "moe_route: no part of a chain");
    itera_lower_fused(l, &f, false, false, lanes);
    return ITERA_OK;
}

static enum itera_status lower(struct itera_gpu_lowering *l, const struct itera_gpu_chain *c)
{
    const struct itera_op *ops = l->program->ops, *combine = &ops[c->op[ITERA_ROLE_COMBINE]];
    const struct itera_op *up = &ops[c->op[ITERA_ROLE_UP]], *down = &ops[c->op[ITERA_ROLE_DOWN]];
    const struct itera_op *gather = &ops[c->op[ITERA_ROLE_GATHER]];
    const struct itera_op *norm = c->op[ITERA_ROLE_ROWS] >= 0 ? &ops[c->op[ITERA_ROLE_ROWS]] : NULL;
    const int32_t index = ops[c->op[ITERA_ROLE_SORT]].in[0];
    enum itera_status status = ITERA_OK;
    if (c->op[ITERA_ROLE_ROUTE] >= 0)
        status = lower_route(l, c, &ops[c->op[ITERA_ROLE_ROUTE]], norm);
    if (status)
        return status;

    struct itera_fused f = nothing;
    f.g.rows = itera_gpu_rows(l, up->out[0]);
    f.g.cols = itera_gpu_cols(l, up->out[0]);
    f.g.depth = itera_gpu_cols(l, gather->in[0]);
    f.g.a = gather->in[0];
    f.g.b = up->in[1];
    f.g.y = up->out[0];
    f.g.act = up->attr.act;
    f.experts = EXPERTS_UP;
    f.n_experts = up->attr.experts;
    f.index = index;
    if (norm)
        itera_fused_rows(&f, norm);
    l->op_index = c->op[ITERA_ROLE_UP];
    status = itera_lower_fused_experts(l, up, &f);
    if (status)
        return status;

    f = nothing;
    f.g.rows = itera_gpu_rows(l, combine->out[0]);
    f.g.cols = itera_gpu_cols(l, combine->out[0]);
    f.g.depth = itera_gpu_cols(l, down->in[0]);
    f.g.a = down->in[0];
    f.g.b = down->in[1];
    f.g.residual = combine->in[3];
    f.g.y = combine->out[0];
    f.experts = EXPERTS_DOWN;
    f.n_experts = down->attr.experts;
    f.index = index;
    f.share = combine->in[2];
    if (c->op[ITERA_ROLE_GATE] >= 0)
        itera_fused_rows(&f, &ops[c->op[ITERA_ROLE_GATE]]);
    l->op_index = c->op[ITERA_ROLE_DOWN];
    return itera_lower_fused_experts(l, down, &f);
}

const struct itera_gpu_chain_kind itera_gpu_chain_experts = {"chain_experts", find, lower};
