#version 450
#extension GL_GOOGLE_include_directive : require
#include "itera.glsl"
#include "scan.glsl"

ARGS(itera_scan_chunk_args)
IN(1, d)
IN(2, A)
IN(3, u)
OUT(4, decay)
OUT(5, ends)

// A workgroup finds the map of `width` states of a chunk of a sequence: what the chunk leaves of
// its start (decay) and what it leaves from zeros (ends), both (batch, chunks, cols). Each lane
// first goes through its share of the steps.
void main()
{
    uint piece = GROUP / p.tiles, col = GROUP % p.tiles * p.width + LANE % p.width;
    uint sequence = piece / p.chunks, first = piece % p.chunks * p.chunk;
    uint end = min(first + p.chunk, p.time), rows = SCAN_LANES / p.width;
    uint share = (p.chunk + rows - 1) / rows, lane_first = first + LANE / p.width * share;
    bool live = col < p.cols;
    float rate = live ? A.v[p.A_at + col] : 0.0;
    scan_map own = scan_map(1.0, 0.0), total;
    for (uint i = 0; i < share; i++) {
        uint t = lane_first + i, row = sequence * p.time + t;
        if (live && t < end) {
            float delta = d.v[p.d_at + row * p.d_ld];
            scan_map step = scan_map(exp(delta * rate), delta * u.v[p.u_at + row * p.u_ld + col]);
            own = scan_after(step, own);
        }
    }
    scan_lanes(own, p.width, total);
    if (live && LANE < p.width) {
        decay.v[p.decay_at + piece * p.cols + col] = total.a;
        ends.v[p.ends_at + piece * p.cols + col] = total.b;
    }
}
