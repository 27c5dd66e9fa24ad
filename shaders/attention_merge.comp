#version 450
#extension GL_GOOGLE_include_directive : require
#include "itera.glsl"
#include "args/attention.clh"

ARGS(attention_merge_args)
IN(1, parts)
OUT(2, y)
OUT(3, lse)

// A workgroup joins 128 elements of the result from the ranges of keys.
void main()
{
    uint col = THREAD % p.d, row = THREAD / p.d % (p.time * p.share);
    uint pair = THREAD / p.d / (p.time * p.share);
    if (pair >= p.pairs)
        return;
    uint stride = p.d + 2;
    uint at = p.parts_at + (pair * p.time * p.share + row) * p.splits * stride;
    float most = parts.v[at], total = 0.0, sum = 0.0;
    for (uint s = 1; s < p.splits; s++)
        most = max(most, parts.v[at + s * stride]);
    for (uint s = 0; s < p.splits; s++) {
        float weight = exp(parts.v[at + s * stride] - most);
        total += weight * parts.v[at + s * stride + 1];
        sum += weight * parts.v[at + s * stride + 2 + col];
    }
    uint b = pair / p.kv_heads, t = row / p.share;
    uint h = pair % p.kv_heads * p.share + row % p.share;
    y.v[p.y_at + (b * p.time + t) * p.y_ld + h * p.d + col] = sum / total;
    if (p.wants_lse != 0 && col == 0)
        lse.v[p.lse_at + (b * p.kv_heads * p.share + h) * p.lse_ld + t] = most + log(total);
}
