/* Dispatches under construction: what lowerings are written in. */
#include "backend/gpu/dispatch.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"

enum { MAX_GROUPS = 65535 };

/* Kernels number elements with 32 bits, and the invocations of a grid that is cut a few more. */
static const int64_t MAX_ELEMENTS = ((int64_t)1 << 32) - (1 << 20);

struct itera_gpu_dispatch *itera_gpu_begin(struct itera_gpu_lowering *l, const char *kernel)
{
    static _Thread_local struct itera_gpu_dispatch nowhere;
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

void itera_gpu_check_elements(struct itera_gpu_lowering *l, int64_t elements)
{
    if (elements > MAX_ELEMENTS && !l->status)
        l->status =
            itera_refuse(&l->why, "%s: an operand of %lld elements; kernels count to %lld",
                         itera_gpu_op_name(l), (long long)elements, (long long)MAX_ELEMENTS);
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
    itera_gpu_check_elements(l, elements);
    if (b.bytes > l->traits->max_operand_bytes && !l->status)
        l->status =
            itera_refuse(&l->why, "%s: an operand of %llu bytes; %s addresses %llu at most",
                         itera_gpu_op_name(l), (unsigned long long)b.bytes, l->device->base.info.id,
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
    struct itera_gpu_scratch s = {.place = (int32_t)(l->scratch_bytes / ITERA_GPU_ALIGN),
                                  .bytes = (uint64_t)elements * 4};
    l->scratch_bytes += (s.bytes + ITERA_GPU_ALIGN - 1) / ITERA_GPU_ALIGN * ITERA_GPU_ALIGN;
    itera_gpu_check_elements(l, elements);
    if (l->scratch_bytes / ITERA_GPU_ALIGN > INT32_MAX && !l->status)
        l->status = itera_refuse(&l->why, "%s: scratch of %llu bytes", itera_gpu_op_name(l),
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
        l->status = itera_refuse(
            &l->why, "%s: a grid of %lld x %lld x %lld workgroups; GPUs take %d a side",
            itera_gpu_op_name(l), (long long)x, (long long)y, (long long)z, MAX_GROUPS);
    d->groups[0] = (uint32_t)x;
    d->groups[1] = (uint32_t)y;
    d->groups[2] = (uint32_t)z;
}
