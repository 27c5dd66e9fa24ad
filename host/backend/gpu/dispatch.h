/* What the OpenCL and Vulkan backends share. An op is lowered to dispatches: kernel names with
 * operands, numbers and a grid. The same dispatches serve both: kernels_cl/ and shaders/ hold the
 * same kernels under the same names, with operands in the same order and the same numbers
 * (kernels_cl/args/). A backend finds kernels by name, and knows no op.
 *
 * A kernel's arguments, in the order in which its dispatch is built:
 *   operands   as buffers; each also adds two words: `at`, the element at which it starts in what
 *              is bound, and `ld`, its row stride in elements (0 for scratch)
 *   words      32-bit numbers, unsigned or float
 * In OpenCL C the pointers come first and all words follow in one struct by value; in GLSL binding
 * 0 is a uniform block of all words, and bindings 1, 2, ... are the operands. docs/kernels.md. */
#ifndef ITERA_BACKEND_GPU_DISPATCH_H
#define ITERA_BACKEND_GPU_DISPATCH_H

#include "args/words.clh"
#include "backend/gpu/traits.h"
#include "tensor/blocks.h"

#define ITERA_GPU_MAX_WORDS     96
#define ITERA_GPU_MAX_CONSTANTS 12
#define ITERA_GPU_ALIGN         256 /* bytes: where activations and scratch begin */

enum { ITERA_GPU_READ = 1, ITERA_GPU_WRITE = 2 };

struct itera_gpu_binding {
    int32_t tensor;  /* id in the program; ITERA_NONE: absent or scratch */
    int32_t scratch; /* bytes from the beginning of the op's scratch / ITERA_GPU_ALIGN, or -1 */
    uint8_t access;  /* ITERA_GPU_READ | ITERA_GPU_WRITE */
    uint8_t element; /* bytes of one element */
    uint8_t word;    /* index of its word `at` */
    struct itera_buffer *buffer; /* resolved by itera_gpu_plan_create; never NULL then */
    uint64_t offset, bytes;      /* in buffer: where element 0 is, and how far the kernel reaches */
    int64_t ld, first_col, cols; /* for hazards between column views of one tensor */
    int32_t base;                /* the base tensor, or -1 */
};

/* A value fixed when the kernel is compiled: specialisation constant `id` in GLSL (3 and up: 0, 1
 * and 2 are the local size), -D name=value in OpenCL C. */
struct itera_gpu_constant {
    const char *name;
    uint32_t id, value;
};

struct itera_gpu_dispatch {
    const char *kernel; /* a literal */
    int32_t op;         /* index in the program */
    uint32_t groups[3], local[3];
    struct itera_gpu_constant constant[ITERA_GPU_MAX_CONSTANTS];
    struct itera_gpu_binding binding[ITERA_GPU_MAX_BINDINGS];
    uint32_t word[ITERA_GPU_MAX_WORDS]; /* `at` words are the backend's to fill in */
    uint8_t n_constants, n_bindings, n_words;
    bool overflow; /* more was added than there is room for: the op is refused */
    bool barrier;  /* what ran before must have finished: there is a hazard */
};

/* The lowering of one op. */
struct itera_gpu_lowering {
    const struct itera_gpu_device *device;
    const struct itera_gpu_traits *traits;
    const struct itera_program *program;
    int32_t op_index;
    struct itera_gpu_dispatch *dispatches;
    int32_t n, cap;
    uint64_t scratch_bytes;
    enum itera_status status; /* memory or a refusal; lowering functions need not look at it */
    struct itera_reason why;  /* of a refusal */
    /* Of itera_gpu_choice (choice.h): */
    int forced;            /* -1: none */
    int n_choices, choice; /* of the op; n_choices is 0 when there was none to make */
    char choice_key[96];
    const char *choice_name;
    bool half; /* the op's operands are rounded to f16 (attr.half) */
};

/* Begins a dispatch, with a workgroup of (128, 1, 1). It is dropped when its grid is empty. The
 * pointer is good until the next itera_gpu_begin. */
struct itera_gpu_dispatch *itera_gpu_begin(struct itera_gpu_lowering *l, const char *kernel);

/* Adds an operand. An absent tensor (ITERA_NONE) binds some valid memory: the kernel must be told
 * by a word or constant not to touch it. */
void itera_gpu_in(struct itera_gpu_lowering *l, struct itera_gpu_dispatch *d, int32_t tensor);
void itera_gpu_out(struct itera_gpu_lowering *l, struct itera_gpu_dispatch *d, int32_t tensor);
void itera_gpu_inout(struct itera_gpu_lowering *l, struct itera_gpu_dispatch *d, int32_t tensor);

/* Memory between the dispatches of one op: 4-byte elements, content undefined at first. */
struct itera_gpu_scratch {
    int32_t place; /* in units of ITERA_GPU_ALIGN bytes */
    uint64_t bytes;
};
struct itera_gpu_scratch itera_gpu_scratch(struct itera_gpu_lowering *l, int64_t elements);
void itera_gpu_use(struct itera_gpu_dispatch *d, struct itera_gpu_scratch scratch, int access);

/* Adds the numbers of a kernel, after its operands: all of a struct of kernels_cl/args/, by name.
 *     ITERA_GPU_ARGS(d, unary_args, .rows = rows, .cols = cols, .factor = 2);
 * What is left out, or given twice, is an error of the compiler. Sizes fit into words: an op with
 * larger ones is refused before it is lowered. */
#define ITERA_GPU_ARGS(d, type, ...)                                                               \
    do {                                                                                           \
        _Static_assert(sizeof(struct type) == ITERA_GPU_COUNT(__VA_ARGS__) * sizeof(uint32_t),     \
                       "every word of " #type " must be given");                                   \
        itera_gpu_words(d, &(const struct type){__VA_ARGS__}, sizeof(struct type));                \
    } while (0)
/* The number of its arguments, 20 at most. */
#define ITERA_GPU_COUNT(...)                                                                       \
    ITERA_GPU_COUNT_(__VA_ARGS__, 20, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, \
                     2, 1, 0)
#define ITERA_GPU_COUNT_(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t, count, ...)   \
    count
void itera_gpu_words(struct itera_gpu_dispatch *d, const void *words, size_t bytes);
/* Sets a constant of compilation by its name: NAME_ID stands in kernels_cl/args/. */
#define ITERA_GPU_CONSTANT(d, name, value) itera_gpu_constant(d, name##_ID, #name, value)
void itera_gpu_constant(struct itera_gpu_dispatch *d, uint32_t id, const char *name, int64_t value);
void itera_gpu_local(struct itera_gpu_dispatch *d, uint32_t x, uint32_t y, uint32_t z);
/* The grid in workgroups. x may be anything up to 2^31: beyond 65535 it goes on in y, when y is 1;
 * kernels that count on it number their groups with GROUP. y and z at most 65535. */
void itera_gpu_groups(struct itera_gpu_lowering *l, struct itera_gpu_dispatch *d, int64_t x,
                      int64_t y, int64_t z);

/* Refuses the op where an operand has more elements than kernels can number; others refuse for it. */
void itera_gpu_check_elements(struct itera_gpu_lowering *l, int64_t elements);

/* For messages and keys. */
static inline const char *itera_gpu_op_name(const struct itera_gpu_lowering *l)
{
    return itera_op_info(l->program->ops[l->op_index].kind)->name;
}

/* Operands as lowering wants to see them; id must be present. */
static inline const struct itera_tensor *itera_gpu_tensor(const struct itera_gpu_lowering *l,
                                                          int32_t id)
{
    return &l->program->tensors[id];
}
static inline int64_t itera_gpu_rows(const struct itera_gpu_lowering *l, int32_t id)
{
    return itera_shape_rows(&l->program->tensors[id].shape);
}
static inline int64_t itera_gpu_cols(const struct itera_gpu_lowering *l, int32_t id)
{
    return itera_shape_cols(&l->program->tensors[id].shape);
}
static inline int64_t itera_gpu_dim(const struct itera_gpu_lowering *l, int32_t id, int i)
{
    return l->program->tensors[id].shape.dim[i];
}
/* Where the scales of a tensor in blocks begin, in halves from its first word; 0 for others. */
static inline int64_t itera_gpu_scales(const struct itera_gpu_lowering *l, int32_t id)
{
    const struct itera_tensor *t = itera_gpu_tensor(l, id);
    if (!itera_dtype_is_blocks(t->dtype))
        return 0;
    return itera_shape_elements(&t->shape) / ITERA_BLOCK * itera_block_bytes(t->dtype) / 2;
}
static inline int64_t itera_gpu_div_up(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

#endif
