/* Programs on random data. */
#include "bench/bench_impl.h"

#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/rng.h"
#include "tensor/blocks.h"

/* n values in [0.01, 1), or what takes their place in indices, offsets and negative operands. */
static void draw_values(const struct itera_tensor *t, int32_t id, int32_t index_limit, int64_t n,
                        uint32_t *values)
{
    bool offsets = t->name && !strcmp(t->name, "offsets");
    float sign = t->name && !strncmp(t->name, "neg", 3) ? -1.0f : 1.0f;
    uint32_t draw[4] = {0};
    for (int64_t i = 0; i < n; i++) {
        if (i % 4 == 0)
            itera_philox(7, (uint64_t)id, (uint64_t)i / 4, draw);
        uint32_t bits = draw[i % 4];
        if (t->dtype == ITERA_I32) {
            int64_t value = offsets ? index_limit * i / (n > 1 ? n - 1 : 1)
                                    : (int64_t)(((uint64_t)bits * (uint32_t)index_limit) >> 32);
            values[i] = (uint32_t)value;
        } else {
            float v = sign * (0.01f + 0.99f * (float)(bits >> 8) * 0x1p-24f);
            memcpy(&values[i], &v, 4);
        }
    }
}

/* n values as f16, bf16, q8 or q4, at `to`. */
static void narrow_values(enum itera_dtype dtype, const float *from, int64_t n, void *to)
{
    uint16_t *half = to;
    if (itera_dtype_is_blocks(dtype))
        itera_blocks_round(dtype, from, n, itera_blocks_at(dtype, to, n, 0));
    else
        for (int64_t i = 0; i < n; i++)
            half[i] = dtype == ITERA_F16 ? itera_f32_to_f16(from[i]) : itera_f32_to_bf16(from[i]);
}

static enum itera_status fill_random(struct itera_buffer *buffer, const struct itera_tensor *t,
                                     int32_t id, int32_t index_limit)
{
    const int64_t n = itera_shape_elements(&t->shape);
    const bool narrow = t->dtype != ITERA_F32 && t->dtype != ITERA_I32;
    uint32_t *values = malloc(4 * (size_t)n + 4);
    void *data = narrow ? malloc(buffer->bytes + 4) : values;
    enum itera_status status = ITERA_OK;
    if (values && data) {
        draw_values(t, id, index_limit, n, values);
        if (narrow)
            narrow_values(t->dtype, (const float *)(const void *)values, n, data);
        status = itera_buffer_upload(buffer, 0, data, buffer->bytes);
    } else {
        status = itera_fail(ITERA_ERR_MEMORY, "no memory for benchmark data");
    }
    if (narrow)
        free(data);
    free(values);
    return status;
}

enum itera_status itera_bench_build(struct itera_device *device, struct itera_program *p,
                                    int32_t index_limit, struct itera_bench_program *out)
{
    *out = (struct itera_bench_program){.p = p, .n_buffers = p->n_tensors};
    enum itera_status status = p->status;
    struct itera_binding *bindings = calloc((size_t)p->n_tensors + 1, sizeof *bindings);
    out->buffers = calloc((size_t)p->n_tensors + 1, sizeof *out->buffers);
    if (!status && (!bindings || !out->buffers))
        status = itera_fail(ITERA_ERR_MEMORY, "no memory for a benchmark");
    int n = 0;
    for (int32_t t = 0; t < p->n_tensors && !status; t++) {
        if (p->tensors[t].kind != ITERA_BOUND || p->tensors[t].base != t)
            continue;
        const struct itera_tensor *tensor = &p->tensors[t];
        size_t bytes = itera_dtype_bytes(tensor->dtype, itera_shape_elements(&tensor->shape));
        status = itera_buffer_create(device, bytes, &out->buffers[t]);
        if (!status)
            status = fill_random(out->buffers[t], &p->tensors[t], t, index_limit);
        bindings[n++] = (struct itera_binding){t, out->buffers[t], 0};
    }
    if (!status)
        status = itera_compile(device, p, bindings, n, NULL, NULL, &out->executable);
    free(bindings);
    if (status)
        itera_bench_program_destroy(out);
    return status;
}

void itera_bench_program_destroy(struct itera_bench_program *program)
{
    itera_executable_destroy(&program->executable);
    for (int i = 0; program->buffers && i < program->n_buffers; i++)
        itera_buffer_destroy(&program->buffers[i]);
    free(program->buffers);
    itera_program_destroy(&program->p);
    *program = (struct itera_bench_program){0};
}
