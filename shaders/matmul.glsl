// What all products share: operands of any storage type, read one by one or four at a time.
#ifndef MATMUL_GLSL
#define MATMUL_GLSL
#include "itera.glsl"
#include "args/matmul.clh"
#include "math.glsl"
#include "weight.glsl"

// How a and b are stored (enum itera_dtype: 0 is f32, 1 f16, 2 bf16; b also 4, q8, and 5, q4).
layout(constant_id = A_TYPE_ID) const uint A_TYPE = 0;
layout(constant_id = B_TYPE_ID) const uint B_TYPE = 0;

// The same memory as words, pairs and fours of words: 16-bit elements need no extension to be read.
#define PRODUCT_OPERAND(slot, name)                                                                \
    ITERA_OPERAND(slot, readonly, uint, name)                                                      \
    ITERA_OPERAND(slot, readonly, uvec2, name##_pair)                                              \
    ITERA_OPERAND(slot, readonly, uvec4, name##_four)
PRODUCT_OPERAND(1, a)
PRODUCT_OPERAND(2, b)

float load_a(uint i)
{
    return A_TYPE == 0 ? uintBitsToFloat(a.v[i]) : half_of(A_TYPE, a.v[i >> 1], i);
}

// Elements 4 * i .. 4 * i + 3.
vec4 load_a_quad(uint i)
{
    if (A_TYPE == 0)
        return uintBitsToFloat(a_four.v[i]);
    return halves_of(A_TYPE, a_pair.v[i]);
}

// Elements i .. i + 3, for i a multiple of 4.
vec4 load_a_four(uint i)
{
    return load_a_quad(i >> 2);
}

// The blocks of b, if it has any: the first word, and the first scale's half. Their elements are
// counted from the first block.
uint block_words = 0, block_scales = 0;

// To be called first: `at` is where b begins, `scales` the first scale's half, counted from there.
void begin_blocks(uint at, uint scales)
{
    block_words = at;
    block_scales = 2 * at + scales;
}

// The element at which b begins.
uint b_first(uint at)
{
    return B_TYPE >= 4 ? 0 : at;
}

float block_scale(uint i)
{
    uint at = block_scales + (i >> 5);
    return half_of(1, b.v[at >> 1], at);
}

// The word of element i, and its three neighbours'.
uint block_word(uint i)
{
    return b.v[block_words + word_of_block(B_TYPE, i)];
}

float load_b(uint i)
{
    if (B_TYPE >= 4)
        return block_scale(i) * value_of_block(B_TYPE, block_word(i), i);
    return B_TYPE == 0 ? uintBitsToFloat(b.v[i]) : half_of(B_TYPE, b.v[i >> 1], i);
}

vec4 load_b_four(uint i)
{
    if (B_TYPE >= 4)
        return block_scale(i) * values_of_block(B_TYPE, block_word(i), i);
    if (B_TYPE == 0)
        return uintBitsToFloat(b_four.v[i >> 2]);
    return halves_of(B_TYPE, b_pair.v[i >> 2]);
}

// The same in two steps, and 16 bytes at a time: what is at place i, whose elements are 8 of 16 bits,
// or 4 of other types, and then four of them as numbers (half_place: which of 8).
uvec4 fetch_b(uint i)
{
    if (B_TYPE >= 4)
        return uvec4(block_word(4 * i), floatBitsToUint(block_scale(4 * i)), 0, 0);
    return b_four.v[i];
}

vec4 expand_b(uvec4 fetched, uint half_place, uint i)
{
    if (B_TYPE >= 4)
        return uintBitsToFloat(fetched.y) * values_of_block(B_TYPE, fetched.x, 4 * i);
    if (B_TYPE == 0)
        return uintBitsToFloat(fetched);
    return halves_of(B_TYPE, half_place == 0 ? fetched.xy : fetched.zw);
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
