// The kernel of grouped_matmul of integers by tiles, for shaders that include matmul_integer.glsl
// first: y_e = act(a_e . b_eT), zeros in rows that are nobody's. A workgroup computes a tile of y
// within the rows of one expert. The grid has as many tiles as there can be, and some of them have
// nothing to do.
ARGS(grouped_blocks_args)
#define OFFSETS_SLOT 4
OUT(5, y)
#include "grouped_matmul.glsl"

void main()
{
    uint across = (p.cols + TILE - 1) / TILE;
    Segment s = find_segment(GROUP / across, TILE);
    uint col = GROUP % across * TILE;
    Integers from = Integers(p.a_at, p.b_at, p.sums_at, s.end, p.cols, p.depth,
                             s.expert * p.cols, p.scales);
    multiply(from, s.begin, col, 0, s.owned ? p.depth : 0);
    store_tile(p.y_at, p.y_ld, s.begin, col, s.end, p.cols, s.owned ? p.act : 0);
}
