#version 450
#extension GL_GOOGLE_include_directive : require
#include "matmul_gemv.glsl"

// y_e = act(a_e . op(b_e)) for few rows in all (decoding), zeros in rows that are nobody's. A
// workgroup computes some columns of one row, whose expert it finds by the offsets. ROWS is 1.
ARGS(grouped_args)
OUT(4, y)
#include "grouped_matmul.glsl"

void main()
{
    begin_blocks(p.b_at, p.scales);
    uint across = (p.cols + C_LANES * COLS - 1) / (C_LANES * COLS);
    uint row = GROUP / across, col = GROUP % across * C_LANES * COLS;
    Segment s = find_segment(row, 1);
    Side few = Side(p.a_at, p.a_ld, 1, p.rows);
    Side many = Side(b_first(p.b_at) + s.expert * p.b_step * p.b_ld, p.trans_b != 0 ? p.b_ld : 1,
                     p.trans_b != 0 ? 1 : p.b_ld, p.cols);
    multiply_lines(few, many, row, col, 0, s.owned ? p.depth : 0);
    for (uint i = LANE; i < OUTPUTS && col + i < p.cols && row < s.end; i += GEMV_LANES)
        y.v[p.y_at + row * p.y_ld + col + i] = activate(output_sum(i), s.owned ? p.act : 0);
}
