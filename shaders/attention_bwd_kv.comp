#version 450
#extension GL_GOOGLE_include_directive : require
#include "attention_bwd.glsl"

shared float slope_tile[KEYS * PITCH];

// Adds the product of a transposed tile of weights (rows, keys) and of rows (rows, columns of the
// window) to keys y + 16 i and columns x + 8 j of `sum`.
#define ADD_ROWS(sum, weights, x, x_at, row_at, rows, first)                                       \
    [[unroll]] for (uint w = 0; w < WIDTH / CHUNK; w++) {                                          \
        LOAD_ROWS(key_tile, x, x_at, row_at, rows, (first) + w * CHUNK)                            \
        barrier();                                                                                 \
        for (uint row = 0; row < ROWS; row++) {                                                    \
            float a[KEYS / SIDE_Y], b[CHUNK / SIDE_X];                                             \
            [[unroll]] for (uint i = 0; i < KEYS / SIDE_Y; i++)                                    \
                a[i] = weights[row * PITCH + Y + SIDE_Y * i];                                      \
            [[unroll]] for (uint j = 0; j < CHUNK / SIDE_X; j++)                                   \
                b[j] = key_tile[row * PITCH + X + SIDE_X * j];                                     \
            [[unroll]] for (uint i = 0; i < KEYS / SIDE_Y; i++)                                    \
                [[unroll]] for (uint j = 0; j < CHUNK / SIDE_X; j++)                               \
                    sum[i][w * (CHUNK / SIDE_X) + j] += a[i] * b[j];                               \
        }                                                                                          \
        barrier();                                                                                 \
    }

// dk and dv. A workgroup takes a tile of the keys of a sequence and key head, and a window of
// columns, and goes through all rows that see them; ROWS is KEYS.
void main()
{
    uint window = GROUP % p.windows, pair = GROUP / p.windows % p.pairs;
    uint tile = GROUP / p.windows / p.pairs;
    if (tile >= p.tiles)
        return;
    uint b = pair / p.kv_heads, g = pair % p.kv_heads, all = p.time * p.share;
    uint key0 = tile * KEYS, keys = min(p.time - key0, KEYS), kv_row = b * p.time + key0;
    uint q_at = p.q_at + b * p.time * p.q_ld + g * p.share * p.d;
    uint dy_at = p.dy_at + b * p.time * p.dy_ld + g * p.share * p.d;
    uint k_at = p.k_at + kv_row * p.k_ld + g * p.d, v_at = p.v_at + kv_row * p.v_ld + g * p.d;
    float dk_sum[KEYS / SIDE_Y][MAX_WIDTH / SIDE_X], dv_sum[KEYS / SIDE_Y][MAX_WIDTH / SIDE_X];
    [[unroll]] for (uint i = 0; i < KEYS / SIDE_Y; i++)
        [[unroll]] for (uint j = 0; j < WIDTH / SIDE_X; j++)
            dk_sum[i][j] = dv_sum[i][j] = 0.0;
    for (uint row0 = key0 * p.share; row0 < all; row0 += ROWS) {
        uint rows = min(all - row0, ROWS);
        FIND_ROWS(q_rows, row0, p.q_ld)
        FIND_ROWS(dy_rows, row0, p.dy_ld)
        barrier();
        TILE_SCORES(dy, dy_at, dy_rows, rows, v, v_at, p.v_ld, keys)
        float dweight[MAX_TILE_ROWS / SIDE_Y][KEYS / SIDE_X] = score;
        TILE_SCORES(q, q_at, q_rows, rows, k, k_at, p.k_ld, keys)
        [[unroll]] for (uint i = 0; i < ROWS / SIDE_Y; i++) {
            uint row = Y + SIDE_Y * i;
            RowTerms terms = terms_of(row0 + min(row, rows - 1), pair);
            if (row >= rows)
                terms.limit = 0;
            [[unroll]] for (uint j = 0; j < KEYS / SIDE_X; j++) {
                uint key = X + SIDE_X * j;
                vec2 both = weight_and_slope(score[i][j], dweight[i][j], terms, key0 + key);
                row_tile[row * PITCH + key] = both.x;
                slope_tile[row * PITCH + key] = both.y;
            }
        }
        ADD_ROWS(dv_sum, row_tile, dy, dy_at, dy_rows, rows, window * WIDTH)
        ADD_ROWS(dk_sum, slope_tile, q, q_at, q_rows, rows, window * WIDTH)
    }
    uint dk_at = p.dk_at + kv_row * p.dk_ld + g * p.d, dv_at = p.dv_at + kv_row * p.dv_ld + g * p.d;
    [[unroll]] for (uint i = 0; i < KEYS / SIDE_Y; i++) {
        uint key = Y + SIDE_Y * i;
        if (key >= keys)
            break;
        [[unroll]] for (uint j = 0; j < WIDTH / SIDE_X; j++) {
            uint col = window * WIDTH + X + SIDE_X * j;
            if (col < p.d) {
                dk.v[dk_at + key * p.dk_ld + col] = dk_sum[i][j];
                dv.v[dv_at + key * p.dv_ld + col] = dv_sum[i][j];
            }
        }
    }
}
