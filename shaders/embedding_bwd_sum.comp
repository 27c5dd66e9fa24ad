#version 450
#extension GL_GOOGLE_include_directive : require
#include "embedding.glsl"

ARGS(sum_args)
IN(1, dy)
IN_INT(2, rows)
IN_INT(3, tokens)
INOUT(4, dtable)
OUT(5, partial)

// A workgroup sums 128 columns along a chunk of the sorted tokens. Partial sums: row 2 i is of what
// chunk i takes over from the one before, row 2 i + 1 of what begins in it and goes on after it.
void main()
{
    uint chunk = GROUP / p.tiles, col = GROUP % p.tiles * LANES + LANE;
    uint begin = chunk * p.chunk, end = min(begin + p.chunk, p.count);
    if (col >= p.cols || begin >= end)
        return;
    int row = rows.v[p.rows_at + begin];
    bool open = begin > 0 && rows.v[p.rows_at + begin - 1] == row;
    float sum = 0.0;
    for (uint i = begin; i < end; i++) {
        sum += dy.v[p.dy_at + uint(tokens.v[p.tokens_at + i]) * p.dy_ld + col];
        int next = i + 1 < p.count ? rows.v[p.rows_at + i + 1] : row + 1;
        if (next == row && i + 1 < end)
            continue;
        if (open || next == row) {
            partial.v[p.partial_at + (2 * chunk + (open ? 0 : 1)) * p.cols + col] = sum;
        } else {
            uint to = p.dtable_at + uint(row) * p.dtable_ld + col;
            dtable.v[to] = p.accumulate != 0 ? dtable.v[to] + sum : sum;
        }
        open = false;
        row = next;
        sum = 0.0;
    }
}
