// What the mixture-of-experts shaders share.
#ifndef ITERA_MOE_GLSL
#define ITERA_MOE_GLSL

#define LOCAL ITERA_GPU_LOCAL // LANES, for the sizes of arrays

// Indices are untrusted: they are brought into range.
uint clamp_index(int index, uint n)
{
    return index < 0 ? 0 : min(uint(index), n - 1);
}

// A number that orders logits as the choice does: NaN below everything, -0 like 0.
uint choice_key(float x)
{
    uint bits = floatBitsToUint(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return 0;
    if (bits == 0x80000000u)
        bits = 0;
    return bits >> 31 != 0 ? ~bits : bits | 0x80000000u;
}

#endif
