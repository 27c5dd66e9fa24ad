/* How elementwise and row kernels share their work: by flat ranges where all operands are plain, by
 * rows where one is a column view. */
#ifndef ITERA_SIMD_SPAN_H
#define ITERA_SIMD_SPAN_H

#include <string.h>

#include "cpu_fallback/simd/kernel.h"

#define ITERA_INLINE static inline __attribute__((always_inline, unused))

/* The kernel of this level and the head of its function: FAST(silu) { ... call ... team ... } */
#define FAST(op)                                                                                   \
    static void op##_run(const struct itera_call *call, struct itera_team *team);                  \
    const struct itera_kernel ITERA_SIMD(op) = {.run = op##_run};                                  \
    static void op##_run(const struct itera_call *call, struct itera_team *team)

/* A thread's part of a matrix. */
struct itera_area {
    int64_t row, rows_end, col, cols;
};

ITERA_INLINE bool itera_plain(const struct itera_arg *arg)
{
    return arg->ld == arg->cols || arg->rows == 1;
}

/* As itera_team_range, without its divisions for a team of one. */
ITERA_INLINE void itera_share(const struct itera_team *team, int64_t n, int64_t grain,
                              int64_t *begin, int64_t *end)
{
    *begin = 0;
    *end = n;
    if (team->size > 1)
        itera_team_range(team, n, grain, begin, end);
}

/* `plain`: every operand is; then the matrix counts as one row. */
ITERA_INLINE struct itera_area itera_area(const struct itera_team *team,
                                          const struct itera_arg *shape, bool plain)
{
    struct itera_area a = {0, 1, 0, shape->cols};
    if (plain) {
        int64_t end;
        itera_share(team, shape->rows * shape->cols, 256, &a.col, &end);
        a.cols = end - a.col;
    } else {
        itera_share(team, shape->rows, 1, &a.row, &a.rows_end);
    }
    return a;
}

ITERA_INLINE float *itera_row(const struct itera_arg *arg, int64_t row)
{
    return (float *)arg->data + row * arg->ld;
}

/* Element i of an i32 operand, counted over rows and columns. */
ITERA_INLINE int32_t itera_id(const struct itera_arg *ids, int64_t i)
{
    const int32_t *id = ids->data;
    return itera_plain(ids) ? id[i] : id[i / ids->cols * ids->ld + i % ids->cols];
}

/* The body of a loop is a function of n, called with the constant VF_N and once for the tail: these
 * become plain accesses there, which are much faster than masked ones on some processors. */
ITERA_INLINE vf itera_get(const float *p, int64_t n)
{
    return n == VF_N ? vf_load(p) : vf_load_n(p, n);
}

ITERA_INLINE void itera_put(float *p, vf v, int64_t n)
{
    if (n == VF_N)
        vf_store(p, v);
    else
        vf_store_n(p, v, n);
}

/* y[i] = fn(x[i], s); y may be x. */
ITERA_INLINE void itera_map1(const struct itera_call *call, struct itera_team *team,
                             vf (*fn)(vf x, vf s), vf s)
{
    const struct itera_arg *xa = &call->in[0], *ya = &call->out[0];
    struct itera_area a = itera_area(team, ya, itera_plain(xa) && itera_plain(ya));
    for (int64_t r = a.row; r < a.rows_end; r++) {
        const float *x = itera_row(xa, r) + a.col;
        float *y = itera_row(ya, r) + a.col;
        int64_t i = 0;
        for (; i + 2 * VF_N <= a.cols; i += 2 * VF_N) {
            vf v0 = fn(vf_load(x + i), s), v1 = fn(vf_load(x + i + VF_N), s);
            vf_store(y + i, v0);
            vf_store(y + i + VF_N, v1);
        }
        for (; i + VF_N <= a.cols; i += VF_N)
            vf_store(y + i, fn(vf_load(x + i), s));
        if (i < a.cols)
            vf_store_n(y + i, fn(vf_load_n(x + i, a.cols - i), s), a.cols - i);
    }
}

/* y[i] = fn(p[i], q[i]); y may be p or q. */
ITERA_INLINE void itera_map2(const struct itera_call *call, struct itera_team *team,
                             vf (*fn)(vf p, vf q))
{
    const struct itera_arg *pa = &call->in[0], *qa = &call->in[1], *ya = &call->out[0];
    struct itera_area a =
        itera_area(team, ya, itera_plain(pa) && itera_plain(qa) && itera_plain(ya));
    for (int64_t r = a.row; r < a.rows_end; r++) {
        const float *p = itera_row(pa, r) + a.col, *q = itera_row(qa, r) + a.col;
        float *y = itera_row(ya, r) + a.col;
        int64_t i = 0;
        for (; i + 2 * VF_N <= a.cols; i += 2 * VF_N) {
            vf v0 = fn(vf_load(p + i), vf_load(q + i));
            vf v1 = fn(vf_load(p + i + VF_N), vf_load(q + i + VF_N));
            vf_store(y + i, v0);
            vf_store(y + i + VF_N, v1);
        }
        for (; i + VF_N <= a.cols; i += VF_N)
            vf_store(y + i, fn(vf_load(p + i), vf_load(q + i)));
        if (i < a.cols) {
            int64_t n = a.cols - i;
            vf_store_n(y + i, fn(vf_load_n(p + i, n), vf_load_n(q + i, n)), n);
        }
    }
}

/* Sums over rows that threads keep apart: each adds its rows into a row of `cols` floats of its own
 * (the output itself for a team of one, else in scratch), and itera_partials_finish adds those up
 * in the order of ranks. A kernel may keep several, numbered from 0. */
ITERA_INLINE int64_t itera_partials_stride(int64_t cols)
{
    return (cols + 15) / 16 * 16;
}

ITERA_INLINE size_t itera_partials_bytes(int64_t cols, int sums, int threads)
{
    if (threads == 1)
        return 0;
    return (size_t)itera_partials_stride(cols) * (size_t)sums * (size_t)threads * sizeof(float);
}

/* This thread's row of sum `which`, zeroed. */
ITERA_INLINE float *itera_partials(const struct itera_call *call, const struct itera_team *team,
                                   const struct itera_arg *out, int which)
{
    int64_t stride = itera_partials_stride(out->cols);
    float *row = (float *)out->data;
    if (team->size > 1)
        row = (float *)call->scratch + (which * team->size + team->rank) * stride;
    memset(row, 0, (size_t)out->cols * sizeof(float));
    return row;
}

/* Called after a barrier that follows the last addition. */
ITERA_INLINE void itera_partials_finish(const struct itera_call *call,
                                        const struct itera_team *team, const struct itera_arg *out,
                                        int which)
{
    if (team->size == 1)
        return;
    int64_t stride = itera_partials_stride(out->cols), begin, end;
    const float *first = (const float *)call->scratch + which * team->size * stride;
    float *y = (float *)out->data;
    itera_team_range(team, out->cols, 16, &begin, &end);
    for (int64_t c = begin; c < end; c += VF_N) {
        int64_t n = end - c < VF_N ? end - c : VF_N;
        vf sum = vf_load_n(first + c, n);
        for (int t = 1; t < team->size; t++)
            sum = vf_add(sum, vf_load_n(first + t * stride + c, n));
        vf_store_n(y + c, sum, n);
    }
}

#endif
