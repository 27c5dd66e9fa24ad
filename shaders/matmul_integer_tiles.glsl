// The kernel of matmul of integers by tiles, for shaders that include matmul_integer.glsl first:
// y = act(a.bT + bias) + residual. A workgroup computes a tile of y over one of `slices` equal
// parts of k, slice_depth long; with more than one, y is scratch for matmul_reduce, laid out (slices,
// rows, cols).
ARGS(blocks_args)
IN(4, bias)
IN(5, residual)
OUT(6, y)
#include "matmul_finish.glsl"

void main()
{
    uint down = (p.rows + TILE - 1) / TILE, across = (p.cols + TILE - 1) / TILE;
    uint slice = GROUP / (down * across), tile = GROUP % (down * across);
    bool idle = slice >= p.slices; // the grid may be larger than asked for
    uint row = tile % down * TILE, col = tile / down * TILE, begin = slice * p.slice_depth;
    Integers s =
        Integers(p.a_at, p.b_at, p.sums_at, p.rows, p.cols, p.depth, 0, p.scales);
    multiply(s, row, col, begin, idle ? begin : min(begin + p.slice_depth, p.depth));
    store_tile(p.y_at + slice * p.rows * p.cols, p.slices > 1 ? p.cols : p.y_ld, row, col,
               idle ? 0 : p.rows, p.cols, p.act);
}
