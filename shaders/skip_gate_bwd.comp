#version 450
#extension GL_GOOGLE_include_directive : require
#include "elementwise.glsl"
#define LANE_BUFFER ITERA_GPU_LOCAL
#include "reduce.glsl"

ARGS(skip_gate_bwd_args)
IN(1, dy)
IN(2, c)
IN(3, x)
IN(4, d)
IN(5, z)
OUT(6, dc)
OUT(7, dx)
OUT(8, sums) // dd of each block of rows
OUT(9, dz)

void main()
{
    uint col = BLOCK_COL, stride = LANES >> p.shift, block = BLOCK_INDEX;
    float dd = 0.0;
    if (col < p.cols) {
        float factor = d.v[p.d_at + col];
        for (uint r = BLOCK_ROW; r < BLOCK_END; r += stride) {
            float g = dy.v[p.dy_at + r * p.dy_ld + col], v = x.v[p.x_at + r * p.x_ld + col];
            if (p.gated != 0) {
                float gate = z.v[p.z_at + r * p.z_ld + col];
                if (p.want_dz != 0) {
                    float t = c.v[p.c_at + r * p.c_ld + col] + factor * v;
                    dz.v[p.dz_at + r * p.dz_ld + col] = g * t * silu_slope(gate);
                }
                g *= silu_of(gate);
            }
            dd += g * v;
            dc.v[p.dc_at + r * p.dc_ld + col] = g;
            dx.v[p.dx_at + r * p.dx_ld + col] = g * factor;
        }
    }
    dd = stack_sum(dd, p.shift);
    if (col < p.cols && LANE >> p.shift == 0 && block * p.block_rows < max(p.rows, 1))
        sums.v[p.sums_at + block * p.cols + col] = dd;
}
