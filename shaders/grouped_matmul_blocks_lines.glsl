// The kernel of grouped_matmul with weights in blocks for few rows in all (decoding), for shaders
// that include matmul_blocks.glsl first: y_e = act(a_e . b_eT), zeros in rows that are nobody's. A
// workgroup computes some columns of one row, whose expert it finds by the offsets. ROWS is 1.
ARGS(grouped_blocks_args)
#define OFFSETS_SLOT 4
OUT(5, y)
#include "grouped_matmul.glsl"

void main()
{
    begin_blocks(p.b_at, p.scales);
    uint across = (p.cols + C_LANES * COLS - 1) / (C_LANES * COLS);
    uint row = GROUP / across, col = GROUP % across * C_LANES * COLS;
    Segment s = find_segment(row, 1);
    multiply_chunks(Side(p.a_at, p.a_ld, 1, p.rows), p.sums_at, s.expert * p.cols, p.cols,
                    s.owned ? p.depth : 0, row, col);
    for (uint i = LANE; i < OUTPUTS && col + i < p.cols && row < s.end; i += GEMV_LANES)
        y.v[p.y_at + row * p.y_ld + col + i] = activate(output_sum(i), s.owned ? p.act : 0);
}
