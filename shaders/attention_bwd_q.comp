#version 450
#extension GL_GOOGLE_include_directive : require
#include "attention_bwd.glsl"

// dq. A workgroup takes a tile of the rows of a sequence and key head, and a window of columns.
void main()
{
    uint window = GROUP % p.windows, pair = GROUP / p.windows % p.pairs;
    uint tile = GROUP / p.windows / p.pairs;
    if (tile >= p.tiles)
        return;
    tile = p.tiles - 1 - tile; // those with the most keys first
    uint b = pair / p.kv_heads, g = pair % p.kv_heads;
    uint row0 = tile * ROWS, rows = min(p.time * p.share - row0, ROWS);
    uint q_at = p.q_at + b * p.time * p.q_ld + g * p.share * p.d;
    uint dy_at = p.dy_at + b * p.time * p.dy_ld + g * p.share * p.d;
    uint dq_at = p.dq_at + b * p.time * p.dq_ld + g * p.share * p.d;
    uint k_at = p.k_at + b * p.time * p.k_ld + g * p.d;
    uint v_at = p.v_at + b * p.time * p.v_ld + g * p.d;
    FIND_ROWS(q_rows, row0, p.q_ld)
    FIND_ROWS(dy_rows, row0, p.dy_ld)
    barrier();

    float sum[MAX_TILE_ROWS / SIDE_Y][MAX_WIDTH / SIDE_X];
    RowTerms terms[MAX_TILE_ROWS / SIDE_Y];
    [[unroll]] for (uint i = 0; i < ROWS / SIDE_Y; i++) {
        terms[i] = terms_of(row0 + min(Y + SIDE_Y * i, rows - 1), pair); // not stored beyond
        [[unroll]] for (uint j = 0; j < WIDTH / SIDE_X; j++)
            sum[i][j] = 0.0;
    }
    uint end = (row0 + rows - 1) / p.share + 1;
    for (uint key0 = 0; key0 < end; key0 += KEYS) {
        uint keys = min(end - key0, KEYS);
        TILE_SCORES(dy, dy_at, dy_rows, rows, v, v_at + key0 * p.v_ld, p.v_ld, keys)
        float dweight[MAX_TILE_ROWS / SIDE_Y][KEYS / SIDE_X] = score;
        TILE_SCORES(q, q_at, q_rows, rows, k, k_at + key0 * p.k_ld, p.k_ld, keys)
        [[unroll]] for (uint i = 0; i < ROWS / SIDE_Y; i++)
            [[unroll]] for (uint j = 0; j < KEYS / SIDE_X; j++) {
                uint key = X + SIDE_X * j;
                row_tile[(Y + SIDE_Y * i) * PITCH + key] =
                    weight_and_slope(score[i][j], dweight[i][j], terms[i], key0 + key).y;
            }
        ADD_VALUES(sum, k, k_at + key0 * p.k_ld, p.k_ld, keys, window * WIDTH)
    }
    [[unroll]] for (uint i = 0; i < ROWS / SIDE_Y; i++) {
        uint row = row0 + Y + SIDE_Y * i;
        if (row >= row0 + rows)
            break;
        [[unroll]] for (uint j = 0; j < WIDTH / SIDE_X; j++) {
            uint col = window * WIDTH + X + SIDE_X * j;
            if (col < p.d)
                dq.v[dq_at + row / p.share * p.dq_ld + row % p.share * p.d + col] = sum[i][j];
        }
    }
}
