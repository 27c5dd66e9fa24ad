#version 450
#extension GL_GOOGLE_include_directive : require
#include "itera.glsl"
#include "args/sample.clh"
#include "advance.glsl"

ARGS(advance_args)
INOUT_INT(1, start)

// A workgroup takes 128 sequences.
void main()
{
    if (THREAD >= p.batch)
        return;
    start.v[p.start_at + THREAD] = advanced(start.v[p.start_at + THREAD], p.count);
}
