#version 450
#extension GL_GOOGLE_include_directive : require
#include "itera.glsl"
#include "scan.glsl"

ARGS(linear_scan_bwd_sequential_args)
IN(1, dh)
IN(2, a)
IN(3, h)
OUT(4, da)
OUT(5, db)

// As linear_scan_sequential.
void main()
{
    uint sequence = THREAD / p.cols, col = THREAD % p.cols;
    if (sequence >= p.batch)
        return;
    float flow = 0.0; // a.v[t+1] g[t+1]
    for (uint first = 0; first < p.time; first += SCAN_STEPS) {
        float decay[SCAN_STEPS], inflow[SCAN_STEPS], before[SCAN_STEPS];
        uint row = sequence * p.time + p.time - 1 - first;
        [[unroll]] for (uint i = 0; i < SCAN_STEPS; i++)
            if (first + i < p.time) {
                decay[i] = a.v[p.a_at + (row - i) * p.a_ld + col];
                inflow[i] = dh.v[p.dh_at + (row - i) * p.dh_ld + col];
                before[i] =
                    first + i + 1 < p.time ? h.v[p.h_at + (row - i - 1) * p.h_ld + col] : 0.0;
            }
        [[unroll]] for (uint i = 0; i < SCAN_STEPS; i++)
            if (first + i < p.time) {
                float g = inflow[i] + flow;
                da.v[p.da_at + (row - i) * p.da_ld + col] = g * before[i];
                db.v[p.db_at + (row - i) * p.db_ld + col] = g;
                flow = decay[i] * g;
            }
    }
}
