// Philox4x32-10, the counter-based generator of host/core/rng.h, bit for bit. 64-bit numbers come
// as (low, high).
#ifndef ITERA_PHILOX_GLSL
#define ITERA_PHILOX_GLSL

// The four values of one block: indices 4 block to 4 block + 3 of the stream.
uvec4 philox(uvec2 seed, uvec2 stream, uvec2 block)
{
    uvec4 c = uvec4(block, stream);
    for (int round = 0; round < 10; round++) {
        uint high0, low0, high1, low1;
        umulExtended(0xD2511F53u, c.x, high0, low0);
        umulExtended(0xCD9E8D57u, c.z, high1, low1);
        c = uvec4(high1 ^ c.y ^ seed.x, low1, high0 ^ c.w ^ seed.y, low0);
        seed += uvec2(0x9E3779B9u, 0xBB67AE85u);
    }
    return c;
}

// The 32-bit value at an index of a stream.
uint philox_at(uvec2 seed, uvec2 stream, uvec2 index)
{
    uvec4 v = philox(seed, stream, uvec2(index.x >> 2 | index.y << 30, index.y >> 2));
    return v[index.x & 3];
}

// Uniform in [0, 1) with 24 bits.
float philox_uniform(uint value)
{
    return float(value >> 8) * (1.0 / 16777216.0);
}

#endif
