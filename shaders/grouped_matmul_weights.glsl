// The kernel of grouped_matmul's trans_a form: for shaders that include one of the tiled products
// first.

// The gradient of the experts' weights: y_e = a_eT . b_e, summed over the rows of expert e. A
// workgroup computes a tile of one y_e over one of `slices` equal parts of its rows; with more than
// one slice, y is scratch for matmul_reduce, laid out (slices, experts * out_rows, cols).
ARGS(weights_args)
OUT(4, y)
#include "grouped_matmul.glsl"

void main()
{
    uint down = (p.out_rows + TILE - 1) / TILE, across = (p.cols + TILE - 1) / TILE;
    uint tile = GROUP % (down * across), rest = GROUP / (down * across);
    uint expert = rest % p.experts, slice = rest / p.experts;
    uint row = tile % down * TILE, col = tile / down * TILE;
    Segment s = find_segment(expert + 1, 0);
    uint share = (s.end - s.begin + p.slices - 1) / p.slices;
    uint begin = min(s.begin + slice * share, s.end), end = min(begin + share, s.end);

    Side left = Side(p.a_at, 1, p.a_ld, p.out_rows), right = Side(p.b_at, 1, p.b_ld, p.cols);
    multiply(left, right, row, col, begin, end);
    uint ld = p.slices > 1 ? p.cols : p.y_ld;
    store_tile(p.y_at + (slice * p.experts + expert) * p.out_rows * ld, ld, row, col,
               slice < p.slices ? p.out_rows : 0, p.cols, 0);
}
