// What the mixture-of-experts shaders share.
#ifndef ITERA_MOE_GLSL
#define ITERA_MOE_GLSL

#define LOCAL ITERA_GPU_LOCAL // LANES, for the sizes of arrays

// Indices are untrusted: they are brought into range.
uint clamp_index(int index, uint n)
{
    return index < 0 ? 0 : min(uint(index), n - 1);
}

#endif
