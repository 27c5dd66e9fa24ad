/* Lowering of sample and advance, and of both as a chain (contracts: host/ops/sample.c). */
#include "args/sample.clh"
#include "backend/gpu/chain.h"
#include "core/log.h"

/* Invocations for a row: a power of two. */
static uint32_t local_for(const struct itera_gpu_lowering *l, int64_t n, uint32_t most)
{
    uint32_t local = ITERA_GPU_LOCAL;
    while (local < most && local * 2 <= l->traits->max_local && local * 8 <= n)
        local *= 2;
    return local;
}

/* `advance` may be NULL. */
static enum itera_status lower_sample(struct itera_gpu_lowering *l, const struct itera_op *op,
                                      const struct itera_op *advance)
{
    int32_t logits = op->in[0], params = op->in[1], rng = op->in[2];
    int64_t batch = itera_gpu_rows(l, logits), vocabulary = itera_gpu_cols(l, logits);
    int64_t segments = itera_gpu_div_up(vocabulary, SEGMENT), groups = batch * segments;
    if (vocabulary > MAX_TOKENS)
        return itera_refuse(&l->why, "sample: a vocabulary of %lld; the GPU kernels take %d tokens",
                            (long long)vocabulary, MAX_TOKENS);
    struct itera_gpu_scratch best = itera_gpu_scratch(l, 2 * groups);
    struct itera_gpu_scratch powers = itera_gpu_scratch(l, 2 * batch * vocabulary);
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "sample_weigh");
    itera_gpu_in(l, d, logits);
    itera_gpu_in(l, d, params);
    itera_gpu_use(d, best, ITERA_GPU_WRITE);
    itera_gpu_use(d, powers, ITERA_GPU_WRITE);
    ITERA_GPU_ARGS(d, sample_weigh_args, .groups = groups, .vocabulary = vocabulary,
                   .segments = segments);
    itera_gpu_local(d, local_for(l, vocabulary, SEGMENT_LOCAL), 1, 1);
    itera_gpu_groups(l, d, groups, 1, 1);

    d = itera_gpu_begin(l, "sample");
    itera_gpu_in(l, d, logits);
    itera_gpu_in(l, d, params);
    itera_gpu_inout(l, d, rng);
    itera_gpu_use(d, best, ITERA_GPU_READ);
    itera_gpu_use(d, powers, ITERA_GPU_READ);
    itera_gpu_out(l, d, op->out[0]);
    itera_gpu_inout(l, d, advance ? advance->in[0] : ITERA_NONE);
    ITERA_GPU_ARGS(d, sample_args, .batch = batch, .vocabulary = vocabulary, .segments = segments,
                   .count = advance ? advance->attr.count : 0);
    itera_gpu_local(d, local_for(l, vocabulary, MAX_LOCAL), 1, 1);
    itera_gpu_groups(l, d, batch, 1, 1);
    return ITERA_OK;
}

enum itera_status itera_lower_sample(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    return lower_sample(l, op, NULL);
}

enum itera_status itera_lower_advance(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    int64_t batch = itera_gpu_cols(l, op->in[0]);
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "advance");
    itera_gpu_inout(l, d, op->in[0]);
    ITERA_GPU_ARGS(d, advance_args, .batch = batch, .count = (uint32_t)op->attr.count);
    itera_gpu_groups(l, d, itera_gpu_div_up(batch, ITERA_GPU_LOCAL), 1, 1);
    return ITERA_OK;
}

/* sample advance: whoever has drawn a token moves its sequence on. */
static bool find_sample(const struct itera_gpu_uses *u, int32_t anchor, struct itera_gpu_chain *c)
{
    const struct itera_program *p = u->program;
    const struct itera_op *advance = &p->ops[anchor];
    if (advance->kind != ITERA_OP_advance)
        return false;
    int32_t sample = anchor - 1;
    while (sample >= 0 && p->ops[sample].kind != ITERA_OP_sample)
        sample--;
    if (sample < 0 || itera_shape_rows(&p->tensors[p->ops[sample].in[0]].shape) !=
                          itera_shape_cols(&p->tensors[advance->in[0]].shape))
        return false;
    c->op[ITERA_ROLE_SAMPLE] = sample;
    c->op[ITERA_ROLE_ADVANCE] = anchor;
    return true;
}

static enum itera_status lower_chain(struct itera_gpu_lowering *l, const struct itera_gpu_chain *c)
{
    const struct itera_op *ops = l->program->ops;
    l->op_index = c->op[ITERA_ROLE_SAMPLE];
    return lower_sample(l, &ops[c->op[ITERA_ROLE_SAMPLE]], &ops[c->op[ITERA_ROLE_ADVANCE]]);
}

const struct itera_gpu_chain_kind itera_gpu_chain_sample = {"chain_sample", find_sample,
                                                            lower_chain};
