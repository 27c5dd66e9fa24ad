// Products of few rows with weights in blocks that lie along k (B_TYPE 4, q8, or 5, q4): weights
// stream by once, in chunks of 16 bytes, half a block of q8 or a block of q4. Neighbouring
// invocations take neighbouring chunks of a column, K_LANES of them share one. A workgroup computes
// ROWS rows of C_LANES * COLS columns, as in matmul_gemv.glsl. kernels_cl/matmul_blocks.clh holds
// the same.
#include "dot.glsl"
#include "matmul_gemv.glsl"

// Whether a is as matmul_round leaves it: words of four int8, rows without padding, and for each
// block of 32 its scale (a float) and the sum of its integers.
layout(constant_id = INTEGER_ID) const uint INTEGER = 0;
ITERA_OPERAND(3, readonly, uvec2, sums)

const uint CHUNK = B_TYPE == 4 ? 16 : 32;

// Chunk number i.
uvec4 load_chunk(uint i)
{
    uint at = block_words + 4 * i;
    if ((block_words & 3) == 0)
        return b_four.v[at >> 2];
    return uvec4(b.v[at], b.v[at + 1], b.v[at + 2], b.v[at + 3]);
}

// Integers 0 .. 255 in the bytes of `word`, less `bias`, as floats: put into the mantissa of 2^23,
// which takes fewer cycles than conversions.
vec4 bytes_less(uint word, float bias)
{
    uvec4 bytes = uvec4(word, word >> 8, word >> 16, word >> 24) & 0xff;
    return uintBitsToFloat(bytes | 0x4b000000) - (8388608.0 + bias);
}

// The product of a chunk with the same elements of a row of a, without the chunk's scale.
float chunk_product(uvec4 w, uint a_at, uint sums_at, uint element)
{
    uint x = (a_at >> 2) + (element >> 4);
    uvec2 block = sums.v[(sums_at >> 1) + (element >> 5)];
    int sum;
    if (B_TYPE == 4)
        sum = dot_sixteen(w, a_four.v[x]);
    else
        sum = dot_sixteen(w & 0x0f0f0f0f, a_four.v[x]) +
              dot_sixteen(w >> 4 & 0x0f0f0f0f, a_four.v[x + 1]) - 8 * int(block.y);
    return uintBitsToFloat(block.x) * float(sum);
}

// Leaves the sums over all of k for rows `row`.. of few and columns `col`.. of b in parts, as
// multiply_lines does. Column c is line first + c of b; there are `count`, of `depth` elements.
// Rounded rows begin at few.at, too.
void multiply_chunks(Side few, uint sums_at, uint first, uint count, uint depth, uint row, uint col)
{
    uint c_lane = LANE / K_LANES, k_lane = LANE % K_LANES, chunks = depth / CHUNK;
    bool fours = by_fours(few.at, few.deep, few.along);
    float sum[16];
    [[unroll]] for (uint i = 0; i < 16; i++)
        sum[i] = 0.0;
    for (uint k = k_lane; k < chunks; k += K_LANES) {
        uvec4 w[4];
        float scale[4];
        [[unroll]] for (uint c = 0; c < COLS; c++) {
            uint chunk = (first + min(col + c * C_LANES + c_lane, count - 1)) * chunks + k;
            w[c] = load_chunk(chunk);
            scale[c] = block_scale(chunk * CHUNK);
        }
        if (INTEGER != 0) {
            [[unroll]] for (uint r = 0; r < ROWS; r++) {
                uint element = min(row + r, few.count - 1) * depth + k * CHUNK;
                [[unroll]] for (uint c = 0; c < COLS; c++)
                    sum[r * COLS + c] +=
                        scale[c] * chunk_product(w[c], few.at, sums_at, element);
            }
            continue;
        }
        float part[16];
        [[unroll]] for (uint i = 0; i < 16; i++)
            part[i] = 0.0;
        [[unroll]] for (uint i = 0; i < 4; i++) {
            // A word of q4 has four elements in its lower nibbles, and four 16 further on.
            vec4 low[4], high[4];
            [[unroll]] for (uint c = 0; c < COLS; c++) {
                low[c] = B_TYPE == 4 ? bytes_less(w[c][i] ^ 0x80808080, 128.0)
                                     : bytes_less(w[c][i] & 0x0f0f0f0f, 8.0);
                high[c] = bytes_less(w[c][i] >> 4 & 0x0f0f0f0f, 8.0);
            }
            [[unroll]] for (uint r = 0; r < ROWS; r++) {
                vec4 x = read_a(few, fours, row + r, k * CHUNK + 4 * i, 4);
                [[unroll]] for (uint c = 0; c < COLS; c++)
                    part[r * COLS + c] += dot(x, low[c]);
                if (B_TYPE == 4)
                    continue;
                x = read_a(few, fours, row + r, k * CHUNK + 16 + 4 * i, 4);
                [[unroll]] for (uint c = 0; c < COLS; c++)
                    part[r * COLS + c] += dot(x, high[c]);
            }
        }
        [[unroll]] for (uint i = 0; i < ROWS * COLS; i++)
            sum[i] += scale[i % COLS] * part[i];
    }
    add_parts(sum, c_lane, k_lane);
}
