// What the shaders of ssd_scan and its gradient share: the cut into chunks, decays between the
// steps of a chunk, and products of 64 x 64 tiles. kernels_cl/scan_ssd.clh is its twin.
#ifndef ITERA_SCAN_SSD_GLSL
#define ITERA_SCAN_SSD_GLSL
#include "args/scan_ssd.clh"

#define SSD_DEPTH 16 // of a product between barriers

// The first step of chunk k, and how many it has.
#define SSD_FIRST(k) ((k) / p.parts * p.boundary_steps + (k) % p.parts * p.chunk_steps)
#define SSD_COUNT(k)                                                                               \
    (min(min(SSD_FIRST(k) + p.chunk_steps, ((k) / p.parts + 1) * p.boundary_steps), p.time) -      \
     SSD_FIRST(k))

// A sum kept as two floats, since the difference of two large sums that lie close must be exact.
vec2 ssd_add(vec2 a, vec2 b)
{
    precise float sum = a.x + b.x;
    precise float part = sum - a.x;
    precise float low = (a.x - (sum - part)) + (b.x - part) + (a.y + b.y);
    precise float high = sum + low;
    precise float rest = low - (high - sum);
    return vec2(high, rest);
}

shared vec2 cum[SSD_STEPS];
shared float steps[SSD_STEPS];

// cum[t] = the sum of dt A from the chunk's first step to t, and steps[t] = dt[t]; `dt` is that of
// the lane's step, 0 beyond the chunk. All lanes call, after the last use of cum.
void ssd_cumulate(float dt, float rate)
{
    vec2 own = vec2(dt * rate, 0.0);
    if (LANE < SSD_STEPS) {
        cum[LANE] = own;
        steps[LANE] = dt;
    }
    barrier();
    for (uint distance = 1; distance < SSD_STEPS; distance *= 2) {
        bool has = LANE >= distance && LANE < SSD_STEPS;
        vec2 before = has ? cum[LANE - distance] : vec2(0.0);
        barrier();
        if (has) {
            own = ssd_add(own, before);
            cum[LANE] = own;
        }
        barrier();
    }
}

// What is left at a later step of the state after an earlier one.
float ssd_decay(vec2 later, vec2 earlier)
{
    precise float high = later.x - earlier.x;
    precise float low = later.y - earlier.y;
    return exp(high + low);
}

// A product of tiles: acc += left (64, 16) right (16, 64). Lane i keeps rows i / 16 * 8 and the
// seven after it of columns i % 16 + 16 j, so that neighbouring lanes store neighbouring columns.
// left has 4 rows in each vec4; both are padded.
#define SSD_ROW          (LANE / 16 * 8)
#define SSD_COLUMN(j)    (LANE % 16 + 16 * (j))
#define SSD_LEFT(row, k) left[(k) * 17 + (row) / 4][(row) % 4]
#define SSD_RIGHT(k, c)  right[(k) * 65 + (c)]
// another use: (64, 16)
#define SSD_BLOCK(row, c) left[((row) * 17 + (c)) / 4][((row) * 17 + (c)) % 4]
shared vec4 left[SSD_DEPTH * 17];
shared float right[SSD_DEPTH * 65];

struct ssd_tile {
    vec4 low[4], high[4]; // rows 0 to 3 and 4 to 7 of column j
};

void ssd_clear(out ssd_tile acc)
{
    [[unroll]] for (uint j = 0; j < 4; j++)
        acc.low[j] = acc.high[j] = vec4(0.0);
}

void ssd_multiply(inout ssd_tile acc)
{
    // Four at a time: more would only be more code.
    [[dont_unroll]]
    for (uint first = 0; first < SSD_DEPTH; first += 4)
        [[unroll]] for (uint k = first; k < first + 4; k++) {
            vec4 low = left[k * 17 + LANE / 16 * 2], high = left[k * 17 + LANE / 16 * 2 + 1];
            [[unroll]] for (uint j = 0; j < 4; j++) {
                float r = SSD_RIGHT(k, SSD_COLUMN(j));
                acc.low[j] += low * r;
                acc.high[j] += high * r;
            }
        }
}

// Row i (0 to 7) of the lane's column j.
float ssd_get(ssd_tile acc, uint i, uint j)
{
    return i < 4 ? acc.low[j][i % 4] : acc.high[j][i % 4];
}

// Column j becomes column j - 1, and the first one the last: for loops over columns that are not
// unrolled.
void ssd_turn(inout ssd_tile acc)
{
    vec4 low = acc.low[0], high = acc.high[0];
    [[unroll]] for (uint j = 0; j < 3; j++) {
        acc.low[j] = acc.low[j + 1];
        acc.high[j] = acc.high[j + 1];
    }
    acc.low[3] = low;
    acc.high[3] = high;
}

// For lane i below 64, the sum of row i; v are the lane's sums over its columns of its rows.
float ssd_row_sum(float v[8])
{
    float sum = 0.0;
    [[unroll]] for (uint i = 0; i < 8; i++)
        SSD_BLOCK(SSD_ROW + i, LANE % 16) = v[i];
    barrier();
    if (LANE < SSD_STEPS)
        for (uint c = 0; c < 16; c++)
            sum += SSD_BLOCK(LANE, c);
    barrier();
    return sum;
}

#endif
