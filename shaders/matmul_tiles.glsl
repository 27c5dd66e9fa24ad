// The kernel of matmul by tiles: for shaders that include one of the tiled products first.

// y = act(op(a).op(b) + bias) + residual. A workgroup computes a tile of y over one of `slices`
// equal parts of k, slice_depth long; with more than one, y is scratch for matmul_reduce, laid out
// (slices, rows, cols).
ARGS(matmul_args)
IN(3, bias)
IN(4, residual)
OUT(5, y)
#include "matmul_finish.glsl"

// Tiles go by bands of this many rows of tiles, so that those at work together share operands.
const uint BAND = 8;

void main()
{
    begin_blocks(p.b_at, p.scales);
    uint down = (p.rows + TILE - 1) / TILE, across = (p.cols + TILE - 1) / TILE;
    uint slice = GROUP / (down * across), tile = GROUP % (down * across);
    bool idle = slice >= p.slices; // the grid may be larger than asked for
    uint band = tile / (BAND * across), in_band = tile % (BAND * across);
    uint height = min(BAND, down - band * BAND);
    uint row = (band * BAND + in_band % height) * TILE, col = in_band / height * TILE;

    Side left = Side(p.a_at, p.trans_a != 0 ? 1 : p.a_ld, p.trans_a != 0 ? p.a_ld : 1, p.rows);
    Side right =
        Side(b_first(p.b_at), p.trans_b != 0 ? p.b_ld : 1, p.trans_b != 0 ? 1 : p.b_ld, p.cols);
    uint begin = slice * p.slice_depth;
    multiply(left, right, row, col, begin, idle ? begin : min(begin + p.slice_depth, p.depth));
    store_tile(p.y_at + slice * p.rows * p.cols, p.slices > 1 ? p.cols : p.y_ld, row, col,
               idle ? 0 : p.rows, p.cols, p.act);
}
