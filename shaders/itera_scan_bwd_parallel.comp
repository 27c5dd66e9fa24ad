#version 450
#extension GL_GOOGLE_include_directive : require
#define SCAN_COLUMNS 1
#include "itera.glsl"
#include "scan.glsl"

ARGS(itera_scan_bwd_parallel_args)
IN(1, dh)
IN(2, d)
IN(3, A)
IN(4, u)
IN(5, h)
IN(6, starts)
OUT(7, dd_parts)
OUT(8, dA_parts)
OUT(9, du)

// A workgroup takes `width` states of a chunk of a sequence, tile by tile of time; starts (batch,
// chunks, cols) hold g after each chunk.
void main()
{
    uint tile = GROUP % p.tiles, col = tile * p.width + LANE % p.width;
    uint piece = GROUP / p.tiles, sequence = piece / p.chunks;
    uint first = piece % p.chunks * p.chunk, end = min(first + p.chunk, p.time);
    uint last_row = sequence * p.time + p.time - 1;
    bool live = col < p.cols;
    float rate = live ? A.v[p.A_at + col] : 0.0, sum_a = 0.0;
    float carry = live && p.has_start != 0 ? starts.v[p.starts_at + piece * p.cols + col] : 0.0;
    for (uint block = first; block < end; block += SCAN_LANES / p.width * SCAN_STEPS) {
        scan_map step[SCAN_STEPS], own = scan_map(1.0, 0.0), total;
        uint s = block + LANE / p.width * SCAN_STEPS, row = last_row - s;
        [[unroll]] for (uint i = 0; i < SCAN_STEPS; i++) {
            bool valid = live && s + i < end;
            float later = valid && s + i > 0 ? d.v[p.d_at + (row - i + 1) * p.d_ld] : 0.0;
            step[i].a = exp(later * rate);
            step[i].b = valid ? dh.v[p.dh_at + (row - i) * p.dh_ld + col] : 0.0;
            own = scan_after(step[i], own);
        }
        scan_map before = scan_lanes(own, p.width, total);
        float g = before.a * carry + before.b;
        [[unroll]] for (uint i = 0; i < SCAN_STEPS; i++) {
            bool valid = live && s + i < end;
            g = step[i].a * g + step[i].b;
            float sum_d = 0.0;
            if (valid) {
                float delta = d.v[p.d_at + (row - i) * p.d_ld], w = 0.0;
                if (s + i + 1 < p.time)
                    w = exp(delta * rate) * h.v[p.h_at + (row - i - 1) * p.h_ld + col];
                sum_d = g * (u.v[p.u_at + (row - i) * p.u_ld + col] + rate * w);
                sum_a += g * delta * w;
                du.v[p.du_at + (row - i) * p.du_ld + col] = delta * g;
            }
            sums[i * SCAN_LANES + LANE] = sum_d;
        }
        carry = total.a * carry + total.b;
        scan_sum_columns(p.width, 0);
        if (LANE % p.width == 0)
            [[unroll]] for (uint i = 0; i < SCAN_STEPS && s + i < end; i++)
                dd_parts.v[p.dd_parts_at + (tile * p.batch * p.time + row - i) * p.dd_ld] =
                    sums[i * SCAN_LANES + LANE];
        barrier();
    }
    sum_a = scan_sum_rows(sum_a, p.width);
    if (live && LANE < p.width)
        dA_parts.v[p.dA_parts_at + piece * p.cols + col] = sum_a;
}
