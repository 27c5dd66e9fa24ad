#version 450
#extension GL_GOOGLE_include_directive : require
#include "itera.glsl"
#include "scan.glsl"

ARGS(linear_scan_chunk_args)
IN(1, a)
IN(2, b)
OUT(3, decay)
OUT(4, ends)

// A workgroup finds the map of `width` columns of a chunk of a sequence: what the chunk leaves of
// its start (decay) and what it leaves from zeros (ends), both (batch, chunks, cols). Each lane
// first goes through its share of the steps.
void main()
{
    uint piece = GROUP / p.tiles, col = GROUP % p.tiles * p.width + LANE % p.width;
    uint sequence = piece / p.chunks, first = piece % p.chunks * p.chunk;
    uint end = min(first + p.chunk, p.time), rows = SCAN_LANES / p.width;
    uint share = (p.chunk + rows - 1) / rows, lane_first = first + LANE / p.width * share;
    bool live = col < p.cols;
    scan_map own = scan_map(1.0, 0.0), total;
    for (uint i = 0; i < share; i++) {
        uint t = lane_first + i, row = sequence * p.time + t;
        if (live && t < end) {
            scan_map step = scan_map(a.v[p.a_at + row * p.a_ld + col],
                                     b.v[p.b_at + row * p.b_ld + col]);
            own = scan_after(step, own);
        }
    }
    scan_lanes(own, p.width, total);
    if (live && LANE < p.width) {
        decay.v[p.decay_at + piece * p.cols + col] = total.a;
        ends.v[p.ends_at + piece * p.cols + col] = total.b;
    }
}
