// Products of int8, packed by fours into words: sum + a . b. kernels_cl/dot.clh holds the same.
// With DOT, which takes GL_EXT_spirv_intrinsics, it is the instruction of
// SPV_KHR_integer_dot_product.
#ifndef DOT_GLSL
#define DOT_GLSL

#ifdef DOT
// DotProductInput4x8BitPacked, DotProduct; OpSDot; the format is PackedVectorFormat4x8Bit.
spirv_instruction(extensions = ["SPV_KHR_integer_dot_product"], capabilities = [6018, 6019],
                  id = 4450) int packed_dot(uint a, uint b, spirv_literal int format);

int dot_four(int sum, uint a, uint b)
{
    return sum + packed_dot(a, b, 0);
}
#else
int dot_four(int sum, uint a, uint b)
{
    const uvec4 shifts = uvec4(24, 16, 8, 0);
    ivec4 products = (ivec4(uvec4(a) << shifts) >> 24) * (ivec4(uvec4(b) << shifts) >> 24);
    return sum + products.x + products.y + products.z + products.w;
}
#endif

int dot_sixteen(uvec4 a, uvec4 b)
{
    return dot_four(dot_four(dot_four(dot_four(0, a.x, b.x), a.y, b.y), a.z, b.z), a.w, b.w);
}

#endif
