/* The CPU's kernels: one per op and ISA level, called by every thread of a team at once. */
#ifndef ITERA_BACKEND_CPU_KERNEL_H
#define ITERA_BACKEND_CPU_KERNEL_H

#include "core/pool.h"
#include "ops/op.h"

/* A resolved operand. data is NULL for an absent optional one. */
struct itera_arg {
    void *data;
    int64_t rows, cols, ld; /* as a matrix; see tensor/tensor.h */
    int64_t dim[ITERA_MAX_RANK];
    int32_t rank;
    enum itera_dtype dtype;
};

struct itera_call {
    const struct itera_attr *attr;
    struct itera_arg in[ITERA_MAX_IN];
    struct itera_arg out[ITERA_MAX_OUT];
    void *scratch; /* 64-byte aligned, as many bytes as the kernel's scratch function asked for;
                      shared by the team, content undefined at entry */
};

/* Called by all threads of the team with the same call (SPMD): each takes its share by team->rank,
 * and may meet the others at itera_team_barrier. When an op is too small to share, it is called
 * with a team of one. Must not write outside the operands: padding between rows (ld > cols) is
 * somebody else's. Shapes are validated; values (ids, offsets) are checked by the kernel. */
typedef void itera_kernel_fn(const struct itera_call *call, struct itera_team *team);

struct itera_kernel {
    itera_kernel_fn *run;
    size_t (*scratch)(const struct itera_call *call, int threads); /* NULL: none */
};

/* The scalar reference of every op: itera_<op>_ref, in cpu_fallback/<family>.c. Accumulates in
 * double. May use the team; it stays simple. */
#define ITERA_OP(name, inputs, outputs, simd, tolerance)                                           \
    extern const struct itera_kernel itera_##name##_ref;
#include "ops/op_list.h"
#undef ITERA_OP

static inline float *itera_f32(const struct itera_arg *arg)
{
    return (float *)arg->data;
}
static inline int32_t *itera_i32(const struct itera_arg *arg)
{
    return (int32_t *)arg->data;
}

#endif
