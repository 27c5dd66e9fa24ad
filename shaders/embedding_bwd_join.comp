#version 450
#extension GL_GOOGLE_include_directive : require
#include "embedding.glsl"

ARGS(join_args)
IN_INT(1, rows)
IN(2, partial)
INOUT(3, dtable)

// A workgroup joins 128 columns of the row that begins in a chunk and goes on after it.
void main()
{
    uint chunk = GROUP / p.tiles, col = GROUP % p.tiles * LANES + LANE;
    uint begin = chunk * p.chunk, end = begin + p.chunk;
    if (col >= p.cols || end >= p.count)
        return;
    int row = rows.v[p.rows_at + end];
    if (rows.v[p.rows_at + end - 1] != row ||
        (begin > 0 && rows.v[p.rows_at + begin - 1] == row))
        return;
    float sum = partial.v[p.partial_at + (2 * chunk + 1) * p.cols + col];
    while (end < p.count && rows.v[p.rows_at + end] == row) {
        chunk++;
        end += p.chunk;
        sum += partial.v[p.partial_at + 2 * chunk * p.cols + col];
    }
    uint to = p.dtable_at + uint(row) * p.dtable_ld + col;
    dtable.v[to] = p.accumulate != 0 ? dtable.v[to] + sum : sum;
}
