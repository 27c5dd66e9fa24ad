#version 450
#extension GL_GOOGLE_include_directive : require
#include "embedding.glsl"

ARGS(embedding_args)
IN_UINT(1, table)
IN_INT(2, ids)
OUT(3, y)
#include "embedding_table.glsl"

// A workgroup copies 128 elements.
void main()
{
    uint row = THREAD / p.cols, col = THREAD % p.cols;
    if (row >= p.rows)
        return;
    uint from = table_row(ids.v[p.ids_at + row / p.ids_cols * p.ids_ld + row % p.ids_cols],
                          p.table_rows);
    y.v[p.y_at + row * p.y_ld + col] = table_element(from * p.table_ld + col);
}
