// What attention and its gradient share.
//
// The queries of all heads that share a key head are taken together: row r of them is time step
// r / share of head r % share. Work is cut into tiles of ROWS such rows and KEYS keys; a workgroup
// of 16 x 8 invocations holds the scores of a tile in registers, those of rows y + 16 i and keys
// x + 8 j, and everything else goes through tiles of CHUNK columns in shared memory. Results that
// are wider than WIDTH columns are cut into windows, each of which computes the scores anew, so
// that heads may be of any width.
//
// Macros stand for functions on operands; `at` is the element at which the tile's first row or key
// begins.
#ifndef ITERA_ATTENTION_GLSL
#define ITERA_ATTENTION_GLSL
#include "itera.glsl"
#include "args/attention.clh"

layout(constant_id = ROWS_ID) const uint ROWS = MAX_TILE_ROWS;
layout(constant_id = WIDTH_ID) const uint WIDTH = MAX_WIDTH;
#define PITCH (CHUNK + 1) // of a tile: rows start in different banks

#define SIDE_Y 16
#define SIDE_X 8
#define Y      (LANE / SIDE_X)
#define X      (LANE % SIDE_X)

#define NOTHING uintBitsToFloat(0xff800000u) // -infinity

shared float row_tile[MAX_TILE_ROWS * PITCH], key_tile[KEYS * PITCH];
float score[MAX_TILE_ROWS / SIDE_Y][KEYS / SIDE_X];

// Where the rows of a tile begin in a tensor of queries, from the first head of the group on.
#define FIND_ROWS(row_at, first, ld)                                                               \
    for (uint i = LANE; i < ROWS; i += LANES)                                                      \
        row_at[i] = ((first) + i) / p.share * (ld) + ((first) + i) % p.share * p.d;

// A chunk of the columns of `n` rows, zeros beyond.
#define LOAD_ROWS(tile, x, at, row_at, n, col)                                                     \
    for (uint i = LANE; i < ROWS * CHUNK; i += LANES) {                                            \
        uint r = i / CHUNK, c = i % CHUNK;                                                         \
        tile[r * PITCH + c] =                                                                      \
            r < (n) && (col) + c < p.d ? x.v[(at) + row_at[r] + (col) + c] : 0.0;                  \
    }

// The same of `n` keys (or values).
#define LOAD_KEYS(tile, x, at, ld, n, col)                                                         \
    for (uint i = LANE; i < KEYS * CHUNK; i += LANES) {                                            \
        uint r = i / CHUNK, c = i % CHUNK;                                                         \
        tile[r * PITCH + c] = r < (n) && (col) + c < p.d ? x.v[(at) + r * (ld) + (col) + c] : 0.0; \
    }

// Adds what a chunk of columns gives to the products of rows and keys.
void add_scores()
{
    for (uint c = 0; c < CHUNK; c++) {
        float a[MAX_TILE_ROWS / SIDE_Y], b[KEYS / SIDE_X];
        [[unroll]] for (uint i = 0; i < ROWS / SIDE_Y; i++)
            a[i] = row_tile[(Y + SIDE_Y * i) * PITCH + c];
        [[unroll]] for (uint j = 0; j < KEYS / SIDE_X; j++)
            b[j] = key_tile[(X + SIDE_X * j) * PITCH + c];
        [[unroll]] for (uint i = 0; i < ROWS / SIDE_Y; i++)
            [[unroll]] for (uint j = 0; j < KEYS / SIDE_X; j++)
                score[i][j] += a[i] * b[j];
    }
}

// Products of all rows of a tile with keys (or values) into `score`: the sums over p.d columns.
#define TILE_SCORES(x, x_at, row_at, rows, k, k_at, ld, keys)                                      \
    [[unroll]] for (uint i = 0; i < ROWS / SIDE_Y; i++)                                            \
        [[unroll]] for (uint j = 0; j < KEYS / SIDE_X; j++)                                        \
            score[i][j] = 0.0;                                                                     \
    for (uint col = 0; col < p.d; col += CHUNK) {                                                  \
        LOAD_ROWS(row_tile, x, x_at, row_at, rows, col)                                            \
        LOAD_KEYS(key_tile, k, k_at, ld, keys, col)                                                \
        barrier();                                                                                 \
        add_scores();                                                                              \
        barrier();                                                                                 \
    }

// Adds the product of row_tile as weights (rows, keys) and of values (keys, columns of the window)
// to rows y + 16 i and columns x + 8 j of `sum`.
#define ADD_VALUES(sum, v, v_at, ld, keys, first)                                                  \
    [[unroll]] for (uint w = 0; w < WIDTH / CHUNK; w++) {                                          \
        LOAD_KEYS(key_tile, v, v_at, ld, keys, (first) + w * CHUNK)                                \
        barrier();                                                                                 \
        for (uint key = 0; key < KEYS; key++) {                                                    \
            float a[MAX_TILE_ROWS / SIDE_Y], b[CHUNK / SIDE_X];                                         \
            [[unroll]] for (uint i = 0; i < ROWS / SIDE_Y; i++)                                    \
                a[i] = row_tile[(Y + SIDE_Y * i) * PITCH + key];                                   \
            [[unroll]] for (uint j = 0; j < CHUNK / SIDE_X; j++)                                   \
                b[j] = key_tile[key * PITCH + X + SIDE_X * j];                                     \
            [[unroll]] for (uint i = 0; i < ROWS / SIDE_Y; i++)                                    \
                [[unroll]] for (uint j = 0; j < CHUNK / SIDE_X; j++)                               \
                    sum[i][w * (CHUNK / SIDE_X) + j] += a[i] * b[j];                               \
        }                                                                                          \
        barrier();                                                                                 \
    }

#endif
