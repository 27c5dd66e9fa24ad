/* Sums over rows, in a fixed order: gradients of what is shared by all rows. A kernel of the family
 * first leaves one row of sums for each block of rows in scratch; these are then summed. */
#ifndef ITERA_BACKEND_GPU_COLUMN_SUM_H
#define ITERA_BACKEND_GPU_COLUMN_SUM_H

#include "backend/gpu/lower.h"

/* y = the sum of the rows of partial (rows, cols), contiguous scratch. y has `cols` elements in
 * order: element i at its row i / cols of y, column i % cols. With `transposed`, y is a matrix whose
 * elements stand in partial column by column: element (r, c) at c * y's rows + r. */
void itera_gpu_sum_partial(struct itera_gpu_lowering *l, struct itera_gpu_scratch partial,
                           int64_t rows, int64_t cols, int32_t y, bool transposed);

#endif
