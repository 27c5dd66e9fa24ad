#version 450
#extension GL_GOOGLE_include_directive : require
#include "embedding.glsl"

ARGS(position_args)
IN(1, x)
IN_UINT(2, table)
IN_INT(3, start)
OUT(4, y)
#include "embedding_table.glsl"

// A workgroup takes 128 elements.
void main()
{
    uint row = THREAD / p.cols, col = THREAD % p.cols;
    if (row >= p.rows)
        return;
    uint first = p.started != 0 ? uint(max(start.v[p.start_at + row / p.steps], 0)) : 0;
    uint position = min(first + row % p.steps, p.positions - 1);
    y.v[p.y_at + row * p.y_ld + col] =
        x.v[p.x_at + row * p.x_ld + col] + table_element(position * p.table_ld + col);
}
