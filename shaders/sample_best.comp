#version 450
#extension GL_GOOGLE_include_directive : require
#include "sample.glsl"

ARGS(sample_best_args)
IN_INT(1, logits)
OUT_INT(2, best)

// A workgroup takes a segment of a row.
void main()
{
    if (GROUP >= p.groups)
        return;
    uint row = GROUP / p.segments, begin = GROUP % p.segments * SEGMENT;
    uint end = min(begin + SEGMENT, p.vocabulary);
    uvec2 most = uvec2(0);
    for (uint i = begin + LANE; i < end; i += LANES)
        most = larger_of(most, token_of(key_of(logits.v[p.logits_at + row * p.logits_ld + i]), i));
    most = group_best(most);
    if (LANE == 0) {
        best.v[p.best_at + 2 * GROUP] = int(most.x);
        best.v[p.best_at + 2 * GROUP + 1] = int(most.y);
    }
}
