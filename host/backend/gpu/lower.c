/* From programs to dispatches: the helpers of the lowerings, and the plan of a whole program. */
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/gpu/gpu.h"
#include "backend/gpu/tuning_store.h"
#include "core/environment.h"
#include "core/log.h"
#include "core/number.h"
#include "program/plan.h"
#include "tensor/blocks.h"

enum { ALIGN = 256, MAX_GROUPS = 65535 };

/* Kernels number elements with 32 bits, and the invocations of a grid that is cut a few more. */
static const int64_t MAX_ELEMENTS = ((int64_t)1 << 32) - (1 << 20);

static itera_gpu_lower_fn *const lowerings[ITERA_OP_COUNT] = {
#define ITERA_OP(name, inputs, outputs, simd, tolerance) [ITERA_OP_##name] = itera_lower_##name,
#include "ops/op_list.h"
#undef ITERA_OP
};

struct itera_gpu_dispatch *itera_gpu_begin(struct itera_gpu_lowering *l, const char *kernel)
{
    static struct itera_gpu_dispatch nowhere;
    if (l->n == l->cap) {
        int32_t cap = l->cap ? l->cap * 2 : 16;
        struct itera_gpu_dispatch *grown =
            realloc(l->dispatches, (size_t)cap * sizeof *l->dispatches);
        if (!grown) {
            l->status = itera_fail(ITERA_ERR_MEMORY, "no memory to compile a program");
            nowhere = (struct itera_gpu_dispatch){.kernel = kernel};
            return &nowhere;
        }
        l->dispatches = grown;
        l->cap = cap;
    }
    struct itera_gpu_dispatch *d = &l->dispatches[l->n++];
    *d = (struct itera_gpu_dispatch){
        .kernel = kernel, .op = l->op_index, .local = {ITERA_GPU_LOCAL, 1, 1}};
    return d;
}

static void add_word(struct itera_gpu_dispatch *d, uint32_t word)
{
    if (d->n_words < ITERA_GPU_MAX_WORDS)
        d->word[d->n_words++] = word;
    else
        d->overflow = true;
}

static void add_binding(struct itera_gpu_dispatch *d, struct itera_gpu_binding b, int64_t ld)
{
    if (d->n_bindings == ITERA_GPU_MAX_BINDINGS) {
        d->overflow = true;
        return;
    }
    assert(d->n_words == 2 * d->n_bindings); /* operands come before all other words */
    b.word = d->n_words;
    d->binding[d->n_bindings++] = b;
    add_word(d, 0);
    add_word(d, (uint32_t)ld);
}

static const char *op_name(const struct itera_gpu_lowering *l)
{
    return itera_op_info(l->program->ops[l->op_index].kind)->name;
}

static void check_elements(struct itera_gpu_lowering *l, int64_t elements)
{
    if (elements > MAX_ELEMENTS && !l->status)
        l->status = itera_refuse(&l->why, "%s: an operand of %lld elements; kernels count to %lld",
                                 op_name(l), (long long)elements, (long long)MAX_ELEMENTS);
}

/* What a lowering puts into words are sizes of its op's tensors, and products of them that number
 * elements of an operand or of scratch. */
static void check_sizes(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    const struct itera_op_info *info = itera_op_info(op->kind);
    for (int i = 0; i < info->n_in + info->n_out; i++) {
        int32_t id = i < info->n_in ? op->in[i] : op->out[i - info->n_in];
        for (int32_t k = 0; id >= 0 && k < l->program->tensors[id].shape.rank; k++)
            check_elements(l, l->program->tensors[id].shape.dim[k]);
    }
}

static void add_tensor(struct itera_gpu_lowering *l, struct itera_gpu_dispatch *d, int32_t id,
                       int access)
{
    struct itera_gpu_binding b = {
        .tensor = ITERA_NONE, .scratch = -1, .access = (uint8_t)access, .element = 4, .base = -1};
    if (id < 0 || itera_shape_elements(&l->program->tensors[id].shape) == 0) {
        add_binding(d, b, 0);
        return;
    }
    const struct itera_tensor *t = &l->program->tensors[id];
    b.tensor = id;
    b.base = t->base;
    /* Blocks are read in words. */
    b.element = itera_dtype_is_blocks(t->dtype) ? 4 : (uint8_t)itera_dtype_bytes(t->dtype, 1);
    b.ld = t->shape.ld;
    b.cols = itera_shape_cols(&t->shape);
    b.first_col = t->shape.ld ? t->offset % t->shape.ld : 0;
    int64_t elements = itera_shape_span(&t->shape);
    b.bytes = itera_dtype_bytes(t->dtype, elements);
    b.bytes = (b.bytes + 3) / 4 * 4; /* f16 is read and written in words */
    add_binding(d, b, t->shape.ld);
    check_elements(l, elements);
    if (b.bytes > l->traits->max_operand_bytes && !l->status)
        l->status = itera_refuse(&l->why, "%s: an operand of %llu bytes; %s addresses %llu at most",
                                 op_name(l), (unsigned long long)b.bytes, l->device->base.info.id,
                                 (unsigned long long)l->traits->max_operand_bytes);
}

void itera_gpu_in(struct itera_gpu_lowering *l, struct itera_gpu_dispatch *d, int32_t tensor)
{
    add_tensor(l, d, tensor, ITERA_GPU_READ);
}

void itera_gpu_out(struct itera_gpu_lowering *l, struct itera_gpu_dispatch *d, int32_t tensor)
{
    add_tensor(l, d, tensor, ITERA_GPU_WRITE);
}

void itera_gpu_inout(struct itera_gpu_lowering *l, struct itera_gpu_dispatch *d, int32_t tensor)
{
    add_tensor(l, d, tensor, ITERA_GPU_READ | ITERA_GPU_WRITE);
}

struct itera_gpu_scratch itera_gpu_scratch(struct itera_gpu_lowering *l, int64_t elements)
{
    struct itera_gpu_scratch s = {.place = (int32_t)(l->scratch_bytes / ALIGN),
                                  .bytes = (uint64_t)elements * 4};
    l->scratch_bytes += (s.bytes + ALIGN - 1) / ALIGN * ALIGN;
    check_elements(l, elements);
    if (l->scratch_bytes / ALIGN > INT32_MAX && !l->status)
        l->status = itera_refuse(&l->why, "%s: scratch of %llu bytes", op_name(l),
                                 (unsigned long long)l->scratch_bytes);
    return s;
}

void itera_gpu_use(struct itera_gpu_dispatch *d, struct itera_gpu_scratch scratch, int access)
{
    struct itera_gpu_binding b = {.tensor = ITERA_NONE,
                                  .scratch = scratch.bytes ? scratch.place : -1,
                                  .access = (uint8_t)access,
                                  .element = 4,
                                  .bytes = scratch.bytes,
                                  .base = -1};
    add_binding(d, b, 0);
}

void itera_gpu_words(struct itera_gpu_dispatch *d, const void *words, size_t bytes)
{
    assert(bytes % sizeof *d->word == 0);
    size_t n = bytes / sizeof *d->word;
    if (n > (size_t)(ITERA_GPU_MAX_WORDS - d->n_words)) {
        d->overflow = true;
        return;
    }
    memcpy(d->word + d->n_words, words, bytes);
    d->n_words += (uint8_t)n;
}

void itera_gpu_constant(struct itera_gpu_dispatch *d, uint32_t id, const char *name, int64_t value)
{
    if (d->n_constants < ITERA_GPU_MAX_CONSTANTS)
        d->constant[d->n_constants++] =
            (struct itera_gpu_constant){.name = name, .id = id, .value = (uint32_t)value};
    else
        d->overflow = true;
}

void itera_gpu_local(struct itera_gpu_dispatch *d, uint32_t x, uint32_t y, uint32_t z)
{
    d->local[0] = x;
    d->local[1] = y;
    d->local[2] = z;
}

void itera_gpu_groups(struct itera_gpu_lowering *l, struct itera_gpu_dispatch *d, int64_t x,
                      int64_t y, int64_t z)
{
    if (x > MAX_GROUPS && y == 1) {
        y = itera_gpu_div_up(x, MAX_GROUPS);
        x = itera_gpu_div_up(x, y);
    }
    if ((x > MAX_GROUPS || y > MAX_GROUPS || z > MAX_GROUPS) && !l->status)
        l->status = itera_refuse(&l->why,
                                 "%s: a grid of %lld x %lld x %lld workgroups; GPUs take %d a side",
                                 op_name(l), (long long)x, (long long)y, (long long)z, MAX_GROUPS);
    d->groups[0] = (uint32_t)x;
    d->groups[1] = (uint32_t)y;
    d->groups[2] = (uint32_t)z;
}

long long itera_gpu_class(int64_t size)
{
    long long c = 1;
    while (c < size)
        c *= 2;
    return c;
}

int itera_gpu_choice(struct itera_gpu_lowering *l, const char *const *names, int count,
                     int fallback, const char *key_format, ...)
{
    int n = snprintf(l->choice_key, sizeof l->choice_key, "%s ", op_name(l));
    va_list args;
    va_start(args, key_format);
    itera_format_args(l->choice_key + n, sizeof l->choice_key - (size_t)n, key_format, args);
    va_end(args);
    l->n_choices = count;
    l->choice = fallback;
    if (l->forced >= 0 && l->forced < count) {
        l->choice = l->forced;
    } else if (l->device->tuning) {
        const char *best = itera_gpu_tuning_find(l->device->tuning, l->choice_key);
        for (int i = 0; best && i < count; i++)
            if (!strcmp(names[i], best))
                l->choice = i;
    }
    l->choice_name = names[l->choice];
    return l->choice;
}

/* Drops the dispatches from `first` on that have nothing to do, and looks at the others. */
static enum itera_status finish_op(struct itera_gpu_lowering *l, int32_t first)
{
    const char *op = op_name(l);
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

enum itera_status itera_gpu_lower_op(struct itera_gpu_lowering *l, int32_t index, int forced)
{
    const struct itera_op *op = &l->program->ops[index];
    const char *name = itera_op_info(op->kind)->name;
    if (itera_op_matches(itera_environment_disabled_ops(), name))
        return itera_refuse(&l->why, "%s: turned off by ITERA_DISABLE_OPS", name);
    int32_t first = l->n;
    l->op_index = index;
    l->scratch_bytes = 0;
    l->forced = forced;
    l->n_choices = l->choice = 0;
    l->choice_name = "";
    l->status = ITERA_OK;
    check_sizes(l, op);
    enum itera_status status = l->status ? l->status : lowerings[op->kind](l, op);
    if (!status)
        status = l->status;
    if (!status)
        status = finish_op(l, first);
    if (status)
        l->n = first;
    return status;
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

/* Lowers every op; the scratch that the largest needs goes to *scratch. */
static enum itera_status lower_program(struct itera_gpu_lowering *l,
                                       const struct itera_compile_options *options,
                                       struct itera_compile_result *result, uint64_t *scratch)
{
    const int forced = options->force_choice - 1;
    *scratch = 0;
    for (int32_t i = 0; i < l->program->n_ops; i++) {
        enum itera_status status = itera_gpu_lower_op(l, i, forced);
        bool took = !status && forced >= 0 && forced < l->n_choices;
        if (status == ITERA_ERR_UNSUPPORTED && forced >= 0)
            status = itera_gpu_lower_op(l, i, -1); /* this way does not serve this op */
        if (status == ITERA_ERR_UNSUPPORTED)
            return itera_fail(status, "%s", l->why.text);
        if (status)
            return status;
        if (took)
            snprintf(result->choice_name, sizeof result->choice_name, "%s", l->choice_name);
        if (l->n_choices > result->n_choices)
            result->n_choices = l->n_choices;
        if (l->scratch_bytes > *scratch)
            *scratch = l->scratch_bytes;
    }
    return ITERA_OK;
}

/* Whether two operands, one of them written, may touch the same memory. */
static bool conflict(const struct itera_gpu_binding *a, const struct itera_gpu_binding *b)
{
    if (!((a->access | b->access) & ITERA_GPU_WRITE) || a->buffer != b->buffer)
        return false;
    if (a->offset >= b->offset + b->bytes || b->offset >= a->offset + a->bytes)
        return false;
    /* Other columns of one matrix: the halves of a projection, for example. */
    bool columns = a->base >= 0 && a->base == b->base && a->ld == b->ld && a->element == b->element;
    return !(columns &&
             (a->first_col + a->cols <= b->first_col || b->first_col + b->cols <= a->first_col));
}

static bool depends(const struct itera_gpu_dispatch *d, const struct itera_gpu_dispatch *earlier)
{
    for (int i = 0; i < d->n_bindings; i++)
        for (int j = 0; j < earlier->n_bindings; j++)
            if (conflict(&d->binding[i], &earlier->binding[j]))
                return true;
    return false;
}

/* A barrier goes before a dispatch that depends on any since the last barrier. */
static void find_hazards(struct itera_gpu_dispatch *d, int32_t n)
{
    int32_t since = 0;
    for (int32_t i = 0; i < n; i++) {
        for (int32_t j = since; j < i && !d[i].barrier; j++)
            d[i].barrier = depends(&d[i], &d[j]);
        if (d[i].barrier)
            since = i;
    }
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
                b->offset = activations + (uint64_t)b->scratch * ALIGN;
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
    uint64_t scratch, activations;
    const struct itera_binding **bound = calloc((size_t)program->n_tensors + 1, sizeof *bound);
    if (!bound)
        return itera_fail(ITERA_ERR_MEMORY, "no memory to compile a program");
    enum itera_status status = lower_program(&l, options, result, &scratch);
    if (!status)
        status = itera_plan_create(program, ALIGN, &memory);
    if (status)
        goto fail;
    for (int i = 0; i < n_bindings; i++)
        bound[bindings[i].tensor] = &bindings[i];
    activations = ((uint64_t)memory.bytes + ALIGN - 1) / ALIGN * ALIGN;
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
    find_hazards(out->dispatches, out->n);
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

void itera_gpu_plan_destroy(struct itera_gpu_plan *plan)
{
    itera_buffer_destroy(&plan->memory);
    free(plan->dispatches);
    *plan = (struct itera_gpu_plan){0};
}
