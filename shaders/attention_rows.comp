#version 450
#extension GL_GOOGLE_include_directive : require
#include "itera.glsl"
#include "args/attention.clh"
#define LANE_BUFFER ITERA_GPU_LOCAL
#include "reduce.glsl"

ARGS(attention_args)
IN(1, q)
IN(2, k)
IN(3, v)
IN_INT(4, start)
OUT(5, y)
OUT(6, lse)
OUT(7, parts)

// Attention of few queries, as in decoding, where all there is to do is to read keys and values
// once. attention.glsl says what a row is.

layout(constant_id = ROWS_ID) const uint ROWS = MAX_FEW_ROWS; // all of a sequence and key head
layout(constant_id = WIDTH_ID) const uint WIDTH = MAX_WIDTH;
#define PITCH (CHUNK + 1)
#define LOCAL ITERA_GPU_LOCAL
#define TEAMS (LOCAL / TEAM)
#define AHEAD 4 // values that an invocation reads at a time

#define NOTHING uintBitsToFloat(0xff800000u) // -infinity

shared float score[MAX_FEW_ROWS * RANGE], tile[KEYS * PITCH], q_tile[MAX_FEW_ROWS * CHUNK];
shared float row_most[MAX_FEW_ROWS], row_total[MAX_FEW_ROWS];

// A workgroup takes the rows of a sequence and key head, a window of the columns, and a range of
// `split` keys: all scores, their softmax, and the weighted values. Where there are several ranges
// its result goes to `parts`, for attention_merge, as that of attention does.
void main()
{
    uint window = GROUP % p.windows, range = GROUP / p.windows % p.splits;
    uint pair = GROUP / p.windows / p.splits;
    if (pair >= p.pairs)
        return;
    uint b = pair / p.kv_heads, g = pair % p.kv_heads, rows = p.time * p.share;
    uint team = LANE / TEAM, mate = LANE % TEAM;
    uint before = p.started != 0 ? uint(max(start.v[p.start_at + b], 0)) : 0;
    uint key0 = range * p.split, end = min(min(before + p.time, p.keys), key0 + p.split);
    uint keys = end > key0 ? end - key0 : 0;
    uint q_at = p.q_at + b * p.time * p.q_ld + g * p.share * p.d;
    uint k_at = p.k_at + (b * p.keys + key0) * p.k_ld + g * p.d;
    uint v_at = p.v_at + (b * p.keys + key0) * p.v_ld + g * p.d;

    // Scores: an invocation takes a quarter of a key's columns.
    for (uint first = 0; first < keys; first += KEYS) {
        float sum[MAX_FEW_ROWS];
        [[unroll]] for (uint r = 0; r < ROWS; r++)
            sum[r] = 0.0;
        for (uint col = 0; col < p.d; col += CHUNK) {
            [[unroll]] for (uint i = 0; i < KEYS * CHUNK / LOCAL; i++) {
                uint key = i * (LOCAL / CHUNK) + team;
                bool inside = first + key < keys && col + mate < p.d;
                tile[key * PITCH + mate] =
                    inside ? k.v[k_at + (first + key) * p.k_ld + col + mate] : 0.0;
            }
            for (uint i = LANE; i < ROWS * CHUNK; i += LANES) {
                uint r = i / CHUNK, c = col + i % CHUNK;
                uint at = q_at + r / p.share * p.q_ld + r % p.share * p.d + c;
                q_tile[i] = r < rows && c < p.d ? q.v[at] : 0.0;
            }
            barrier();
            for (uint c = team * (CHUNK / TEAMS); c < (team + 1) * (CHUNK / TEAMS); c++) {
                float x = tile[mate * PITCH + c];
                [[unroll]] for (uint r = 0; r < ROWS; r++)
                    sum[r] += x * q_tile[r * CHUNK + c];
            }
            barrier();
        }
        [[unroll]] for (uint r = 0; r < ROWS; r++)
            tile[(team * ROWS + r) * KEYS + mate] = sum[r];
        barrier();
        for (uint i = LANE; i < ROWS * KEYS; i += LANES) {
            uint r = i / KEYS, key = first + i % KEYS;
            uint limit = r < rows ? min(before + r / p.share + 1, end) : 0;
            float total = 0.0;
            for (uint t = 0; t < TEAMS; t++)
                total += tile[t * ROWS * KEYS + i];
            score[r * RANGE + key] = key0 + key < limit ? total * p.scale : NOTHING;
        }
        barrier();
    }

    // Weights: LANES / ROWS invocations take a row; those of whole blocks of keys, 0 beyond.
    uint width = LANES / ROWS, own = LANE / width, padded = (keys + KEYS - 1) / KEYS * KEYS;
    float most = NOTHING, total = 0.0;
    for (uint key = LANE % width; key < padded; key += width)
        most = max(most, score[own * RANGE + key]);
    most = row_max(most, width);
    for (uint key = LANE % width; key < padded; key += width) {
        float weight = exp(score[own * RANGE + key] - (most == NOTHING ? 0.0 : most));
        score[own * RANGE + key] = weight;
        total += weight;
    }
    total = row_sum(total, width);
    if (LANE % width == 0) {
        row_most[own] = most;
        row_total[own] = total;
    }
    barrier();

    // Values: a team takes every fourth key, its invocations the columns.
    float sum[MAX_FEW_ROWS][MAX_WIDTH / TEAM];
    [[unroll]] for (uint r = 0; r < ROWS; r++)
        [[unroll]] for (uint i = 0; i < WIDTH / TEAM; i++)
            sum[r][i] = 0.0;
    for (uint first = 0; first < keys; first += TEAMS * AHEAD) {
        float x[AHEAD][MAX_WIDTH / TEAM];
        [[unroll]] for (uint a = 0; a < AHEAD; a++)
            [[unroll]] for (uint i = 0; i < WIDTH / TEAM; i++) {
                uint key = min(first + a * TEAMS + team, keys - 1);
                uint col = window * WIDTH + i * TEAM + mate;
                x[a][i] = col < p.d ? v.v[v_at + key * p.v_ld + col] : 0.0;
            }
        [[unroll]] for (uint a = 0; a < AHEAD; a++)
            [[unroll]] for (uint r = 0; r < ROWS; r++) {
                float weight = score[r * RANGE + first + a * TEAMS + team];
                [[unroll]] for (uint i = 0; i < WIDTH / TEAM; i++)
                    sum[r][i] += weight * x[a][i];
            }
    }
    [[unroll]] for (uint r = 0; r < ROWS; r++) {
        [[unroll]] for (uint i = 0; i < WIDTH / TEAM; i++)
            tile[team * WIDTH + i * TEAM + mate] = sum[r][i];
        barrier();
        uint col = window * WIDTH + LANE, t = r / p.share, h = g * p.share + r % p.share;
        uint part = p.parts_at + ((pair * rows + r) * p.splits + range) * (p.d + 2);
        if (r < rows && LANE < WIDTH && col < p.d) {
            float all = 0.0;
            for (uint i = 0; i < TEAMS; i++)
                all += tile[i * WIDTH + LANE];
            if (p.splits == 1)
                y.v[p.y_at + (b * p.time + t) * p.y_ld + h * p.d + col] = all / row_total[r];
            else
                parts.v[part + 2 + col] = all;
        }
        if (r < rows && window == 0 && LANE == 0) {
            uint head = b * p.kv_heads * p.share + h;
            if (p.splits > 1) {
                parts.v[part] = row_most[r];
                parts.v[part + 1] = row_total[r];
            } else if (p.wants_lse != 0) {
                lse.v[p.lse_at + head * p.lse_ld + t] = row_most[r] + log(row_total[r]);
            }
        }
        barrier();
    }
}
