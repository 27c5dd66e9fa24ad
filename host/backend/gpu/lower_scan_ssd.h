/* What the lowerings of ssd_scan and of its gradient share. */
#ifndef ITERA_BACKEND_GPU_LOWER_SCAN_SSD_H
#define ITERA_BACKEND_GPU_LOWER_SCAN_SSD_H

#include "backend/gpu/lower_scan.h"

/* Sizes as the kernels name them (kernels_cl/scan_ssd.clh). */
struct itera_ssd {
    enum itera_scan_variant variant;
    int64_t batch, time, heads, width, states, groups, group_heads;
    int64_t boundary_steps, boundary_chunks; /* the op's chunks */
    int64_t parts, chunk_steps, chunks;      /* the kernels' */
    int64_t lanes, slices;                   /* sequential: of a row, states of a lane */
    int64_t row_tiles, column_tiles;         /* chunked: of the state of a head */
};

/* `bounded`: whether the op has boundaries. */
struct itera_ssd itera_ssd(struct itera_gpu_lowering *l, const struct itera_op *op, int32_t x,
                           int32_t B, bool bounded);
/* SSD_SIZES of the kernels. */
#define ITERA_SSD_SIZES(s)                                                                         \
    .time = (s)->time, .heads = (s)->heads, .width = (s)->width, .states = (s)->states,            \
    .group_heads = (s)->group_heads, .boundary_steps = (s)->boundary_steps, .parts = (s)->parts,   \
    .chunk_steps = (s)->chunk_steps, .chunks = (s)->chunks

/* C B^T of every chunk and group. */
struct itera_gpu_scratch itera_ssd_scores(struct itera_gpu_lowering *l, const struct itera_ssd *s,
                                          int32_t B, int32_t C);
/* The states before each chunk, as scratch (batch, chunks, heads, width, states); backward, with dy
 * and C for x and B, the gradients of the states after each. */
struct itera_gpu_scratch itera_ssd_starts(struct itera_gpu_lowering *l, const struct itera_ssd *s,
                                          const int32_t x_dt_a_b[4], int32_t state,
                                          int32_t boundaries, bool backward);

#endif
