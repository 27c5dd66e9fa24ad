// The kernel of grouped_matmul by tiles: for shaders that include one of the tiled products first.

// y_e = act(a_e . op(b_e)) for the rows of each expert e, zeros in rows that are nobody's. A
// workgroup computes a tile of y within the rows of one expert, which it finds by the offsets: the
// grid has as many tiles as there can be, and some of them have nothing to do.
ARGS(grouped_args)
OUT(4, y)
#include "grouped_matmul.glsl"

void main()
{
    begin_blocks(p.b_at, p.scales);
    uint across = (p.cols + TILE - 1) / TILE;
    Segment s = find_segment(GROUP / across, TILE);
    uint col = GROUP % across * TILE;
    Side left = Side(p.a_at, p.a_ld, 1, s.end);
    Side right = Side(b_first(p.b_at) + s.expert * p.b_step * p.b_ld, p.trans_b != 0 ? p.b_ld : 1,
                      p.trans_b != 0 ? 1 : p.b_ld, p.cols);
    multiply(left, right, s.begin, col, 0, s.owned ? p.depth : 0);
    store_tile(p.y_at, p.y_ld, s.begin, col, s.end, p.cols, s.owned ? p.act : 0);
}
