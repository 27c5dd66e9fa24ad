#version 450
#extension GL_GOOGLE_include_directive : require
#include "attention.glsl"

ARGS(attention_args)
IN(1, q)
IN(2, k)
IN(3, v)
IN_INT(4, start)
OUT(5, y)
OUT(6, lse)
OUT(7, parts)

shared float partial[MAX_TILE_ROWS * (SIDE_X + 1)];
shared uint row_at[MAX_TILE_ROWS];

// A workgroup takes a tile of the rows of a sequence and key head, a window of the columns, and a
// range of `split` keys. Where there are several ranges its result goes to `parts`, for
// attention_merge: maximum, sum, and the weighted values (not divided by it).
void main()
{
    uint window = GROUP % p.windows, range = GROUP / p.windows % p.splits;
    uint pair = GROUP / p.windows / p.splits % p.pairs;
    uint tile = GROUP / p.windows / p.splits / p.pairs;
    if (tile >= p.tiles)
        return;
    tile = p.tiles - 1 - tile; // those with the most keys first
    uint b = pair / p.kv_heads, g = pair % p.kv_heads;
    uint row0 = tile * ROWS, rows = min(p.time * p.share - row0, ROWS);
    uint before = p.started != 0 ? uint(max(start.v[p.start_at + b], 0)) : 0;
    uint q_at = p.q_at + b * p.time * p.q_ld + g * p.share * p.d;
    uint k_at = p.k_at + b * p.keys * p.k_ld + g * p.d;
    uint v_at = p.v_at + b * p.keys * p.v_ld + g * p.d;
    FIND_ROWS(row_at, row0, p.q_ld)
    barrier();

    float sum[MAX_TILE_ROWS / SIDE_Y][MAX_WIDTH / SIDE_X], most[MAX_TILE_ROWS / SIDE_Y];
    float total[MAX_TILE_ROWS / SIDE_Y];
    uint limit[MAX_TILE_ROWS / SIDE_Y]; // the keys of a row
    [[unroll]] for (uint i = 0; i < ROWS / SIDE_Y; i++) {
        uint row = Y + SIDE_Y * i;
        limit[i] = row < rows ? min(before + (row0 + row) / p.share + 1, p.keys) : 0;
        most[i] = NOTHING;
        total[i] = 0.0;
        [[unroll]] for (uint j = 0; j < WIDTH / SIDE_X; j++)
            sum[i][j] = 0.0;
    }
    uint end = min(before + (row0 + rows - 1) / p.share + 1, p.keys);
    end = min(end, (range + 1) * p.split);
    for (uint key0 = range * p.split; key0 < end; key0 += KEYS) {
        uint keys = min(end - key0, KEYS);
        TILE_SCORES(q, q_at, row_at, rows, k, k_at + key0 * p.k_ld, p.k_ld, keys)
        [[unroll]] for (uint i = 0; i < ROWS / SIDE_Y; i++) {
            float here = NOTHING;
            [[unroll]] for (uint j = 0; j < KEYS / SIDE_X; j++) {
                bool seen = key0 + X + SIDE_X * j < min(limit[i], end);
                score[i][j] = seen ? score[i][j] * p.scale : NOTHING;
                here = max(here, score[i][j]);
            }
            partial[(Y + SIDE_Y * i) * (SIDE_X + 1) + X] = here;
        }
        barrier();
        [[unroll]] for (uint i = 0; i < ROWS / SIDE_Y; i++) {
            float now = most[i];
            for (uint j = 0; j < SIDE_X; j++)
                now = max(now, partial[(Y + SIDE_Y * i) * (SIDE_X + 1) + j]);
            float base = now == NOTHING ? 0.0 : now, shrink = exp(most[i] - base);
            most[i] = now;
            total[i] *= shrink;
            [[unroll]] for (uint j = 0; j < KEYS / SIDE_X; j++) {
                float weight = exp(score[i][j] - base);
                total[i] += weight;
                row_tile[(Y + SIDE_Y * i) * PITCH + X + SIDE_X * j] = weight;
            }
            [[unroll]] for (uint j = 0; j < WIDTH / SIDE_X; j++)
                sum[i][j] *= shrink;
        }
        ADD_VALUES(sum, v, v_at + key0 * p.v_ld, p.v_ld, keys, window * WIDTH)
    }

    [[unroll]] for (uint i = 0; i < ROWS / SIDE_Y; i++)
        partial[(Y + SIDE_Y * i) * (SIDE_X + 1) + X] = total[i];
    barrier();
    [[unroll]] for (uint i = 0; i < ROWS / SIDE_Y; i++) {
        uint row = Y + SIDE_Y * i;
        if (row >= rows)
            break;
        total[i] = 0.0;
        for (uint j = 0; j < SIDE_X; j++)
            total[i] += partial[row * (SIDE_X + 1) + j];
        row += row0;
        uint t = row / p.share, h = g * p.share + row % p.share;
        bool first = window == 0 && X == 0;
        if (p.splits == 1) {
            uint to = p.y_at + (b * p.time + t) * p.y_ld + h * p.d;
            if (first && p.wants_lse != 0)
                lse.v[p.lse_at + (b * p.kv_heads * p.share + h) * p.lse_ld + t] =
                    most[i] + log(total[i]);
            [[unroll]] for (uint j = 0; j < WIDTH / SIDE_X; j++) {
                uint col = window * WIDTH + X + SIDE_X * j;
                if (col < p.d)
                    y.v[to + col] = sum[i][j] / total[i];
            }
        } else {
            uint to = p.parts_at +
                      ((pair * p.time * p.share + row) * p.splits + range) * (p.d + 2);
            if (first) {
                parts.v[to] = most[i];
                parts.v[to + 1] = total[i];
            }
            [[unroll]] for (uint j = 0; j < WIDTH / SIDE_X; j++) {
                uint col = window * WIDTH + X + SIDE_X * j;
                if (col < p.d)
                    parts.v[to + 2 + col] = sum[i][j];
            }
        }
    }
}
