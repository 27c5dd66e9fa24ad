#version 450
#extension GL_GOOGLE_include_directive : require
#include "matmul_gemv.glsl"

// y = act(op(a).op(b) + bias) + residual where a has few rows; when `swapped`, yT = (op(b).op(a))T:
// the columns of y are few. A workgroup computes some columns of y over one of `slices` equal parts
// of k, slice_depth long; with more than one, y is scratch for matmul_reduce.
ARGS(gemv_args)
IN(3, bias)
IN(4, residual)
OUT(5, y)
#include "matmul_finish.glsl"

void main()
{
    begin_blocks(p.b_at, p.scales);
    uint few_count = p.swapped != 0 ? p.cols : p.rows;
    uint many_count = p.swapped != 0 ? p.rows : p.cols;
    uint across = (many_count + C_LANES * COLS - 1) / (C_LANES * COLS);
    uint down = (few_count + ROWS - 1) / ROWS;
    uint slice = GROUP / (down * across), place = GROUP % (down * across);
    bool idle = slice >= p.slices; // the grid may be larger than asked for
    uint row = place % down * ROWS, col = place / down * C_LANES * COLS;

    Side few = Side(p.a_at, p.trans_a != 0 ? 1 : p.a_ld, p.trans_a != 0 ? p.a_ld : 1, few_count);
    Side many =
        Side(b_first(p.b_at), p.trans_b != 0 ? p.b_ld : 1, p.trans_b != 0 ? 1 : p.b_ld, many_count);
    uint begin = slice * p.slice_depth;
    multiply_lines(few, many, row, col, begin, idle ? begin : min(begin + p.slice_depth, p.depth));
    uint ld = p.slices > 1 ? p.cols : p.y_ld;
    for (uint i = LANE; i < OUTPUTS; i += GEMV_LANES) {
        uint f = row + i / (C_LANES * COLS), c = col + i % (C_LANES * COLS);
        if (idle || f >= few_count || c >= many_count)
            continue;
        uint m = p.swapped != 0 ? c : f, n = p.swapped != 0 ? f : c;
        float sum = activate(output_sum(i) + bias_at(n), p.act) + residual_at(m, n);
        store(p.y_at + slice * p.rows * p.cols + m * ld + n, sum);
    }
}
