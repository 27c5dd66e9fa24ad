#version 450
#extension GL_GOOGLE_include_directive : require
#include "wide.glsl"
#include "itera.glsl"
#include "args/rope.clh"

ARGS(rope_args)
IN(1, x)
IN_INT(2, start)
OUT(3, y)

// cos and sin of an angle in units of 2^-32 turns. The nearest quarter turn is taken off, and the
// series serve the rest, pi / 4 at most, to below the precision of f32.
vec2 turn(uint angle)
{
    uint quarter = (angle + 0x20000000u) >> 30;
    float x = float(int(angle - (quarter << 30))) * 1.46291807927e-9, z = x * x;
    float s = x + x * z * (-1.0 / 6.0 + z * (1.0 / 120.0 + z * (-1.0 / 5040.0 + z / 362880.0)));
    float c = 1.0 - 0.5 * z + z * z * (1.0 / 24.0 + z * (-1.0 / 720.0 + z / 40320.0));
    switch (quarter) {
    case 1:
        return vec2(-s, c);
    case 2:
        return vec2(-c, -s);
    case 3:
        return vec2(s, -c);
    default:
        return vec2(c, s);
    }
}

// The lower half of a product.
uvec2 multiply_low_wide(uvec2 a, uvec2 b)
{
    uvec2 low = multiply_wide(a.x, b.x);
    return uvec2(low.x, low.y + a.x * b.y + a.y * b.x);
}

// An invocation rotates the same pair of up to `take` heads at one position. Angles are integers:
// fractions of a turn in units of 2^-64, right after however many positions.
void main()
{
    uint pair = THREAD % p.half_width, block = THREAD / p.half_width % p.blocks;
    uint row = THREAD / p.half_width / p.blocks;
    if (row >= p.rows)
        return;
    // theta^(-2 pair / d) / (2 pi): the exponent of 1 / 2 in units of 2^-56
    uvec2 z = multiply_low_wide(uvec2(p.step_low, p.step_high), uvec2(pair, 0));
    const uvec2 four_over_two_pi = uvec2(0x4e441529u, 0xa2f9836eu); // in units of 2^-64
    uint whole = z.y >> 24;
    uvec2 turns = uvec2(0);
    if (whole < 63)
        turns = right_wide(multiply_high_wide(power_of_half(left_wide(z, 8)), four_over_two_pi),
                           whole + 1);
    uvec2 position = uvec2(row % p.time, 0);
    if (p.started != 0) {
        int first = start.v[p.start_at + row / p.time];
        position = add_wide(position, uvec2(first, first >> 31));
    }
    vec2 r = turn(multiply_low_wide(turns, position).y);
    if (p.inverse != 0)
        r.y = -r.y;
    uint last = min((block + 1) * p.take, p.heads);
    for (uint h = block * p.take; h < last; h++) {
        uint col = h * 2 * p.half_width + pair;
        uint from = p.x_at + row * p.x_ld + col, to = p.y_at + row * p.y_ld + col;
        float a = x.v[from], b = x.v[from + p.half_width];
        y.v[to] = a * r.x - b * r.y;
        y.v[to + p.half_width] = b * r.x + a * r.y;
    }
}
