// Elements of tensors as f32, out of the words that hold them: types are enum itera_dtype.
// kernels_cl/weight.clh holds the same. No extension is needed to read 8 or 16 bits.
#ifndef WEIGHT_GLSL
#define WEIGHT_GLSL

// f16 (1) and bf16 (2): element i, of the word that holds it and its neighbour.
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

// Blocks, q8 (4) and q4 (5): host/tensor/blocks.h. Which word holds element i, and the element, and
// the four from i on (a multiple of 4), still to be multiplied by the block's scale.
uint word_of_block(uint type, uint i)
{
    return type == 4 ? i >> 2 : (i >> 5) * 4 + ((i & 15) >> 2);
}

// Which half of its byte element i of q4 is: the bits below it.
uint nibble_shift(uint i)
{
    return (i >> 2) & 4;
}

float value_of_block(uint type, uint word, uint i)
{
    uint shift = 8 * (i & 3);
    if (type == 4)
        return float(bitfieldExtract(int(word), int(shift), 8));
    return float(word >> (shift + nibble_shift(i)) & 15) - 8.0;
}

vec4 values_of_block(uint type, uint word, uint i)
{
    if (type == 4)
        return vec4(ivec4(uvec4(word) << uvec4(24, 16, 8, 0)) >> 24);
    return vec4(uvec4(word >> nibble_shift(i)) >> uvec4(0, 8, 16, 24) & 15) - 8.0;
}

#endif
