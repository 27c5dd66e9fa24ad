#version 450
#extension GL_GOOGLE_include_directive : require
#include "itera.glsl"
#include "scan.glsl"

ARGS(linear_scan_bwd_chunk_args)
IN(1, dh)
IN(2, a)
OUT(3, decay)
OUT(4, ends)

// As linear_scan_chunk.
void main()
{
    uint piece = GROUP / p.tiles, col = GROUP % p.tiles * p.width + LANE % p.width;
    uint sequence = piece / p.chunks, first = piece % p.chunks * p.chunk;
    uint end = min(first + p.chunk, p.time), rows = SCAN_LANES / p.width;
    uint share = (p.chunk + rows - 1) / rows, lane_first = first + LANE / p.width * share;
    bool live = col < p.cols;
    scan_map own = scan_map(1.0, 0.0), total;
    for (uint i = 0; i < share; i++) {
        uint s = lane_first + i, row = sequence * p.time + p.time - 1 - s;
        if (live && s < end) {
            scan_map step = scan_map(s > 0 ? a.v[p.a_at + (row + 1) * p.a_ld + col] : 0.0,
                                    dh.v[p.dh_at + row * p.dh_ld + col]);
            own = scan_after(step, own);
        }
    }
    scan_lanes(own, p.width, total);
    if (live && LANE < p.width) {
        decay.v[p.decay_at + piece * p.cols + col] = total.a;
        ends.v[p.ends_at + piece * p.cols + col] = total.b;
    }
}
