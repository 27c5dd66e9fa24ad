// What all products share: operands of any storage type, read one by one or four at a time.
#ifndef MATMUL_GLSL
#define MATMUL_GLSL
#include "itera.glsl"
#include "math.glsl"

// How a and b are stored (enum itera_dtype: 0 is f32, 1 f16, 2 bf16).
layout(constant_id = 3) const uint A_TYPE = 0;
layout(constant_id = 4) const uint B_TYPE = 0;

// The same memory as words, pairs and fours of words: 16-bit elements need no extension to be read.
#define PRODUCT_OPERAND(slot, name)                                                                \
    ITERA_OPERAND(slot, readonly, uint, name)                                                      \
    ITERA_OPERAND(slot, readonly, uvec2, name##_pair)                                              \
    ITERA_OPERAND(slot, readonly, uvec4, name##_four)
PRODUCT_OPERAND(1, a)
PRODUCT_OPERAND(2, b)

// Element i of a word that holds it and its neighbour.
float half_of(uint type, uint word, uint i)
{
    if (type == 2)
        return uintBitsToFloat((i & 1) == 0 ? word << 16 : word & 0xffff0000u);
    return unpackHalf2x16(word >> (16 * (i & 1))).x;
}

vec4 halves_of(uint type, uvec2 words)
{
    if (type == 2)
        return uintBitsToFloat(
            uvec4(words.x << 16, words.x & 0xffff0000u, words.y << 16, words.y & 0xffff0000u));
    return vec4(unpackHalf2x16(words.x), unpackHalf2x16(words.y));
}

float load_a(uint i)
{
    return A_TYPE == 0 ? uintBitsToFloat(a.v[i]) : half_of(A_TYPE, a.v[i >> 1], i);
}

float load_b(uint i)
{
    return B_TYPE == 0 ? uintBitsToFloat(b.v[i]) : half_of(B_TYPE, b.v[i >> 1], i);
}

// Elements i .. i + 3, for i a multiple of 4.
vec4 load_a_four(uint i)
{
    if (A_TYPE == 0)
        return uintBitsToFloat(a_four.v[i >> 2]);
    return halves_of(A_TYPE, a_pair.v[i >> 2]);
}

vec4 load_b_four(uint i)
{
    if (B_TYPE == 0)
        return uintBitsToFloat(b_four.v[i >> 2]);
    return halves_of(B_TYPE, b_pair.v[i >> 2]);
}

// A matrix seen from a product: element (i, k) is at `at + i * along + k * deep`, where i < count
// is the row of op(a) or the column of op(b), and k the index that is summed over.
struct Side {
    uint at, along, deep, count;
};

// Whether a line of elements at stride `step` may be read by fours when lines are `between` apart.
bool by_fours(uint at, uint step, uint between)
{
    return step == 1 && ((at | between) & 3) == 0;
}

#endif
