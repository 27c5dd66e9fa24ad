/* The gradient of attention: see host/ops/attention.c for its contract. Scores are computed anew,
 * once for dq and once for dk and dv, so that every element has one writer. */
#include "args/attention.clh"
#include "attention.clh"
#include "reduce.clh"

#define LOCAL ITERA_GPU_LOCAL

/* delta = dy . y of a head and time step. A workgroup takes 4. */
kernel void attention_bwd_delta(global const float *dy, global const float *y, global float *delta,
                                const struct attention_bwd_delta_args p)
{
    local float buffer[LOCAL];
    uint head = THREAD / TEAM, row = head / p.heads, h = head % p.heads;
    float sum = 0.0f;
    if (row < p.rows)
        for (uint c = LANE % TEAM; c < p.d; c += TEAM)
            sum +=
                dy[p.dy_at + row * p.dy_ld + h * p.d + c] * y[p.y_at + row * p.y_ld + h * p.d + c];
    sum = row_sum(sum, buffer, TEAM);
    if (row < p.rows && LANE % TEAM == 0)
        delta[p.delta_at + (row / p.time * p.heads + h) * p.time + row % p.time] = sum;
}

/* What the gradient of a score needs of its row. */
struct row_terms {
    float lse, delta;
    uint limit; /* keys that the row sees */
};

static inline struct row_terms terms_of(uint row, uint pair, uint share, uint time,
                                        global const float *lse, uint lse_ld,
                                        global const float *delta)
{
    uint t = row / share, head = pair * share + row % share;
    struct row_terms terms = {lse[head * lse_ld + t], delta[head * time + t], t + 1};
    return terms;
}

/* The weight of key `key` in the row, and the gradient of its score. One key alone weighs 1
 * whatever that is. */
static inline float2 weight_and_slope(float score, float dweight, float scale,
                                      struct row_terms terms, uint key)
{
    if (key >= terms.limit)
        return (float2)(0.0f, 0.0f);
    float weight = exp(score * scale - terms.lse);
    return (float2)(weight, terms.limit > 1 ? weight * (dweight - terms.delta) * scale : 0.0f);
}

#if ROWS > KEYS

/* dq. A workgroup takes a tile of the rows of a sequence and key head, and a window of columns. */
kernel void attention_bwd_q(global const float *dy, global const float *q, global const float *k,
                            global const float *v, global const float *lse,
                            global const float *delta, global float *dq, global float *dk,
                            global float *dv, const struct attention_bwd_args p)
{
    local float row_tile[ROWS * PITCH], key_tile[KEYS * PITCH];
    local uint q_at[ROWS], dy_at[ROWS];
    uint window = GROUP % p.windows, pair = GROUP / p.windows % p.pairs;
    uint tile = GROUP / p.windows / p.pairs;
    bool idle = tile >= p.tiles;          /* the grid may be larger than asked for */
    tile = idle ? 0 : p.tiles - 1 - tile; /* those with the most keys first */
    uint b = pair / p.kv_heads, g = pair % p.kv_heads;
    uint row0 = tile * ROWS, rows = min(p.time * p.share - row0, (uint)ROWS);
    q += p.q_at + b * p.time * p.q_ld + g * p.share * p.d;
    dy += p.dy_at + b * p.time * p.dy_ld + g * p.share * p.d;
    dq += p.dq_at + b * p.time * p.dq_ld + g * p.share * p.d;
    k += p.k_at + b * p.time * p.k_ld + g * p.d;
    v += p.v_at + b * p.time * p.v_ld + g * p.d;
    find_rows(q_at, row0, p.q_ld, p.share, p.d);
    find_rows(dy_at, row0, p.dy_ld, p.share, p.d);
    barrier(CLK_LOCAL_MEM_FENCE);

    float sum[ROWS / SIDE_Y][WIDTH / SIDE_X];
    struct row_terms terms[ROWS / SIDE_Y];
#pragma unroll
    for (uint i = 0; i < ROWS / SIDE_Y; i++) {
        uint row = min(Y + SIDE_Y * i, rows - 1); /* those beyond are not stored */
        terms[i] = terms_of(row0 + row, pair, p.share, p.time, lse + p.lse_at, p.lse_ld,
                            delta + p.delta_at);
#pragma unroll
        for (uint j = 0; j < WIDTH / SIDE_X; j++)
            sum[i][j] = 0.0f;
    }
    uint end = idle ? 0 : (row0 + rows - 1) / p.share + 1;
    for (uint key0 = 0; key0 < end; key0 += KEYS) {
        float score[ROWS / SIDE_Y][KEYS / SIDE_X], dweight[ROWS / SIDE_Y][KEYS / SIDE_X];
        uint keys = min(end - key0, (uint)KEYS);
        tile_scores(score, row_tile, key_tile, q, q_at, rows, k + key0 * p.k_ld, p.k_ld, keys, p.d);
        tile_scores(dweight, row_tile, key_tile, dy, dy_at, rows, v + key0 * p.v_ld, p.v_ld, keys,
                    p.d);
        /* No hint to unroll: Intel's compiler for CPUs makes something else of this loop then. */
        for (uint i = 0; i < ROWS / SIDE_Y; i++)
            for (uint j = 0; j < KEYS / SIDE_X; j++) {
                uint key = X + SIDE_X * j;
                row_tile[(Y + SIDE_Y * i) * PITCH + key] =
                    weight_and_slope(score[i][j], dweight[i][j], p.scale, terms[i], key0 + key).y;
            }
        add_values(sum, row_tile, key_tile, k + key0 * p.k_ld, p.k_ld, keys, window * WIDTH, p.d);
    }
#pragma unroll
    for (uint i = 0; i < ROWS / SIDE_Y; i++) {
        uint row = row0 + Y + SIDE_Y * i;
        if (idle || row >= row0 + rows)
            break;
#pragma unroll
        for (uint j = 0; j < WIDTH / SIDE_X; j++) {
            uint col = window * WIDTH + X + SIDE_X * j;
            if (col < p.d)
                dq[row / p.share * p.dq_ld + row % p.share * p.d + col] = sum[i][j];
        }
    }
}

#else

/* Adds the product of a transposed tile of weights (rows, keys) and of rows (rows, columns of the
 * window) to keys y + 16 i and columns x + 8 j of the result. */
INLINE void add_rows(float sum[KEYS / SIDE_Y][WIDTH / SIDE_X], local const float *weights,
                     local float *tile, global const float *x, local const uint *row_at, uint rows,
                     uint col, uint d)
{
#pragma unroll
    for (uint w = 0; w < WIDTH / CHUNK; w++) {
        load_rows(tile, x, row_at, rows, col + w * CHUNK, d);
        barrier(CLK_LOCAL_MEM_FENCE);
        for (uint row = 0; row < ROWS; row++) {
            float a[KEYS / SIDE_Y], b[CHUNK / SIDE_X];
#pragma unroll
            for (uint i = 0; i < KEYS / SIDE_Y; i++)
                a[i] = weights[row * PITCH + Y + SIDE_Y * i];
#pragma unroll
            for (uint j = 0; j < CHUNK / SIDE_X; j++)
                b[j] = tile[row * PITCH + X + SIDE_X * j];
#pragma unroll
            for (uint i = 0; i < KEYS / SIDE_Y; i++)
#pragma unroll
                for (uint j = 0; j < CHUNK / SIDE_X; j++)
                    sum[i][w * (CHUNK / SIDE_X) + j] += a[i] * b[j];
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
}

/* dk and dv. A workgroup takes a tile of the keys of a sequence and key head, and a window of
 * columns, and goes through all rows that see them. */
kernel void attention_bwd_kv(global const float *dy, global const float *q, global const float *k,
                             global const float *v, global const float *lse,
                             global const float *delta, global float *dq, global float *dk,
                             global float *dv, const struct attention_bwd_args p)
{
    local float row_tile[ROWS * PITCH], key_tile[KEYS * PITCH], slope_tile[ROWS * PITCH];
    local uint q_at[ROWS], dy_at[ROWS];
    uint window = GROUP % p.windows, pair = GROUP / p.windows % p.pairs;
    uint tile = GROUP / p.windows / p.pairs;
    bool idle = tile >= p.tiles; /* the grid may be larger than asked for */
    tile = idle ? 0 : tile;
    uint b = pair / p.kv_heads, g = pair % p.kv_heads, all = p.time * p.share;
    uint key0 = tile * KEYS, keys = min(p.time - key0, (uint)KEYS);
    uint kv_row = b * p.time + key0;
    q += p.q_at + b * p.time * p.q_ld + g * p.share * p.d;
    dy += p.dy_at + b * p.time * p.dy_ld + g * p.share * p.d;
    k += p.k_at + kv_row * p.k_ld + g * p.d;
    v += p.v_at + kv_row * p.v_ld + g * p.d;
    float dk_sum[KEYS / SIDE_Y][WIDTH / SIDE_X], dv_sum[KEYS / SIDE_Y][WIDTH / SIDE_X];
#pragma unroll
    for (uint i = 0; i < KEYS / SIDE_Y; i++)
#pragma unroll
        for (uint j = 0; j < WIDTH / SIDE_X; j++)
            dk_sum[i][j] = dv_sum[i][j] = 0.0f;
    for (uint row0 = idle ? all : key0 * p.share; row0 < all; row0 += ROWS) {
        float score[ROWS / SIDE_Y][KEYS / SIDE_X], dweight[ROWS / SIDE_Y][KEYS / SIDE_X];
        uint rows = min(all - row0, (uint)ROWS);
        find_rows(q_at, row0, p.q_ld, p.share, p.d);
        find_rows(dy_at, row0, p.dy_ld, p.share, p.d);
        barrier(CLK_LOCAL_MEM_FENCE);
        tile_scores(score, row_tile, key_tile, q, q_at, rows, k, p.k_ld, keys, p.d);
        tile_scores(dweight, row_tile, key_tile, dy, dy_at, rows, v, p.v_ld, keys, p.d);
#pragma unroll
        for (uint i = 0; i < ROWS / SIDE_Y; i++) {
            uint row = Y + SIDE_Y * i;
            struct row_terms terms = {0.0f, 0.0f, 0};
            if (row < rows)
                terms = terms_of(row0 + row, pair, p.share, p.time, lse + p.lse_at, p.lse_ld,
                                 delta + p.delta_at);
#pragma unroll
            for (uint j = 0; j < KEYS / SIDE_X; j++) {
                uint key = X + SIDE_X * j;
                float2 both =
                    weight_and_slope(score[i][j], dweight[i][j], p.scale, terms, key0 + key);
                row_tile[row * PITCH + key] = both.x;
                slope_tile[row * PITCH + key] = both.y;
            }
        }
        add_rows(dv_sum, row_tile, key_tile, dy, dy_at, rows, window * WIDTH, p.d);
        add_rows(dk_sum, slope_tile, key_tile, q, q_at, rows, window * WIDTH, p.d);
    }
    dk += p.dk_at + kv_row * p.dk_ld + g * p.d;
    dv += p.dv_at + kv_row * p.dv_ld + g * p.d;
#pragma unroll
    for (uint i = 0; i < KEYS / SIDE_Y; i++) {
        uint key = Y + SIDE_Y * i;
        if (idle || key >= keys)
            break;
#pragma unroll
        for (uint j = 0; j < WIDTH / SIDE_X; j++) {
            uint col = window * WIDTH + X + SIDE_X * j;
            if (col < p.d) {
                dk[key * p.dk_ld + col] = dk_sum[i][j];
                dv[key * p.dv_ld + col] = dv_sum[i][j];
            }
        }
    }
}

#endif
