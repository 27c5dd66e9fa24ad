#version 450
#extension GL_GOOGLE_include_directive : require
#include "embedding.glsl"

ARGS(merge_args)
IN_INT(1, block_rows)
IN_INT(2, block_tokens)
OUT_INT(3, rows)
OUT_INT(4, tokens)

// A workgroup finds the final places of 128 tokens.
void main()
{
    uint i = THREAD;
    if (i >= p.count)
        return;
    int row = block_rows.v[p.block_rows_at + i];
    uint own = i / SORT_BLOCK, place = i % SORT_BLOCK;
    for (uint b = 0; b * SORT_BLOCK < p.count; b++) {
        if (b == own)
            continue;
        // Of equal rows those of earlier blocks come first.
        int below = b < own ? row + 1 : row;
        uint low = b * SORT_BLOCK, high = min(low + SORT_BLOCK, p.count);
        while (low < high) {
            uint middle = (low + high) / 2;
            if (block_rows.v[p.block_rows_at + middle] < below)
                low = middle + 1;
            else
                high = middle;
        }
        place += low - b * SORT_BLOCK;
    }
    rows.v[p.rows_at + place] = row;
    tokens.v[p.tokens_at + place] = block_tokens.v[p.block_tokens_at + i];
}
