#include "backend/gpu/chain.h"

#include <stdlib.h>

#include "core/environment.h"
#include "core/log.h"

static itera_gpu_lower_fn *const lowerings[ITERA_OP_COUNT] = {
#define ITERA_OP(name, inputs, outputs, simd, tolerance) [ITERA_OP_##name] = itera_lower_##name,
#include "ops/op_list.h"
#undef ITERA_OP
};

/* What a lowering puts into words are sizes of its op's tensors, and products of them that number
 * elements of an operand or of scratch. */
static void check_sizes(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    const struct itera_op_info *info = itera_op_info(op->kind);
    for (int i = 0; i < info->n_in + info->n_out; i++) {
        int32_t id = i < info->n_in ? op->in[i] : op->out[i - info->n_in];
        for (int32_t k = 0; id >= 0 && k < l->program->tensors[id].shape.rank; k++)
            itera_gpu_check_elements(l, l->program->tensors[id].shape.dim[k]);
    }
}

/* Drops the dispatches from `first` on that have nothing to do, and looks at the others. */
static enum itera_status finish_op(struct itera_gpu_lowering *l, int32_t first)
{
    const char *op = itera_gpu_op_name(l);
    struct itera_gpu_device *device = (struct itera_gpu_device *)l->device;
    int32_t kept = first;
    for (int32_t i = first; i < l->n; i++) {
        const struct itera_gpu_dispatch *d = &l->dispatches[i];
        if (!d->groups[0] || !d->groups[1] || !d->groups[2])
            continue;
        if (d->overflow)
            return itera_refuse(&l->why,
                                "%s: kernel %s wants more operands or words than a dispatch holds",
                                op, d->kernel);
        if (d->local[0] * d->local[1] * d->local[2] > l->traits->max_local)
            return itera_refuse(&l->why, "%s: workgroups of %u; %s has %u invocations at most", op,
                                d->local[0] * d->local[1] * d->local[2], l->device->base.info.id,
                                l->traits->max_local);
        if (!device->has_kernel(device, d->kernel))
            return itera_refuse(&l->why, "%s: kernel %s does not work on %s", op, d->kernel,
                                l->device->base.info.id);
        enum itera_status status = device->prepare ? device->prepare(device, d, &l->why) : ITERA_OK;
        if (status)
            return status;
        if (kept != i)
            l->dispatches[kept] = *d;
        kept++;
    }
    l->n = kept;
    return ITERA_OK;
}

static void begin_op(struct itera_gpu_lowering *l, int32_t index, int forced)
{
    l->op_index = index;
    l->scratch_bytes = 0;
    l->forced = forced;
    l->n_choices = l->choice = 0;
    l->choice_name = "";
    l->half = false;
    l->status = ITERA_OK;
}

/* What was lowered from dispatch `first` on, unless that failed: then nothing of it stays. */
static enum itera_status end_op(struct itera_gpu_lowering *l, int32_t first,
                                enum itera_status status)
{
    if (!status)
        status = l->status;
    if (!status)
        status = finish_op(l, first);
    if (status)
        l->n = first;
    return status;
}

enum itera_status itera_gpu_lower_op(struct itera_gpu_lowering *l, int32_t index, int forced)
{
    const struct itera_op *op = &l->program->ops[index];
    const char *name = itera_op_info(op->kind)->name;
    if (itera_op_matches(itera_environment_disabled_ops(), name))
        return itera_refuse(&l->why, "%s: turned off by ITERA_DISABLE_OPS", name);
    int32_t first = l->n;
    begin_op(l, index, forced);
    check_sizes(l, op);
    return end_op(l, first, l->status ? l->status : lowerings[op->kind](l, op));
}

enum itera_status itera_gpu_lower_chain(struct itera_gpu_lowering *l,
                                        const struct itera_gpu_chain *c, int forced)
{
    int32_t first = l->n;
    begin_op(l, c->anchor, forced);
    for (int r = 0; r < ITERA_ROLES; r++)
        if (c->op[r] >= 0)
            check_sizes(l, &l->program->ops[c->op[r]]);
    return end_op(l, first, l->status ? l->status : c->kind->lower(l, c));
}

enum itera_status itera_gpu_supports(struct itera_device *base, const struct itera_program *program,
                                     const struct itera_op *op, struct itera_reason *why)
{
    const struct itera_gpu_device *device = (const struct itera_gpu_device *)base;
    struct itera_gpu_lowering l = {.device = device, .traits = &device->traits, .program = program};
    enum itera_status status = itera_gpu_lower_op(&l, (int32_t)(op - program->ops), -1);
    free(l.dispatches);
    if (why)
        *why = l.why;
    return status;
}
