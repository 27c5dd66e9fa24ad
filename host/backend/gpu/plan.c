#include "backend/gpu/plan.h"

#include <stdio.h>
#include <stdlib.h>

#include "backend/gpu/chain.h"
#include "backend/gpu/hazards.h"
#include "backend/gpu/lower.h"
#include "core/log.h"
#include "program/plan.h"

/* Lowers every op or, where its last op is, a chain; the scratch that the largest needs goes to
 * *scratch. */
static enum itera_status lower_program(struct itera_gpu_lowering *l,
                                       const struct itera_gpu_chains *chains, int forced,
                                       struct itera_compile_result *result, uint64_t *scratch)
{
    *scratch = 0;
    for (int32_t i = 0; i < l->program->n_ops; i++) {
        const struct itera_gpu_chain *chain = chains->at[i];
        if (chains->member[i] && !chain)
            continue;
        enum itera_status status =
            chain ? itera_gpu_lower_chain(l, chain, forced) : itera_gpu_lower_op(l, i, forced);
        bool took = !status && forced >= 0 && forced < l->n_choices;
        if (status == ITERA_ERR_UNSUPPORTED && forced >= 0)
            status = itera_gpu_lower_op(l, i, -1); /* this way does not serve this op */
        if (status == ITERA_ERR_UNSUPPORTED)
            return itera_fail(status, "%s", l->why.text);
        if (status)
            return status;
        if (took)
            snprintf(result->choice_name, sizeof result->choice_name, "%s", l->choice_name);
        result->half |= l->half;
        if (l->n_choices > result->n_choices)
            result->n_choices = l->n_choices;
        if (l->scratch_bytes > *scratch)
            *scratch = l->scratch_bytes;
    }
    return ITERA_OK;
}

/* Gives every binding its buffer, offset and reach. */
static void resolve(const struct itera_program *p, const struct itera_plan *memory,
                    uint64_t activations, const struct itera_binding *const *bound,
                    struct itera_buffer *absent, struct itera_gpu_plan *plan)
{
    for (int32_t i = 0; i < plan->n; i++) {
        for (int k = 0; k < plan->dispatches[i].n_bindings; k++) {
            struct itera_gpu_binding *b = &plan->dispatches[i].binding[k];
            if (b->tensor >= 0) {
                const struct itera_tensor *t = &p->tensors[b->tensor];
                const struct itera_binding *host = bound[t->base];
                b->buffer = host ? host->buffer : plan->memory;
                b->offset = host ? host->offset : (uint64_t)memory->offset[t->base];
                b->offset += (uint64_t)t->offset * b->element;
            } else if (b->scratch >= 0) {
                b->buffer = plan->memory;
                b->offset = activations + (uint64_t)b->scratch * ITERA_GPU_ALIGN;
            } else {
                b->buffer = absent;
                b->bytes = absent->bytes < 16 ? absent->bytes : 16;
                b->access = ITERA_GPU_READ; /* of nothing */
            }
        }
    }
}

/* Parity checks start from memory full of NaN, so that reading what nobody wrote shows. */
static enum itera_status poison(struct itera_buffer *memory)
{
    uint32_t *pattern = malloc(memory->bytes + 4);
    if (!pattern)
        return itera_fail(ITERA_ERR_MEMORY, "no memory for a parity check");
    for (size_t i = 0; i < memory->bytes / 4; i++)
        pattern[i] = 0x7fedbeefu;
    enum itera_status status = memory->device->backend->upload(memory, 0, pattern, memory->bytes);
    free(pattern);
    return status;
}

enum itera_status
itera_gpu_plan_create(struct itera_gpu_device *device, const struct itera_program *program,
                      const struct itera_binding *bindings, int n_bindings,
                      struct itera_buffer *absent, const struct itera_compile_options *options,
                      struct itera_compile_result *result, struct itera_gpu_plan *out)
{
    *out = (struct itera_gpu_plan){0};
    struct itera_gpu_lowering l = {.device = device, .traits = &device->traits, .program = program};
    struct itera_plan memory = {0};
    struct itera_gpu_chains chains = {0};
    uint64_t scratch, activations;
    const struct itera_binding **bound = calloc((size_t)program->n_tensors + 1, sizeof *bound);
    if (!bound)
        return itera_fail(ITERA_ERR_MEMORY, "no memory to compile a program");
    for (int i = 0; i < n_bindings; i++)
        bound[bindings[i].tensor] = &bindings[i];
    const int forced = options->force_choice - 1;
    enum itera_status status = itera_gpu_find_chains(&l, bound, forced, options->apart, &chains);
    if (!status)
        status = lower_program(&l, &chains, forced, result, &scratch);
    if (!status)
        status = itera_plan_create(program, ITERA_GPU_ALIGN,
                                   &(struct itera_plan_chains){.member = chains.member,
                                                               .until = chains.until,
                                                               .unmade = chains.unmade},
                                   &memory);
    result->n_chains += chains.n;
    itera_gpu_chains_destroy(&chains);
    if (status)
        goto fail;
    activations =
        ((uint64_t)memory.bytes + ITERA_GPU_ALIGN - 1) / ITERA_GPU_ALIGN * ITERA_GPU_ALIGN;
    out->dispatches = l.dispatches;
    out->n = l.n;
    out->memory_bytes = activations + scratch;
    if (out->memory_bytes)
        status = itera_buffer_create(&device->base, (size_t)out->memory_bytes, &out->memory);
    if (!status && out->memory && options->checking)
        status = poison(out->memory);
    if (status)
        goto fail;
    resolve(program, &memory, activations, bound, absent, out);
    itera_gpu_find_hazards(out->dispatches, out->n);
    itera_plan_destroy(&memory);
    free(bound);
    return ITERA_OK;
fail:
    itera_plan_destroy(&memory);
    free(bound);
    free(l.dispatches);
    itera_buffer_destroy(&out->memory);
    *out = (struct itera_gpu_plan){0};
    return status;
}

int32_t itera_gpu_plan_barriers(const struct itera_gpu_plan *plan)
{
    int32_t n = 0;
    for (int32_t i = 0; i < plan->n; i++)
        n += plan->dispatches[i].barrier;
    return n;
}

void itera_gpu_plan_destroy(struct itera_gpu_plan *plan)
{
    itera_buffer_destroy(&plan->memory);
    free(plan->dispatches);
    *plan = (struct itera_gpu_plan){0};
}
