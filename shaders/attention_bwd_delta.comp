#version 450
#extension GL_GOOGLE_include_directive : require
#include "itera.glsl"
#include "args/attention.clh"
#define LANE_BUFFER ITERA_GPU_LOCAL
#include "reduce.glsl"

ARGS(attention_bwd_delta_args)
IN(1, dy)
IN(2, y)
OUT(3, delta)

// delta = dy . y of a head and time step. A workgroup takes 4.
void main()
{
    uint head = THREAD / TEAM, row = head / p.heads, h = head % p.heads;
    float sum = 0.0;
    if (row < p.rows)
        for (uint c = LANE % TEAM; c < p.d; c += TEAM)
            sum += dy.v[p.dy_at + row * p.dy_ld + h * p.d + c] *
                   y.v[p.y_at + row * p.y_ld + h * p.d + c];
    sum = row_sum(sum, TEAM);
    if (row < p.rows && LANE % TEAM == 0)
        delta.v[p.delta_at + (row / p.time * p.heads + h) * p.time + row % p.time] = sum;
}
