#version 450
#extension GL_GOOGLE_include_directive : require
#include "itera.glsl"
#include "args/matmul.clh"

// Rounds rows of a to int8, blocks of 32 with one scale (the largest / 127) each: words of four,
// and for each block its scale (0 for blocks of next to nothing, NaN where a is not finite) and its
// sum. A workgroup takes 16 blocks, eight invocations one, four elements each.
ARGS(round_args)
IN_UINT(1, a)
ITERA_OPERAND(1, readonly, uvec4, a_four)
OUT_UINT(2, words)
ITERA_OPERAND(3, , uvec2, sums)

shared uint peaks[128];
shared int totals[128];

uvec4 load(uint i)
{
    if (((p.a_at | p.a_ld) & 3) == 0)
        return a_four.v[i >> 2];
    return uvec4(a.v[i], a.v[i + 1], a.v[i + 2], a.v[i + 3]);
}

void main()
{
    uint four = THREAD, row = four / (p.depth / 4), k = four % (p.depth / 4) * 4;
    bool inside = row < p.rows;
    uvec4 x = uvec4(0);
    if (inside)
        x = load(p.a_at + row * p.a_ld + k);
    // Of magnitudes as bits: these order NaN above all, which max may drop.
    uvec4 size = x & 0x7fffffff;
    peaks[LANE] = max(max(size.x, size.y), max(size.z, size.w));
    barrier();
    uint peak = 0;
    for (uint i = 0; i < 8; i++)
        peak = max(peak, peaks[LANE / 8 * 8 + i]);
    bool finite = peak < 0x7f800000, none = peak < 0x0554ad2e; // 1e-35
    ivec4 q = ivec4(0);
    if (finite && !none)
        q = ivec4(roundEven(uintBitsToFloat(x) * (127.0 / uintBitsToFloat(peak))));
    totals[LANE] = q.x + q.y + q.z + q.w;
    barrier();
    if (inside)
        words.v[p.words_at + four] =
            (q.x & 0xff) | (q.y & 0xff) << 8 | (q.z & 0xff) << 16 | q.w << 24;
    if (!inside || LANE % 8 != 0)
        return;
    int total = 0;
    for (uint i = 0; i < 8; i++)
        total += totals[LANE + i];
    uint scale = !finite ? 0x7fc00000 : none ? 0 : floatBitsToUint(uintBitsToFloat(peak) / 127.0);
    sums.v[(p.sums_at >> 1) + four / 8] = uvec2(scale, uint(total));
}
