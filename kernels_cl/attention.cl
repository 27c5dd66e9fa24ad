/* Rotary positions, causal attention and its gradient: see host/ops/attention.c for the contracts.
 *
 * The queries of all heads that share a key head are taken together: row r of them is time step
 * r / share of head r % share. Work is cut into tiles of ROWS such rows and KEYS keys; a workgroup
 * of 16 x 8 invocations holds the scores of a tile in registers, those of rows y + 16 i and keys
 * x + 8 j, and everything else goes through tiles of CHUNK columns in local memory. Results that
 * are wider than WIDTH columns are cut into windows, each of which computes the scores anew, so
 * that heads may be of any width. */
#include "reduce.clh"
#include "wide.clh"

#ifndef ROWS
#define ROWS 64
#endif
#ifndef WIDTH
#define WIDTH 128
#endif
#define LOCAL 128
#define KEYS  32
#define CHUNK 32
#define PITCH (CHUNK + 1) /* of a tile: rows start in different banks */

#define SIDE_Y 16
#define SIDE_X 8
#define Y      (LANE / SIDE_X)
#define X      (LANE % SIDE_X)

/* ---- rope ------------------------------------------------------------------------------------ */

struct rope_args {
    T(x) T(start) T(y) uint rows, time, heads, half_width, take, blocks, started, inverse;
    uint step_low, step_high;
};

/* cos and sin of an angle in units of 2^-32 turns. The nearest quarter turn is taken off, and the
 * series serve the rest, pi / 4 at most, to below the precision of f32. */
static inline float2 turn(uint angle)
{
    uint quarter = (angle + 0x20000000u) >> 30;
    float x = (float)(int)(angle - (quarter << 30)) * 1.46291807927e-9f, z = x * x;
    float s = x + x * z * (-1.0f / 6 + z * (1.0f / 120 + z * (-1.0f / 5040 + z * (1.0f / 362880))));
    float c = 1.0f - 0.5f * z + z * z * (1.0f / 24 + z * (-1.0f / 720 + z * (1.0f / 40320)));
    switch (quarter) {
    case 1:
        return (float2)(-s, c);
    case 2:
        return (float2)(-c, -s);
    case 3:
        return (float2)(s, -c);
    default:
        return (float2)(c, s);
    }
}

/* An invocation rotates the same pair of up to `take` heads at one position. Angles are integers:
 * fractions of a turn in units of 2^-64, right after however many positions. */
kernel void rope(global const float *x, global const int *start, global float *y,
                 const struct rope_args p)
{
    uint pair = THREAD % p.half_width, block = THREAD / p.half_width % p.blocks;
    uint row = THREAD / p.half_width / p.blocks;
    if (row >= p.rows)
        return;
    /* theta^(-2 pair / d) / (2 pi): the exponent of 1 / 2 in units of 2^-56 */
    ulong z = ((ulong)p.step_high << 32 | p.step_low) * pair;
    const ulong four_over_two_pi = 0xa2f9836e4e441529ul; /* in units of 2^-64 */
    uint whole = (uint)(z >> 56);
    ulong turns = whole < 63 ? mul_hi(power_of_half(z << 8), four_over_two_pi) >> (whole + 1) : 0;
    long position = (long)(row % p.time) + (p.started ? start[p.start_at + row / p.time] : 0);
    float2 r = turn((uint)(turns * (ulong)position >> 32));
    if (p.inverse)
        r.y = -r.y;
    uint last = min((block + 1) * p.take, p.heads);
    for (uint h = block * p.take; h < last; h++) {
        uint col = h * 2 * p.half_width + pair;
        global const float *from = x + p.x_at + row * p.x_ld + col;
        global float *to = y + p.y_at + row * p.y_ld + col;
        float a = from[0], b = from[p.half_width];
        to[0] = a * r.x - b * r.y;
        to[p.half_width] = b * r.x + a * r.y;
    }
}

/* ---- tiles ----------------------------------------------------------------------------------- */

/* Where the rows of a tile begin in a tensor of queries, from the first head of the group on. */
static inline void find_rows(local uint *row_at, uint first, uint ld, uint share, uint d)
{
    for (uint i = LANE; i < ROWS; i += LANES) {
        uint row = first + i;
        row_at[i] = row / share * ld + row % share * d;
    }
}

/* A chunk of the columns of `n` rows, zeros beyond. */
static inline void load_rows(local float *tile, global const float *x, local const uint *row_at,
                             uint n, uint col, uint d)
{
    for (uint i = LANE; i < ROWS * CHUNK; i += LANES) {
        uint r = i / CHUNK, c = i % CHUNK;
        tile[r * PITCH + c] = r < n && col + c < d ? x[row_at[r] + col + c] : 0.0f;
    }
}

/* The same of `n` keys (or values), the first at x. */
static inline void load_keys(local float *tile, global const float *x, uint ld, uint n, uint col,
                             uint d)
{
    for (uint i = LANE; i < KEYS * CHUNK; i += LANES) {
        uint r = i / CHUNK, c = i % CHUNK;
        tile[r * PITCH + c] = r < n && col + c < d ? x[r * ld + col + c] : 0.0f;
    }
}

/* Adds what a chunk of columns gives to the products of rows and keys. */
static inline void add_scores(float score[ROWS / SIDE_Y][KEYS / SIDE_X], local const float *rows,
                              local const float *keys)
{
    for (uint c = 0; c < CHUNK; c++) {
        float a[ROWS / SIDE_Y], b[KEYS / SIDE_X];
#pragma unroll
        for (uint i = 0; i < ROWS / SIDE_Y; i++)
            a[i] = rows[(Y + SIDE_Y * i) * PITCH + c];
#pragma unroll
        for (uint j = 0; j < KEYS / SIDE_X; j++)
            b[j] = keys[(X + SIDE_X * j) * PITCH + c];
#pragma unroll
        for (uint i = 0; i < ROWS / SIDE_Y; i++)
#pragma unroll
            for (uint j = 0; j < KEYS / SIDE_X; j++)
                score[i][j] += a[i] * b[j];
    }
}

/* Products of all rows of a tile with keys (or values): the sums over d columns. */
static inline void tile_scores(float score[ROWS / SIDE_Y][KEYS / SIDE_X], local float *row_tile,
                               local float *key_tile, global const float *x,
                               local const uint *row_at, uint rows, global const float *k, uint ld,
                               uint keys, uint d)
{
    for (uint i = 0; i < ROWS / SIDE_Y; i++)
        for (uint j = 0; j < KEYS / SIDE_X; j++)
            score[i][j] = 0.0f;
    for (uint col = 0; col < d; col += CHUNK) {
        load_rows(row_tile, x, row_at, rows, col, d);
        load_keys(key_tile, k, ld, keys, col, d);
        barrier(CLK_LOCAL_MEM_FENCE);
        add_scores(score, row_tile, key_tile);
        barrier(CLK_LOCAL_MEM_FENCE);
    }
}

/* Adds the product of a tile of weights (rows, keys) and of values (keys, columns of the window) to
 * rows y + 16 i and columns x + 8 j of the result. */
static inline void add_values(float sum[ROWS / SIDE_Y][WIDTH / SIDE_X], local const float *weights,
                              local float *key_tile, global const float *v, uint ld, uint keys,
                              uint col, uint d)
{
#pragma unroll
    for (uint w = 0; w < WIDTH / CHUNK; w++) {
        load_keys(key_tile, v, ld, keys, col + w * CHUNK, d);
        barrier(CLK_LOCAL_MEM_FENCE);
        for (uint key = 0; key < KEYS; key++) {
            float a[ROWS / SIDE_Y], b[CHUNK / SIDE_X];
#pragma unroll
            for (uint i = 0; i < ROWS / SIDE_Y; i++)
                a[i] = weights[(Y + SIDE_Y * i) * PITCH + key];
#pragma unroll
            for (uint j = 0; j < CHUNK / SIDE_X; j++)
                b[j] = key_tile[key * PITCH + X + SIDE_X * j];
#pragma unroll
            for (uint i = 0; i < ROWS / SIDE_Y; i++)
#pragma unroll
                for (uint j = 0; j < CHUNK / SIDE_X; j++)
                    sum[i][w * (CHUNK / SIDE_X) + j] += a[i] * b[j];
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
}

/* ---- attention ------------------------------------------------------------------------------- */

struct attention_store_args {
    T(k) T(v) T(start) T(k_cache) T(v_cache) uint rows, cols, time, positions;
};

/* A workgroup copies 128 elements of both new keys and values to their places in the caches. */
kernel void attention_store(global const float *k, global const float *v, global const int *start,
                            global float *k_cache, global float *v_cache,
                            const struct attention_store_args p)
{
    uint row = THREAD / p.cols, col = THREAD % p.cols;
    if (row >= p.rows)
        return;
    uint b = row / p.time, position = (uint)max(start[p.start_at + b], 0) + row % p.time;
    if (position >= p.positions)
        return;
    uint to = b * p.positions + position;
    k_cache[p.k_cache_at + to * p.k_cache_ld + col] = k[p.k_at + row * p.k_ld + col];
    v_cache[p.v_cache_at + to * p.v_cache_ld + col] = v[p.v_at + row * p.v_ld + col];
}

struct attention_args {
    T(q) T(k) T(v) T(start) T(y) T(lse) T(parts) uint pairs, kv_heads, share, d, time, keys;
    uint tiles, windows, split, splits, started, wants_lse;
    float scale;
};

/* A workgroup takes a tile of the rows of a sequence and key head, a window of the columns, and a
 * range of `split` keys. Where there are several ranges its result goes to `parts`, for
 * attention_merge: maximum, sum, and the weighted values (not divided by it). */
kernel void attention(global const float *q, global const float *k, global const float *v,
                      global const int *start, global float *y, global float *lse,
                      global float *parts, const struct attention_args p)
{
    local float row_tile[ROWS * PITCH], key_tile[KEYS * PITCH], partial[ROWS * (SIDE_X + 1)];
    local uint row_at[ROWS];
    uint window = GROUP % p.windows, range = GROUP / p.windows % p.splits;
    uint pair = GROUP / p.windows / p.splits % p.pairs;
    uint tile = GROUP / p.windows / p.splits / p.pairs;
    if (tile >= p.tiles)
        return;
    tile = p.tiles - 1 - tile; /* those with the most keys first */
    uint b = pair / p.kv_heads, g = pair % p.kv_heads;
    uint row0 = tile * ROWS, rows = min(p.time * p.share - row0, (uint)ROWS);
    uint before = p.started ? (uint)max(start[p.start_at + b], 0) : 0;
    q += p.q_at + b * p.time * p.q_ld + g * p.share * p.d;
    k += p.k_at + b * p.keys * p.k_ld + g * p.d;
    v += p.v_at + b * p.keys * p.v_ld + g * p.d;
    find_rows(row_at, row0, p.q_ld, p.share, p.d);
    barrier(CLK_LOCAL_MEM_FENCE);

    float sum[ROWS / SIDE_Y][WIDTH / SIDE_X], most[ROWS / SIDE_Y], total[ROWS / SIDE_Y];
    uint limit[ROWS / SIDE_Y]; /* the keys of a row */
    for (uint i = 0; i < ROWS / SIDE_Y; i++) {
        uint row = Y + SIDE_Y * i;
        limit[i] = row < rows ? min(before + (row0 + row) / p.share + 1, p.keys) : 0;
        most[i] = -INFINITY;
        total[i] = 0.0f;
        for (uint j = 0; j < WIDTH / SIDE_X; j++)
            sum[i][j] = 0.0f;
    }
    uint end = min(before + (row0 + rows - 1) / p.share + 1, p.keys);
    end = min(end, (range + 1) * p.split);
    for (uint key0 = range * p.split; key0 < end; key0 += KEYS) {
        float score[ROWS / SIDE_Y][KEYS / SIDE_X];
        uint keys = min(end - key0, (uint)KEYS);
        tile_scores(score, row_tile, key_tile, q, row_at, rows, k + key0 * p.k_ld, p.k_ld, keys,
                    p.d);
        for (uint i = 0; i < ROWS / SIDE_Y; i++) {
            float here = -INFINITY;
            for (uint j = 0; j < KEYS / SIDE_X; j++) {
                bool seen = key0 + X + SIDE_X * j < min(limit[i], end);
                score[i][j] = seen ? score[i][j] * p.scale : -INFINITY;
                here = fmax(here, score[i][j]);
            }
            partial[(Y + SIDE_Y * i) * (SIDE_X + 1) + X] = here;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        for (uint i = 0; i < ROWS / SIDE_Y; i++) {
            float now = most[i];
            for (uint j = 0; j < SIDE_X; j++)
                now = fmax(now, partial[(Y + SIDE_Y * i) * (SIDE_X + 1) + j]);
            float base = now == -INFINITY ? 0.0f : now, shrink = exp(most[i] - base);
            most[i] = now;
            total[i] *= shrink;
            for (uint j = 0; j < KEYS / SIDE_X; j++) {
                float weight = exp(score[i][j] - base);
                total[i] += weight;
                row_tile[(Y + SIDE_Y * i) * PITCH + X + SIDE_X * j] = weight;
            }
            for (uint j = 0; j < WIDTH / SIDE_X; j++)
                sum[i][j] *= shrink;
        }
        add_values(sum, row_tile, key_tile, v + key0 * p.v_ld, p.v_ld, keys, window * WIDTH, p.d);
    }

    for (uint i = 0; i < ROWS / SIDE_Y; i++)
        partial[(Y + SIDE_Y * i) * (SIDE_X + 1) + X] = total[i];
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint i = 0; i < ROWS / SIDE_Y; i++) {
        uint row = Y + SIDE_Y * i;
        if (row >= rows)
            break;
        total[i] = 0.0f;
        for (uint j = 0; j < SIDE_X; j++)
            total[i] += partial[row * (SIDE_X + 1) + j];
        row += row0;
        uint t = row / p.share, h = g * p.share + row % p.share;
        global float *to = y + p.y_at + (b * p.time + t) * p.y_ld + h * p.d;
        bool divide = p.splits == 1, first = window == 0 && X == 0;
        if (!divide) {
            to = parts + p.parts_at +
                 ((pair * p.time * p.share + row) * p.splits + range) * (p.d + 2);
            if (first) {
                to[0] = most[i];
                to[1] = total[i];
            }
            to += 2;
        } else if (first && p.wants_lse) {
            lse[p.lse_at + (b * p.kv_heads * p.share + h) * p.lse_ld + t] = most[i] + log(total[i]);
        }
#pragma unroll
        for (uint j = 0; j < WIDTH / SIDE_X; j++) {
            uint col = window * WIDTH + X + SIDE_X * j;
            if (col < p.d)
                to[col] = divide ? sum[i][j] / total[i] : sum[i][j];
        }
    }
}

struct attention_merge_args {
    T(parts) T(y) T(lse) uint pairs, kv_heads, share, d, time, splits, wants_lse;
};

/* A workgroup joins 128 elements of the result from the ranges of keys. */
kernel void attention_merge(global const float *parts, global float *y, global float *lse,
                            const struct attention_merge_args p)
{
    uint col = THREAD % p.d, row = THREAD / p.d % (p.time * p.share);
    uint pair = THREAD / p.d / (p.time * p.share);
    if (pair >= p.pairs)
        return;
    uint stride = p.d + 2;
    parts += p.parts_at + (pair * p.time * p.share + row) * p.splits * stride;
    float most = -INFINITY, total = 0.0f, sum = 0.0f;
    for (uint s = 0; s < p.splits; s++)
        most = fmax(most, parts[s * stride]);
    for (uint s = 0; s < p.splits; s++) {
        float weight = exp(parts[s * stride] - most);
        total += weight * parts[s * stride + 1];
        sum += weight * parts[s * stride + 2 + col];
    }
    uint b = pair / p.kv_heads, t = row / p.share;
    uint h = pair % p.kv_heads * p.share + row % p.share;
    y[p.y_at + (b * p.time + t) * p.y_ld + h * p.d + col] = sum / total;
    if (p.wants_lse && col == 0)
        lse[p.lse_at + (b * p.kv_heads * p.share + h) * p.lse_ld + t] = most + log(total);
}

/* ---- attention_bwd --------------------------------------------------------------------------- */

#define TEAM 32 /* invocations that share a row of attention_bwd_delta */

struct attention_bwd_delta_args {
    T(dy) T(y) T(delta) uint rows, heads, d, time;
};

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

/* The two of a row that the gradient of a score needs. */
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

struct attention_bwd_args {
    T(dy) T(q) T(k) T(v) T(lse) T(delta) T(dq) T(dk) T(dv) uint pairs, kv_heads, share, d, time;
    uint tiles, windows;
    float scale;
};

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
    if (tile >= p.tiles)
        return;
    tile = p.tiles - 1 - tile; /* those with the most keys first */
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
    for (uint i = 0; i < ROWS / SIDE_Y; i++) {
        uint row = min(Y + SIDE_Y * i, rows - 1); /* those beyond are not stored */
        terms[i] = terms_of(row0 + row, pair, p.share, p.time, lse + p.lse_at, p.lse_ld,
                            delta + p.delta_at);
        for (uint j = 0; j < WIDTH / SIDE_X; j++)
            sum[i][j] = 0.0f;
    }
    uint end = (row0 + rows - 1) / p.share + 1;
    for (uint key0 = 0; key0 < end; key0 += KEYS) {
        float score[ROWS / SIDE_Y][KEYS / SIDE_X], dweight[ROWS / SIDE_Y][KEYS / SIDE_X];
        uint keys = min(end - key0, (uint)KEYS);
        tile_scores(score, row_tile, key_tile, q, q_at, rows, k + key0 * p.k_ld, p.k_ld, keys, p.d);
        tile_scores(dweight, row_tile, key_tile, dy, dy_at, rows, v + key0 * p.v_ld, p.v_ld, keys,
                    p.d);
        for (uint i = 0; i < ROWS / SIDE_Y; i++)
            for (uint j = 0; j < KEYS / SIDE_X; j++) {
                bool seen = key0 + X + SIDE_X * j < terms[i].limit;
                float weight = seen ? exp(score[i][j] * p.scale - terms[i].lse) : 0.0f;
                row_tile[(Y + SIDE_Y * i) * PITCH + X + SIDE_X * j] =
                    weight * (dweight[i][j] - terms[i].delta) * p.scale;
            }
        add_values(sum, row_tile, key_tile, k + key0 * p.k_ld, p.k_ld, keys, window * WIDTH, p.d);
    }
    for (uint i = 0; i < ROWS / SIDE_Y; i++) {
        uint row = row0 + Y + SIDE_Y * i;
        if (row >= row0 + rows)
            break;
#pragma unroll
        for (uint j = 0; j < WIDTH / SIDE_X; j++) {
            uint col = window * WIDTH + X + SIDE_X * j;
            if (col < p.d)
                dq[row / p.share * p.dq_ld + row % p.share * p.d + col] = sum[i][j];
        }
    }
}

/* Adds the product of a transposed tile of weights (rows, keys) and of rows (rows, columns of the
 * window) to keys y + 16 i and columns x + 8 j of the result. */
static inline void add_rows(float sum[KEYS / SIDE_Y][WIDTH / SIDE_X], local const float *weights,
                            local float *tile, global const float *x, local const uint *row_at,
                            uint rows, uint col, uint d)
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
 * columns, and goes through all rows that see them: ROWS is at most KEYS here. */
kernel void attention_bwd_kv(global const float *dy, global const float *q, global const float *k,
                             global const float *v, global const float *lse,
                             global const float *delta, global float *dq, global float *dk,
                             global float *dv, const struct attention_bwd_args p)
{
    local float row_tile[ROWS * PITCH], key_tile[KEYS * PITCH], dscore_tile[ROWS * PITCH];
    local uint q_at[ROWS], dy_at[ROWS];
    uint window = GROUP % p.windows, pair = GROUP / p.windows % p.pairs;
    uint tile = GROUP / p.windows / p.pairs;
    if (tile >= p.tiles)
        return;
    uint b = pair / p.kv_heads, g = pair % p.kv_heads, all = p.time * p.share;
    uint key0 = tile * KEYS, keys = min(p.time - key0, (uint)KEYS);
    uint kv_row = b * p.time + key0;
    q += p.q_at + b * p.time * p.q_ld + g * p.share * p.d;
    dy += p.dy_at + b * p.time * p.dy_ld + g * p.share * p.d;
    k += p.k_at + kv_row * p.k_ld + g * p.d;
    v += p.v_at + kv_row * p.v_ld + g * p.d;
    float dk_sum[KEYS / SIDE_Y][WIDTH / SIDE_X], dv_sum[KEYS / SIDE_Y][WIDTH / SIDE_X];
    for (uint i = 0; i < KEYS / SIDE_Y; i++)
        for (uint j = 0; j < WIDTH / SIDE_X; j++)
            dk_sum[i][j] = dv_sum[i][j] = 0.0f;
    for (uint row0 = key0 * p.share; row0 < all; row0 += ROWS) {
        float score[ROWS / SIDE_Y][KEYS / SIDE_X], dweight[ROWS / SIDE_Y][KEYS / SIDE_X];
        uint rows = min(all - row0, (uint)ROWS);
        find_rows(q_at, row0, p.q_ld, p.share, p.d);
        find_rows(dy_at, row0, p.dy_ld, p.share, p.d);
        barrier(CLK_LOCAL_MEM_FENCE);
        tile_scores(score, row_tile, key_tile, q, q_at, rows, k, p.k_ld, keys, p.d);
        tile_scores(dweight, row_tile, key_tile, dy, dy_at, rows, v, p.v_ld, keys, p.d);
        for (uint i = 0; i < ROWS / SIDE_Y; i++) {
            uint row = Y + SIDE_Y * i;
            struct row_terms terms = {0.0f, 0.0f, 0};
            if (row < rows)
                terms = terms_of(row0 + row, pair, p.share, p.time, lse + p.lse_at, p.lse_ld,
                                 delta + p.delta_at);
            for (uint j = 0; j < KEYS / SIDE_X; j++) {
                uint key = X + SIDE_X * j;
                bool seen = key0 + key < terms.limit;
                float weight = seen ? exp(score[i][j] * p.scale - terms.lse) : 0.0f;
                row_tile[row * PITCH + key] = weight;
                dscore_tile[row * PITCH + key] = weight * (dweight[i][j] - terms.delta) * p.scale;
            }
        }
        add_rows(dv_sum, row_tile, key_tile, dy, dy_at, rows, window * WIDTH, p.d);
        add_rows(dk_sum, dscore_tile, key_tile, q, q_at, rows, window * WIDTH, p.d);
    }
    dk += p.dk_at + kv_row * p.dk_ld + g * p.d;
    dv += p.dv_at + kv_row * p.dv_ld + g * p.d;
    for (uint i = 0; i < KEYS / SIDE_Y; i++) {
        uint key = Y + SIDE_Y * i;
        if (key >= keys)
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
