#version 450
#extension GL_GOOGLE_include_directive : require
#define SCAN_COLUMNS 1
#include "itera.glsl"
#include "scan.glsl"

ARGS(itera_scan_bwd_sequential_args)
IN(1, dh)
IN(2, d)
IN(3, A)
IN(4, u)
IN(5, h)
OUT(6, dd_parts)
OUT(7, dA_parts)
OUT(8, du)

// A workgroup takes `width` states of 128 / width sequences.
void main()
{
    uint tile = GROUP % p.tiles, col = tile * p.width + LANE % p.width;
    uint sequence = GROUP / p.tiles * (SCAN_LANES / p.width) + LANE / p.width;
    bool live = sequence < p.batch && col < p.cols;
    float rate = live ? A.v[p.A_at + col] : 0.0;
    float flow = 0.0, sum_a = 0.0; // flow: e[t+1] g[t+1]
    for (uint first = 0; first < p.time; first += SCAN_STEPS) {
        float delta[SCAN_STEPS], inflow[SCAN_STEPS], drive[SCAN_STEPS], before[SCAN_STEPS];
        uint row = sequence * p.time + p.time - 1 - first;
        [[unroll]] for (uint i = 0; i < SCAN_STEPS; i++) {
            bool valid = live && first + i < p.time, has_before = live && first + i + 1 < p.time;
            delta[i] = valid ? d.v[p.d_at + (row - i) * p.d_ld] : 0.0;
            inflow[i] = valid ? dh.v[p.dh_at + (row - i) * p.dh_ld + col] : 0.0;
            drive[i] = valid ? u.v[p.u_at + (row - i) * p.u_ld + col] : 0.0;
            before[i] = has_before ? h.v[p.h_at + (row - i - 1) * p.h_ld + col] : 0.0;
        }
        [[unroll]] for (uint i = 0; i < SCAN_STEPS; i++) {
            float e = exp(delta[i] * rate), g = inflow[i] + flow, w = e * before[i];
            sum_a += g * delta[i] * w;
            sums[i * SCAN_LANES + LANE] = g * (drive[i] + rate * w);
            if (live && first + i < p.time)
                du.v[p.du_at + (row - i) * p.du_ld + col] = delta[i] * g;
            flow = e * g;
        }
        scan_sum_columns(p.width, 0);
        if (sequence < p.batch && LANE % p.width == 0)
            [[unroll]] for (uint i = 0; i < SCAN_STEPS && first + i < p.time; i++)
                dd_parts.v[p.dd_parts_at + (tile * p.batch * p.time + row - i) * p.dd_ld] =
                    sums[i * SCAN_LANES + LANE];
        barrier();
    }
    if (live)
        dA_parts.v[p.dA_parts_at + sequence * p.cols + col] = sum_a;
}
