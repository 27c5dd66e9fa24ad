// What the kernels of sample share. Tokens must be those of the reference, which sums weights in
// double, so weights are integers here: exp((logit - max) / temperature) in units of 2^-44, worked
// out without floats. Their sums are exact and the same in any order. sample_weigh works them out for
// the maximum of a segment, since nobody knows the row's yet; sample multiplies them by that
// segment's own. Logits are compared as integers too: a larger key is a larger logit. Order among
// tokens is by key from the largest down, then by id. 64-bit numbers are uvec2, (low, high).
#ifndef ITERA_SAMPLE_GLSL
#define ITERA_SAMPLE_GLSL
#include "itera.glsl"
#include "args/sample.clh"
#include "wide.glsl"

// A number for each invocation.
shared uint lane_low[MAX_LOCAL], lane_high[MAX_LOCAL];

// 0 for NaN; -0 and 0 are equal.
uint key_of(int logit)
{
    uint bits = uint(logit);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return 0;
    if (bits == 0x80000000u)
        bits = 0;
    return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

// Bits of the logit with this key
uint bits_of_key(uint key)
{
    return (key & 0x80000000u) != 0 ? key ^ 0x80000000u : ~key;
}

// 0, below and NaN
bool is_greedy(int temperature)
{
    return temperature <= 0 || temperature > 0x7f800000;
}

uvec2 larger_of(uvec2 a, uvec2 b)
{
    return less_wide(a, b) ? b : a;
}

// A token as its key, then its id in reverse: the first of the largest logits is the maximum.
uvec2 token_of(uint key, uint id)
{
    return uvec2(~id, key);
}

// The maximum over the workgroup, in all lanes.
uvec2 group_best(uvec2 best)
{
    lane_low[LANE] = best.x;
    lane_high[LANE] = best.y;
    for (uint n = LANES / 2; n > 0; n /= 2) {
        barrier();
        if (LANE < n) {
            best = larger_of(best, uvec2(lane_low[LANE + n], lane_high[LANE + n]));
            lane_low[LANE] = best.x;
            lane_high[LANE] = best.y;
        }
    }
    barrier();
    best = uvec2(lane_low[0], lane_high[0]);
    barrier();
    return best;
}

// magnitude 2^(exponent - 150)
struct Parts {
    uint magnitude;
    int exponent;
};

Parts parts_of(uint bits)
{
    Parts f = Parts(bits & 0x7fffffu, int(bits >> 23 & 0xffu));
    if (f.exponent == 0)
        f.exponent = 1;
    else
        f.magnitude |= 0x800000u;
    return f;
}

// 1 / temperature in powers of two: scale 2^-(64 + 22 + exponent) of log2(e) / temperature
struct Slope {
    uvec2 scale;
    int exponent;
    bool infinite; // temperature
};

Slope slope_of(uint temperature)
{
    Parts t = parts_of(temperature);
    while (t.magnitude < 0x800000u) {
        t.magnitude <<= 1;
        t.exponent--;
    }
    const uvec2 log2_e = uvec2(0xae0bf85du, 0x5c551d94u); // in units of 2^-62
    Slope s = Slope(uvec2(0), t.exponent - 150, temperature == 0x7f800000u);
    // log2_e 2^24 / magnitude by long division, eight bits at a time
    uint rest = 0;
    [[dont_unroll]] // a division is long code on GPUs
    for (int i = 7; i > -4; i--) {
        rest = rest << 8 | (i < 0 ? 0 : right_wide(log2_e, 8 * uint(max(i, 0))).x & 0xffu);
        s.scale = left_wide(s.scale, 8);
        s.scale.x |= rest / t.magnitude;
        rest %= t.magnitude;
    }
    return s;
}

// The mantissa 38 bits below the point of a number with a larger exponent, with its sign.
uvec2 aligned(Parts f, int exponent, uint bits)
{
    uint right = uint(min(exponent - f.exponent, 63));
    uvec2 m = right_wide(left_wide(uvec2(f.magnitude, 0), 38), right);
    return bits >> 31 != 0 ? subtract_wide(uvec2(0), m) : m;
}

// A power: the fraction (0.5 to 1, in units of 2^-52) and above it how often it is halved, at most
// 2047, which is 0.
#define POWER_ONE  uvec2(0, 1u << 20)
#define POWER_ZERO uvec2(0, 2047u << 21)

// exp((x - max) / temperature), x and max given by their keys.
uvec2 power_of(uint key, uint max_key, Slope slope)
{
    uint x = bits_of_key(key), most = bits_of_key(max_key);
    if (key == 0)
        return POWER_ZERO;
    if (key == max_key)
        return POWER_ONE;
    if (most == 0x7f800000u || x == 0xff800000u)
        return POWER_ZERO;
    if (slope.infinite)
        return POWER_ONE;
    Parts a = parts_of(most), b = parts_of(x);
    int exponent = max(a.exponent, b.exponent);
    uvec2 gap = subtract_wide(aligned(a, exponent, most), aligned(b, exponent, x)); // max - x
    int zeros = gap.y != 0 ? 31 - findMSB(gap.y) : 63 - findMSB(gap.x);
    // (max - x) log2(e) / temperature in units of 2^-51
    int shift = slope.exponent - (exponent - 188 - zeros) - 29;
    if (shift < 0)
        return POWER_ZERO;
    uvec2 z = uvec2(0);
    if (shift < 64)
        z = right_wide(multiply_high_wide(left_wide(gap, uint(zeros)), slope.scale), uint(shift));
    uvec2 power = right_wide(power_of_half(left_wide(z, 13)), 11);
    return uvec2(power.x, power.y | min(z.y >> 19, 2047u) << 21);
}

#endif
