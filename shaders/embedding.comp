#version 450
#extension GL_GOOGLE_include_directive : require
#include "embedding.glsl"

ARGS { T(table) T(ids) T(y) uint rows, cols, ids_cols, table_rows; } p;
IN(1, table)
IN_INT(2, ids)
OUT(3, y)

// A workgroup copies 128 elements.
void main()
{
    uint row = THREAD / p.cols, col = THREAD % p.cols;
    if (row >= p.rows)
        return;
    uint from = table_row(ids.v[p.ids_at + row / p.ids_cols * p.ids_ld + row % p.ids_cols],
                          p.table_rows);
    y.v[p.y_at + row * p.y_ld + col] = table.v[p.table_at + from * p.table_ld + col];
}
