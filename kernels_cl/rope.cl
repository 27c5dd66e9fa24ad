/* The rotary position embedding: see host/ops/attention.c for its contract. */
#include "args/rope.clh"
#include "itera.clh"
#include "wide.clh"

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
