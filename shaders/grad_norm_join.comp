#version 450
#extension GL_GOOGLE_include_directive : require
#include "optimizer.glsl"

ARGS(grad_norm_join_args)
IN(1, parts)
OUT(2, norm)

// One workgroup joins the sums.
void main()
{
    Squares s = Squares(0.0, 0.0, 0.0, 0.0);
    for (uint i = LANE; i < p.groups; i += LANES) {
        uint at = p.parts_at + 4 * i;
        s.small += parts.v[at];
        s.middle += parts.v[at + 1];
        s.big += parts.v[at + 2];
        s.bad = max(s.bad, parts.v[at + 3]);
    }
    s = group_squares(s);
    if (LANE > 0)
        return;
    float root;
    if (s.big > 0.0)
        root = sqrt(s.big + s.middle * DOWN * DOWN) * UP;
    else if (s.middle > 0.0)
        root = sqrt(s.middle + s.small * DOWN * DOWN);
    else
        root = sqrt(s.small) * DOWN;
    if (s.bad > 0.0)
        root = uintBitsToFloat(s.bad > 1.0 ? 0x7fc00000u : 0x7f800000u);
    norm.v[p.norm_at] = root;
    norm.v[p.norm_at + 1] = s.bad > 0.0 ? 0.0 : 1.0;
}
