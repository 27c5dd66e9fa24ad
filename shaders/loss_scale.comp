#version 450
#extension GL_GOOGLE_include_directive : require
#include "itera.glsl"
#include "args/precision.clh"

ARGS(loss_scale_args)
INOUT(1, scale)
IN(2, norm)

// One invocation does it.
void main()
{
    if (THREAD != 0u)
        return;
    float value = scale.v[p.scale_at], steps = scale.v[p.scale_at + 1u] + 1.0;
    if (norm.v[p.norm_at + 1u] == 0.0) {
        value = max(value * 0.5, 1.0);
        steps = 0.0;
    } else if (steps >= float(p.count)) {
        value = min(value * 2.0, 16777216.0);
        steps = 0.0;
    }
    scale.v[p.scale_at] = value;
    scale.v[p.scale_at + 1u] = steps;
}
