#version 450
#extension GL_GOOGLE_include_directive : require
#include "sample.glsl"

ARGS(sample_weigh_args)
IN_INT(1, logits)
IN_INT(2, params)
OUT_INT(3, best)
OUT_INT(4, powers)

// A workgroup takes a segment of a row: its best token and, for a draw, the powers with which its
// logits lie below that one's.
void main()
{
    if (GROUP >= p.groups)
        return;
    uint row = GROUP / p.segments, begin = GROUP % p.segments * SEGMENT;
    uint end = min(begin + SEGMENT, p.vocabulary), logits_at = p.logits_at + row * p.logits_ld;
    uvec2 most = uvec2(0);
    for (uint i = begin + LANE; i < end; i += LANES)
        most = larger_of(most, token_of(key_of(logits.v[logits_at + i]), i));
    most = group_best(most);
    if (LANE == 0) {
        best.v[p.best_at + 2 * GROUP] = int(most.x);
        best.v[p.best_at + 2 * GROUP + 1] = int(most.y);
    }
    int temperature = params.v[p.params_at + row * p.params_ld];
    if (is_greedy(temperature))
        return;
    Slope slope = slope_of(uint(temperature));
    for (uint i = begin + LANE; i < end; i += LANES) {
        uvec2 power = power_of(key_of(logits.v[logits_at + i]), most.y, slope);
        uint at = p.powers_at + 2 * (row * p.vocabulary + i);
        powers.v[at] = int(power.x);
        powers.v[at + 1] = int(power.y);
    }
}
