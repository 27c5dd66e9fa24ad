/* Causal attention: see host/ops/attention.c for its contract. */
#include "args/attention.clh"
#include "attention.clh"

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
    bool idle = tile >= p.tiles;          /* the grid may be larger than asked for */
    tile = idle ? 0 : p.tiles - 1 - tile; /* those with the most keys first */
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
#pragma unroll
    for (uint i = 0; i < ROWS / SIDE_Y; i++) {
        uint row = Y + SIDE_Y * i;
        limit[i] = row < rows ? min(before + (row0 + row) / p.share + 1, p.keys) : 0;
        most[i] = -INFINITY;
        total[i] = 0.0f;
#pragma unroll
        for (uint j = 0; j < WIDTH / SIDE_X; j++)
            sum[i][j] = 0.0f;
    }
    uint end = min(before + (row0 + rows - 1) / p.share + 1, p.keys);
    end = idle ? 0 : min(end, (range + 1) * p.split);
    for (uint key0 = range * p.split; key0 < end; key0 += KEYS) {
        float score[ROWS / SIDE_Y][KEYS / SIDE_X];
        uint keys = min(end - key0, (uint)KEYS);
        tile_scores(score, row_tile, key_tile, q, row_at, rows, k + key0 * p.k_ld, p.k_ld, keys,
                    p.d);
#pragma unroll
        for (uint i = 0; i < ROWS / SIDE_Y; i++) {
            float here = -INFINITY;
#pragma unroll
            for (uint j = 0; j < KEYS / SIDE_X; j++) {
                bool seen = key0 + X + SIDE_X * j < min(limit[i], end);
                score[i][j] = seen ? score[i][j] * p.scale : -INFINITY;
                here = fmax(here, score[i][j]);
            }
            partial[(Y + SIDE_Y * i) * (SIDE_X + 1) + X] = here;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
#pragma unroll
        for (uint i = 0; i < ROWS / SIDE_Y; i++) {
            float now = most[i];
            for (uint j = 0; j < SIDE_X; j++)
                now = fmax(now, partial[(Y + SIDE_Y * i) * (SIDE_X + 1) + j]);
            float base = now == -INFINITY ? 0.0f : now, shrink = exp(most[i] - base);
            most[i] = now;
            total[i] *= shrink;
#pragma unroll
            for (uint j = 0; j < KEYS / SIDE_X; j++) {
                float weight = exp(score[i][j] - base);
                total[i] += weight;
                row_tile[(Y + SIDE_Y * i) * PITCH + X + SIDE_X * j] = weight;
            }
#pragma unroll
            for (uint j = 0; j < WIDTH / SIDE_X; j++)
                sum[i][j] *= shrink;
        }
        add_values(sum, row_tile, key_tile, v + key0 * p.v_ld, p.v_ld, keys, window * WIDTH, p.d);
    }

#pragma unroll
    for (uint i = 0; i < ROWS / SIDE_Y; i++)
        partial[(Y + SIDE_Y * i) * (SIDE_X + 1) + X] = total[i];
    barrier(CLK_LOCAL_MEM_FENCE);
#pragma unroll
    for (uint i = 0; i < ROWS / SIDE_Y; i++) {
        uint row = Y + SIDE_Y * i;
        if (idle || row >= rows)
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
