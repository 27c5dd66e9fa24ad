#version 450
#extension GL_GOOGLE_include_directive : require
#include "sample.glsl"

ARGS(sample_weigh_args)
IN_INT(1, logits)
IN_INT(2, params)
IN_INT(3, best)
OUT_INT(4, weights)

#define POSSIBLE    0x80000000u // in the upper half: the weight is not 0 in double

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

// exp((x - max) / temperature) with POSSIBLE, x and max given by their keys.
uvec2 weight_of(uint key, uint max_key, Slope slope)
{
    const uvec2 one = uvec2(0, 1u << (WEIGHT_BITS - 32) | POSSIBLE);
    uint x = bits_of_key(key), most = bits_of_key(max_key);
    if (key == 0)
        return uvec2(0);
    if (key == max_key)
        return one;
    if (most == 0x7f800000u || x == 0xff800000u)
        return uvec2(0);
    if (slope.infinite)
        return one;
    Parts a = parts_of(most), b = parts_of(x);
    int exponent = max(a.exponent, b.exponent);
    uvec2 gap = subtract_wide(aligned(a, exponent, most), aligned(b, exponent, x)); // max - x
    int zeros = gap.y != 0 ? 31 - findMSB(gap.y) : 63 - findMSB(gap.x);
    // (max - x) log2(e) / temperature in units of 2^-51
    int shift = slope.exponent - (exponent - 188 - zeros) - 29;
    if (shift < 0)
        return uvec2(0);
    uvec2 z = uvec2(0);
    if (shift < 64)
        z = right_wide(multiply_high_wide(left_wide(gap, uint(zeros)), slope.scale), uint(shift));
    uint whole = z.y >> 19;
    if (whole > WEIGHT_BITS)
        return uvec2(0, whole < 1075 ? POSSIBLE : 0);
    uvec2 power = power_of_half(left_wide(z, 13));
    uint drop = 63 - WEIGHT_BITS + whole;
    uvec2 weight = right_wide(add_wide(power, left_wide(uvec2(1, 0), drop - 1)), drop);
    return uvec2(weight.x, weight.y | POSSIBLE);
}

// A workgroup weighs a segment of a row.
void main()
{
    if (GROUP >= p.groups)
        return;
    uint row = GROUP / p.segments, begin = GROUP % p.segments * SEGMENT;
    uint end = min(begin + SEGMENT, p.vocabulary);
    int temperature = params.v[p.params_at + row * p.params_ld];
    if (is_greedy(temperature))
        return;
    BEST_OF_ROW(most, row)
    Slope slope = slope_of(uint(temperature));
    for (uint i = begin + LANE; i < end; i += LANES) {
        uint key = key_of(logits.v[p.logits_at + row * p.logits_ld + i]);
        uvec2 weight = weight_of(key, most.y, slope);
        uint at = p.weights_at + 2 * (row * p.vocabulary + i);
        weights.v[at] = int(weight.x);
        weights.v[at + 1] = int(weight.y);
    }
}
