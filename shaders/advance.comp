#version 450
#extension GL_GOOGLE_include_directive : require
#include "itera.glsl"
#include "args/sample.clh"

ARGS(advance_args)
INOUT_INT(1, start)

// A workgroup takes 128 sequences.
void main()
{
    if (THREAD >= p.batch)
        return;
    int x = start.v[p.start_at + THREAD], sum = x + p.count; // wraps around
    if (p.count > 0 && sum < x)
        sum = 0x7fffffff;
    if (p.count < 0 && sum > x)
        sum = int(0x80000000u);
    start.v[p.start_at + THREAD] = sum;
}
