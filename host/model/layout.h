/* The parameters of a model: their names in files, their place in one flat buffer, how they start.
 * A layout is filled by recording the model once (graph.h), so that the code that uses a
 * parameter is the only place that declares it. */
#ifndef ITERA_MODEL_LAYOUT_H
#define ITERA_MODEL_LAYOUT_H

#include "core/arena.h"
#include "tensor/tensor.h"

enum itera_init {
    ITERA_INIT_ZERO,
    ITERA_INIT_ONE,
    ITERA_INIT_NORMAL,  /* standard deviation init_scale */
    ITERA_INIT_UNIFORM, /* in [-init_scale, init_scale) */
    ITERA_INIT_A_LOG,   /* ln(1), ln(2), ... along the last dim (S4D-real) */
    ITERA_INIT_DT_BIAS, /* inverse softplus of a step log-uniform in [0.001, 0.1] (Mamba) */
};

/* A tensor of a file: a part of a parameter. */
struct itera_param_part {
    const char *name;
    int64_t offset; /* elements from the start of the flat buffer */
    int32_t rank;
    int64_t dim[ITERA_MAX_RANK];
};

struct itera_param {
    const char *name; /* of the first file tensor */
    struct itera_shape shape;
    int64_t offset;          /* elements from the start of the flat buffer */
    enum itera_dtype dtype;  /* in memory: f32, or narrower for a matrix */
    enum itera_dtype stored; /* in files: dtype, or f16 or bf16 where memory holds f32 */
    int64_t place;           /* bytes from the start of the weights in memory */
    bool matrix;     /* of a product or an embedding: weight decay applies, and it may be narrow */
    int32_t experts; /* > 0: dim[0] experts, of which a token uses top_k */
    enum itera_init init;
    float init_scale;
    int n_parts;
    struct itera_param_part *parts;
};

enum itera_half {
    ITERA_HALF_NARROW, /* those with weights in f16, q8 or q4 */
    ITERA_HALF_ALL,
    ITERA_HALF_NONE
};

struct itera_layout {
    struct itera_arena *arena;
    struct itera_param *params;
    int n_params, cap_params;
    int64_t elements;       /* of the flat buffer, gaps for alignment included */
    int64_t decay_elements; /* matrices come first: [0, decay_elements) */
    int64_t parameters;     /* without gaps */
    int64_t bytes;          /* of the weights in memory, gaps included; elements * 4 in f32 */
    bool integer;           /* products with q8 or q4 weights may be integer ones (op matmul) */
    enum itera_half half;   /* which products may round to f16 (op matmul) */
};

/* The layer in a parameter's name ("backbone.layers.3.norm.weight"), or -1. */
int itera_param_layer(const char *name);

#endif
