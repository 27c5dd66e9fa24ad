#version 450
#extension GL_GOOGLE_include_directive : require
#include "optimizer.glsl"

ARGS(grad_norm_parts_args)
IN(1, grad)
OUT(2, parts)

// The workgroups go through all elements with the stride of the grid.
void main()
{
    Squares s = Squares(0.0, 0.0, 0.0, 0.0);
    for (uint i = THREAD; i < p.rows * p.cols; i += p.groups * LANES) {
        uint row = p.rows > 1 ? i / p.cols : 0;
        add_square(s, grad.v[p.grad_at + row * p.grad_ld + i - row * p.cols]);
    }
    s = group_squares(s);
    if (LANE > 0)
        return;
    uint at = p.parts_at + 4 * GROUP;
    parts.v[at] = s.small;
    parts.v[at + 1] = s.middle;
    parts.v[at + 2] = s.big;
    parts.v[at + 3] = s.bad;
}
