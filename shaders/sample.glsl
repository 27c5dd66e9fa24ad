// What the passes of sample share. Tokens must be those of the reference, which sums weights in
// double, so weights are integers here: exp((logit - max) / temperature) in units of 2^-44, worked
// out without floats. Their sums are exact and the same in any order. Logits are compared as
// integers too: a larger key is a larger logit. Order among tokens is by key from the largest down,
// then by id. 64-bit numbers are uvec2, (low, high).
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

// The best token of a row from those of its segments, into `most`.
#define BEST_OF_ROW(most, row)                                                                     \
    uvec2 most = uvec2(0);                                                                         \
    for (uint i = LANE; i < p.segments; i += LANES) {                                              \
        uint at = p.best_at + 2 * ((row) * p.segments + i);                                        \
        most = larger_of(most, uvec2(best.v[at], best.v[at + 1]));                                 \
    }                                                                                              \
    most = group_best(most);

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

#endif
