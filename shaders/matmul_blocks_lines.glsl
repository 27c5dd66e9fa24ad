// The kernel of matmul with weights in blocks where a has few rows, for shaders that include
// matmul_blocks.glsl first:
// y = act(a.bT + bias) + residual. A workgroup computes some columns of y.
ARGS(blocks_args)
IN(4, bias)
IN(5, residual)
OUT(6, y)
#include "matmul_finish.glsl"

void main()
{
    begin_blocks(p.b_at, p.scales);
    uint down = (p.rows + ROWS - 1) / ROWS;
    uint row = GROUP % down * ROWS, col = GROUP / down * C_LANES * COLS;
    multiply_chunks(Side(p.a_at, p.a_ld, 1, p.rows), p.sums_at, 0, p.cols, p.depth, row, col);
    for (uint i = LANE; i < OUTPUTS; i += GEMV_LANES) {
        uint m = row + i / (C_LANES * COLS), n = col + i % (C_LANES * COLS);
        if (m < p.rows && n < p.cols)
            store(p.y_at + m * p.y_ld + n,
                  activate(output_sum(i) + bias_at(n), p.act) + residual_at(m, n));
    }
}
