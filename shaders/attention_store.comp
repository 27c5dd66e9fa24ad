#version 450
#extension GL_GOOGLE_include_directive : require
#include "itera.glsl"
#include "args/attention.clh"

ARGS(attention_store_args)
IN(1, k)
IN(2, v)
IN_INT(3, start)
OUT(4, k_cache)
OUT(5, v_cache)

// A workgroup copies 128 elements of both new keys and values to their places in the caches.
void main()
{
    uint row = THREAD / p.cols, col = THREAD % p.cols;
    if (row >= p.rows)
        return;
    uint b = row / p.time, position = uint(max(start.v[p.start_at + b], 0)) + row % p.time;
    if (position >= p.positions)
        return;
    uint to = b * p.positions + position;
    k_cache.v[p.k_cache_at + to * p.k_cache_ld + col] = k.v[p.k_at + row * p.k_ld + col];
    v_cache.v[p.v_cache_at + to * p.v_cache_ld + col] = v.v[p.v_at + row * p.v_ld + col];
}
