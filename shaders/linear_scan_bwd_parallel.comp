#version 450
#extension GL_GOOGLE_include_directive : require
#include "itera.glsl"
#include "scan.glsl"

ARGS(linear_scan_bwd_parallel_args)
IN(1, dh)
IN(2, a)
IN(3, h)
IN(4, starts)
OUT(5, da)
OUT(6, db)

// As linear_scan_parallel; starts (batch, chunks, cols) hold g after each chunk.
void main()
{
    uint piece = GROUP / p.tiles, col = GROUP % p.tiles * p.width + LANE % p.width;
    uint sequence = piece / p.chunks, first = piece % p.chunks * p.chunk;
    uint end = min(first + p.chunk, p.time), last_row = sequence * p.time + p.time - 1;
    bool live = col < p.cols;
    float carry = live && p.has_start != 0 ? starts.v[p.starts_at + piece * p.cols + col] : 0.0;
    for (uint block = first; block < end; block += SCAN_LANES / p.width * SCAN_STEPS) {
        scan_map step[SCAN_STEPS], own = scan_map(1.0, 0.0), total;
        uint s = block + LANE / p.width * SCAN_STEPS, row = last_row - s;
        [[unroll]] for (uint i = 0; i < SCAN_STEPS; i++) {
            bool valid = live && s + i < end;
            step[i].a =
                valid ? (s + i > 0 ? a.v[p.a_at + (row - i + 1) * p.a_ld + col] : 0.0) : 1.0;
            step[i].b = valid ? dh.v[p.dh_at + (row - i) * p.dh_ld + col] : 0.0;
            own = scan_after(step[i], own);
        }
        scan_map before = scan_lanes(own, p.width, total);
        float g = before.a * carry + before.b;
        [[unroll]] for (uint i = 0; i < SCAN_STEPS; i++) {
            g = step[i].a * g + step[i].b;
            if (live && s + i < end) {
                float h_before =
                    s + i + 1 < p.time ? h.v[p.h_at + (row - i - 1) * p.h_ld + col] : 0.0;
                da.v[p.da_at + (row - i) * p.da_ld + col] = g * h_before;
                db.v[p.db_at + (row - i) * p.db_ld + col] = g;
            }
        }
        carry = total.a * carry + total.b;
        barrier();
    }
}
