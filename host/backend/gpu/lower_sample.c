/* Lowering of sample and advance (contracts: host/ops/sample.c). */
#include "args/sample.clh"
#include "backend/gpu/lower.h"
#include "core/log.h"

/* Invocations for a row: a power of two. */
static uint32_t local_for(const struct itera_gpu_lowering *l, int64_t n, uint32_t most)
{
    uint32_t local = ITERA_GPU_LOCAL;
    while (local < most && local * 2 <= l->traits->max_local && local * 8 <= n)
        local *= 2;
    return local;
}

enum itera_status itera_lower_sample(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    int32_t logits = op->in[0], params = op->in[1], rng = op->in[2];
    int64_t batch = itera_gpu_rows(l, logits), vocabulary = itera_gpu_cols(l, logits);
    int64_t segments = itera_gpu_div_up(vocabulary, SEGMENT), groups = batch * segments;
    if (vocabulary > MAX_TOKENS)
        return itera_refuse(&l->why, "sample: a vocabulary of %lld; the GPU kernels take %d tokens",
                            (long long)vocabulary, MAX_TOKENS);
    struct itera_gpu_scratch best = itera_gpu_scratch(l, 2 * groups);
    struct itera_gpu_scratch weights = itera_gpu_scratch(l, 2 * batch * vocabulary);
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "sample_best");
    itera_gpu_in(l, d, logits);
    itera_gpu_use(d, best, ITERA_GPU_WRITE);
    ITERA_GPU_ARGS(d, sample_best_args, .groups = groups, .vocabulary = vocabulary,
                   .segments = segments);
    itera_gpu_local(d, local_for(l, vocabulary, SEGMENT_LOCAL), 1, 1);
    itera_gpu_groups(l, d, groups, 1, 1);

    d = itera_gpu_begin(l, "sample_weigh");
    itera_gpu_in(l, d, logits);
    itera_gpu_in(l, d, params);
    itera_gpu_use(d, best, ITERA_GPU_READ);
    itera_gpu_use(d, weights, ITERA_GPU_WRITE);
    ITERA_GPU_ARGS(d, sample_weigh_args, .groups = groups, .vocabulary = vocabulary,
                   .segments = segments);
    itera_gpu_local(d, local_for(l, vocabulary, SEGMENT_LOCAL), 1, 1);
    itera_gpu_groups(l, d, groups, 1, 1);

    d = itera_gpu_begin(l, "sample");
    itera_gpu_in(l, d, logits);
    itera_gpu_in(l, d, params);
    itera_gpu_inout(l, d, rng);
    itera_gpu_use(d, best, ITERA_GPU_READ);
    itera_gpu_use(d, weights, ITERA_GPU_READ);
    itera_gpu_out(l, d, op->out[0]);
    ITERA_GPU_ARGS(d, sample_args, .batch = batch, .vocabulary = vocabulary, .segments = segments);
    itera_gpu_local(d, local_for(l, vocabulary, MAX_LOCAL), 1, 1);
    itera_gpu_groups(l, d, batch, 1, 1);
    return ITERA_OK;
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
