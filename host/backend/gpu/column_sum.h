/* Sums over rows, in a fixed order: gradients of what is shared by all rows. A kernel of the family
 * first leaves one row of sums for each block of rows in scratch; these are then summed. */
#ifndef ITERA_BACKEND_GPU_COLUMN_SUM_H
#define ITERA_BACKEND_GPU_COLUMN_SUM_H

#include "backend/gpu/lower.h"

/* How a (rows, cols) matrix is cut: a workgroup of 128 takes 1 << shift columns of block_rows
 * rows. BLOCK_WORDS of the kernels are rows, cols, across, shift, block_rows. */
struct itera_gpu_blocks {
    int64_t rows, cols;
    int64_t across; /* workgroups side by side */
    int64_t shift;
    int64_t block_rows;
    int64_t count; /* blocks above each other; at least 1, so that no rows sum to 0 */
};

struct itera_gpu_blocks itera_gpu_blocks(int64_t rows, int64_t cols);
void itera_gpu_block_groups(struct itera_gpu_lowering *l, struct itera_gpu_dispatch *d,
                            const struct itera_gpu_blocks *b);

/* y = the sum of the rows of partial (rows, cols), contiguous scratch. y has `cols` elements in
 * order: element i at its row i / cols of y, column i % cols. With `transposed`, y is a matrix whose
 * elements stand in partial column by column: element (r, c) at c * y's rows + r. */
void itera_gpu_sum_partial(struct itera_gpu_lowering *l, struct itera_gpu_scratch partial,
                           int64_t rows, int64_t cols, int32_t y, bool transposed);

#endif
