/* Attention of few queries, as in decoding, where all there is to do is to read keys and values
 * once. See host/ops/attention.c for the contract, attention.clh for what a row is. */
#include "args/attention.clh"
#include "reduce.clh"

#ifndef ROWS
#define ROWS MAX_FEW_ROWS /* all rows of a sequence and key head */
#endif
#ifndef WIDTH
#define WIDTH MAX_WIDTH
#endif
#define PITCH (CHUNK + 1)
#define LOCAL ITERA_GPU_LOCAL
#define TEAMS (LOCAL / TEAM)
#define AHEAD 4 /* values that an invocation reads at a time */

/* A workgroup takes the rows of a sequence and key head, a window of the columns, and a range of
 * `split` keys: all scores, their softmax, and the weighted values. Where there are several ranges
 * its result goes to `parts`, for attention_merge, as that of attention does. */
kernel void attention_rows(global const float *q, global const float *k, global const float *v,
                           global const int *start, global float *y, global float *lse,
                           global float *parts, const struct attention_args p)
{
    local float score[ROWS * RANGE], tile[KEYS * PITCH], q_tile[ROWS * CHUNK], buffer[LOCAL];
    local float row_most[ROWS], row_total[ROWS];
    uint window = GROUP % p.windows, range = GROUP / p.windows % p.splits;
    uint pair = GROUP / p.windows / p.splits;
    bool idle = pair >= p.pairs; /* the grid may be larger than asked for */
    pair = idle ? 0 : pair;
    uint b = pair / p.kv_heads, g = pair % p.kv_heads, rows = idle ? 0 : p.time * p.share;
    uint team = LANE / TEAM, mate = LANE % TEAM;
    uint before = p.started ? (uint)max(start[p.start_at + b], 0) : 0;
    uint key0 = range * p.split, end = min(min(before + p.time, p.keys), key0 + p.split);
    uint keys = end > key0 ? end - key0 : 0;
    q += p.q_at + b * p.time * p.q_ld + g * p.share * p.d;
    k += p.k_at + (b * p.keys + key0) * p.k_ld + g * p.d;
    v += p.v_at + (b * p.keys + key0) * p.v_ld + g * p.d;

    /* Scores: an invocation takes a quarter of a key's columns. */
    for (uint first = 0; first < keys; first += KEYS) {
        float sum[ROWS];
        for (uint r = 0; r < ROWS; r++)
            sum[r] = 0.0f;
        for (uint col = 0; col < p.d; col += CHUNK) {
#pragma unroll
            for (uint i = 0; i < KEYS * CHUNK / LOCAL; i++) {
                uint key = i * (LOCAL / CHUNK) + team;
                bool inside = first + key < keys && col + mate < p.d;
                tile[key * PITCH + mate] = inside ? k[(first + key) * p.k_ld + col + mate] : 0.0f;
            }
            for (uint i = LANE; i < ROWS * CHUNK; i += LANES) {
                uint r = i / CHUNK, c = col + i % CHUNK;
                q_tile[i] =
                    r < rows && c < p.d ? q[r / p.share * p.q_ld + r % p.share * p.d + c] : 0.0f;
            }
            barrier(CLK_LOCAL_MEM_FENCE);
            for (uint c = team * (CHUNK / TEAMS); c < (team + 1) * (CHUNK / TEAMS); c++) {
                float x = tile[mate * PITCH + c];
#pragma unroll
                for (uint r = 0; r < ROWS; r++)
                    sum[r] += x * q_tile[r * CHUNK + c];
            }
            barrier(CLK_LOCAL_MEM_FENCE);
        }
        for (uint r = 0; r < ROWS; r++)
            tile[(team * ROWS + r) * KEYS + mate] = sum[r];
        barrier(CLK_LOCAL_MEM_FENCE);
        for (uint i = LANE; i < ROWS * KEYS; i += LANES) {
            uint r = i / KEYS, key = first + i % KEYS;
            uint limit = r < rows ? min(before + r / p.share + 1, end) : 0;
            float total = 0.0f;
            for (uint t = 0; t < TEAMS; t++)
                total += tile[t * ROWS * KEYS + i];
            score[r * RANGE + key] = key0 + key < limit ? total * p.scale : -INFINITY;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }

    /* Weights: LANES / ROWS invocations take a row; those of whole blocks of keys, 0 beyond. */
    uint width = LANES / ROWS, own = LANE / width, padded = (keys + KEYS - 1) / KEYS * KEYS;
    float most = -INFINITY, total = 0.0f;
    for (uint key = LANE % width; key < padded; key += width)
        most = fmax(most, score[own * RANGE + key]);
    most = row_max(most, buffer, width);
    for (uint key = LANE % width; key < padded; key += width) {
        float weight = exp(score[own * RANGE + key] - (most == -INFINITY ? 0.0f : most));
        score[own * RANGE + key] = weight;
        total += weight;
    }
    total = row_sum(total, buffer, width);
    if (LANE % width == 0) {
        row_most[own] = most;
        row_total[own] = total;
    }
    barrier(CLK_LOCAL_MEM_FENCE);

    /* Values: a team takes every fourth key, its invocations the columns. */
    float sum[ROWS][WIDTH / TEAM];
    for (uint r = 0; r < ROWS; r++)
        for (uint i = 0; i < WIDTH / TEAM; i++)
            sum[r][i] = 0.0f;
    for (uint first = 0; first < keys; first += TEAMS * AHEAD) {
        float x[AHEAD][WIDTH / TEAM];
#pragma unroll
        for (uint a = 0; a < AHEAD; a++)
#pragma unroll
            for (uint i = 0; i < WIDTH / TEAM; i++) {
                uint key = min(first + a * TEAMS + team, keys - 1);
                uint col = window * WIDTH + i * TEAM + mate;
                x[a][i] = col < p.d ? v[key * p.v_ld + col] : 0.0f;
            }
#pragma unroll
        for (uint a = 0; a < AHEAD; a++)
#pragma unroll
            for (uint r = 0; r < ROWS; r++) {
                float weight = score[r * RANGE + first + a * TEAMS + team];
#pragma unroll
                for (uint i = 0; i < WIDTH / TEAM; i++)
                    sum[r][i] += weight * x[a][i];
            }
    }
#pragma unroll
    for (uint r = 0; r < ROWS; r++) {
#pragma unroll
        for (uint i = 0; i < WIDTH / TEAM; i++)
            tile[team * WIDTH + i * TEAM + mate] = sum[r][i];
        barrier(CLK_LOCAL_MEM_FENCE);
        uint col = window * WIDTH + LANE, t = r / p.share, h = g * p.share + r % p.share;
        bool divide = p.splits == 1;
        global float *to = y + p.y_at + (b * p.time + t) * p.y_ld + h * p.d;
        if (!divide)
            to = parts + p.parts_at + ((pair * rows + r) * p.splits + range) * (p.d + 2) + 2;
        if (r < rows && LANE < WIDTH && col < p.d) {
            float all = 0.0f;
            for (uint i = 0; i < TEAMS; i++)
                all += tile[i * WIDTH + LANE];
            to[col] = divide ? all / row_total[r] : all;
        }
        if (r < rows && window == 0 && LANE == 0) {
            uint head = b * p.kv_heads * p.share + h;
            if (!divide) {
                *(to - 2) = row_most[r];
                *(to - 1) = row_total[r];
            } else if (p.wants_lse) {
                lse[p.lse_at + head * p.lse_ld + t] = row_most[r] + log(row_total[r]);
            }
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
}
