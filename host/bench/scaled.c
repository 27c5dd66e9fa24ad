/* Models of other widths and lengths than the presets', for curves of how cost grows. */
#include <math.h>
#include <stdlib.h>

#include "bench/bench_impl.h"
#include "core/log.h"
#include "model/model_impl.h"

/* A size that is multiplied, in whole multiples of `unit`. */
static int32_t scaled(int32_t size, double width, int32_t unit)
{
    int64_t units = llround((double)size * width / unit);
    return (int32_t)(units > 0 ? units * unit : unit);
}

static void scale(struct itera_config *c, double width)
{
    enum { UNIT = 8 }; /* channels: whole vectors, and whole heads of 8 or more */
    const int32_t head = c->heads > 0 ? c->hidden / c->heads : UNIT;
    c->hidden = scaled(c->hidden, width, head > 0 ? head : UNIT);
    if (c->heads > 0)
        c->heads = c->hidden / head;
    if (c->inner > 0)
        c->inner = c->expand * c->hidden;
    if (c->ffn > 0)
        c->ffn = scaled(c->ffn, width, UNIT);
    if (c->expert_size > 0)
        c->expert_size = scaled(c->expert_size, width, UNIT);
    if (c->dt_rank > 0)
        c->dt_rank = (c->hidden + 15) / 16;
}

enum itera_status itera_bench_create_scaled(struct itera_device *device, const char *name,
                                            double width, int32_t positions,
                                            struct itera_model **out)
{
    *out = NULL;
    struct itera_config config;
    enum itera_status status = itera_config_find(name, &config);
    if (!status && !(width > 0 && width <= 64))
        status = itera_fail(ITERA_ERR_ARGUMENT, "width %g; more than 0 to 64 are possible", width);
    if (status)
        return status;
    if (width != 1)
        scale(&config, width);
    if (positions > 0 && config.max_positions > 0)
        config.max_positions = positions;
    status = itera_config_validate(&config, name);
    if (!status)
        status = itera_model_allocate(device, &config, out);
    if (status)
        return status;
    float *weights = calloc((size_t)(*out)->layout.elements, sizeof *weights);
    if (weights) {
        itera_layout_initialize(&(*out)->layout, 1, weights);
        status = itera_model_write_f32(*out, weights);
    } else {
        status = itera_fail(ITERA_ERR_MEMORY, "no memory for %lld weights",
                            (long long)(*out)->layout.elements);
    }
    free(weights);
    if (status)
        itera_model_destroy(out);
    return status;
}
