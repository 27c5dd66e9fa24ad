#version 450
#extension GL_GOOGLE_include_directive : require
#include "embedding.glsl"

ARGS(sort_args)
IN_INT(1, ids)
OUT_INT(2, rows)
OUT_INT(3, tokens)

shared uint block[SORT_BLOCK];

// A workgroup finds the places of 128 tokens in their block.
void main()
{
    uint first = GROUP * LANES / SORT_BLOCK * SORT_BLOCK;
    uint n = first < p.count ? min(p.count - first, SORT_BLOCK) : 0;
    for (uint i = LANE; i < n; i += LANES) {
        uint token = first + i;
        block[i] = table_row(ids.v[p.ids_at + token / p.ids_cols * p.ids_ld + token % p.ids_cols],
                             p.table_rows);
    }
    barrier();
    uint i = THREAD - first;
    if (i >= n)
        return;
    uint row = block[i], place = 0;
    for (uint j = 0; j < n; j++)
        place += block[j] < row || (block[j] == row && j < i) ? 1 : 0;
    rows.v[p.rows_at + first + place] = int(row);
    tokens.v[p.tokens_at + first + place] = int(first + i);
}
