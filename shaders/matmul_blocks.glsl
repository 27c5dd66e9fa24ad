// Products of few rows with weights in blocks that lie along k (B_TYPE 4, q8, or 5, q4): weights
// stream by once, in chunks of 16 bytes, half a block of q8 or a block of q4. Neighbouring
// invocations take neighbouring chunks of a column, K_LANES of them share one. A workgroup computes
// ROWS rows of C_LANES * COLS columns, and an invocation reads several chunks before it uses the
// first, as in matmul_gemv.glsl. kernels_cl/matmul_blocks.clh holds the same.
#include "dot.glsl"
#include "matmul_gemv.glsl"

// Whether a is as matmul_round leaves it: words of four int8, rows without padding, and for each
// block of 32 its scale (a float) and the sum of its integers.
layout(constant_id = INTEGER_ID) const uint INTEGER = 0;
#ifdef STAGED_ROWS
shared uvec2 staged_sums[1 + INTEGER * STAGED / 2];
#define ROUNDED(i)   staged[i]
#define BLOCK_SUM(i) staged_sums[i]
#else
ITERA_OPERAND(3, readonly, uvec2, block_sums)
#define ROUNDED(i)   a_four.v[i]
#define BLOCK_SUM(i) block_sums.v[i]
#endif

const uint CHUNK = B_TYPE == 4 ? 16 : 32;
// Chunks of a column that are read together. What is read of a as it is fills registers, too.
const uint INTEGER_CHUNKS = ROWS * COLS <= 4 ? DEEP : 2;
const uint FLOAT_CHUNKS = ROWS == 1 ? DEEP : 1;
const uint CHUNKS = INTEGER != 0 ? INTEGER_CHUNKS : FLOAT_CHUNKS;

// Where an invocation reads: the first chunks of its columns; of rounded rows the first 16 elements
// (of others: few_line and few_four) and the first block.
uint chunk_line[4], sixteen_line[8], block_line[8];

// Chunk number i; `fast` where a load may be of 16 bytes.
uvec4 load_chunk(uint i, bool fast)
{
    uint at = block_words + 4 * i;
    if (fast)
        return b_four.v[(block_words >> 2) + i];
    return uvec4(b.v[at], b.v[at + 1], b.v[at + 2], b.v[at + 3]);
}

float chunk_scale(uint i)
{
    uint at = block_scales + i / (32 / CHUNK);
    return half_of(1, b.v[at >> 1], at);
}

// Integers 0 .. 255 in the bytes of `word`, less `bias`, as floats: put into the mantissa of 2^23,
// which takes fewer cycles than conversions.
vec4 bytes_less(uint word, float bias)
{
    uvec4 bytes = uvec4(word, word >> 8, word >> 16, word >> 24) & 0xff;
    return uintBitsToFloat(bytes | 0x4b000000) - (8388608.0 + bias);
}

// The product of chunk number k of rounded row r with one of weights, without that one's scale.
float integer_product(uint r, uint k, uvec4 w)
{
    uint x = sixteen_line[r] + k * (CHUNK / 16);
    uvec2 block = BLOCK_SUM(block_line[r] + k / (32 / CHUNK));
    int sum;
    if (B_TYPE == 4)
        sum = dot_sixteen(w, ROUNDED(x));
    else
        sum = dot_sixteen(w & 0x0f0f0f0f, ROUNDED(x)) +
              dot_sixteen(w >> 4 & 0x0f0f0f0f, ROUNDED(x + 1)) - 8 * int(block.y);
    return uintBitsToFloat(block.x) * float(sum);
}

// The same of a row as it is, which begins at a multiple of four.
float float_product(uint r, uint k, uvec4 w)
{
    float sum = 0.0;
    [[unroll]] for (uint i = 0; i < 4; i++) {
        // A word of q4 has four elements in its lower nibbles, and four 16 further on.
        vec4 low = B_TYPE == 4 ? bytes_less(w[i] ^ 0x80808080, 128.0)
                               : bytes_less(w[i] & 0x0f0f0f0f, 8.0);
        sum += dot(read_few(r, k * (CHUNK / 4) + i), low);
        if (B_TYPE == 5)
            sum += dot(read_few(r, k * (CHUNK / 4) + 4 + i),
                       bytes_less(w[i] >> 4 & 0x0f0f0f0f, 8.0));
    }
    return sum;
}

// Adds the products of `count` chunks (up to CHUNKS) from k on, K_LANES apart, to the sums; `checked`:
// of those before end. `fast` where loads may be of 16 bytes.
void add_chunks(uint k, uint end, uint count, bool checked, bool fast)
{
    uvec4 w[CHUNKS * COLS];
    float scale[CHUNKS * COLS];
    [[unroll]] for (uint d = 0; d < count; d++)
        [[unroll]] for (uint c = 0; c < COLS; c++) {
            uint at = k + d * K_LANES;
            uint chunk = chunk_line[c] + (checked ? min(at, end - 1) : at);
            w[d * COLS + c] = load_chunk(chunk, fast);
            scale[d * COLS + c] = chunk_scale(chunk);
        }
    [[unroll]] for (uint d = 0; d < count; d++) {
        uint at = checked ? min(k + d * K_LANES, end - 1) : k + d * K_LANES;
        [[unroll]] for (uint r = 0; r < ROWS; r++)
            [[unroll]] for (uint c = 0; c < COLS; c++) {
                uvec4 chunk = w[d * COLS + c];
                float product =
                    INTEGER != 0 ? integer_product(r, at, chunk) : float_product(r, at, chunk);
                float sum = sums[r * COLS + c] + scale[d * COLS + c] * product;
                if (!checked || k + d * K_LANES < end)
                    sums[r * COLS + c] = sum;
            }
    }
}

// Makes the sums over all of k for rows `row`.. of few and columns `col`.. of b, as multiply_lines
// does. Column c is line first + c of b; there are `count`, of `depth` elements. Rounded rows begin
// at few.at, too.
void multiply_chunks(Side few, uint sums_at, uint first, uint count, uint depth, uint row, uint col)
{
    uint c_lane = LANE / K_LANES, k_lane = LANE % K_LANES, chunks = depth / CHUNK;
    bool by_chunks = INTEGER != 0 || ((few.at | few.along) & 3) == 0, fast = (block_words & 3) == 0;
    [[unroll]] for (uint i = 0; i < ROWS * COLS; i++)
        sums[i] = 0.0;
    [[unroll]] for (uint r = 0; r < ROWS; r++) {
        uint line = min(row + r, few.count - 1);
        few_line[r] = few.at + line * few.along;
        few_four[r] = few_line[r] / 4;
        sixteen_line[r] = few.at / 4 + line * (depth / 16);
        block_line[r] = sums_at / 2 + line * (depth / 32);
    }
    [[unroll]] for (uint c = 0; c < COLS; c++) {
        uint line = first + min(col + c * C_LANES + c_lane, count - 1);
        chunk_line[c] = line * chunks;
        many_line[c] = line * depth;
    }
    uint k = by_chunks ? 0 : chunks, rounds = chunks / (CHUNKS * K_LANES);
    if (INTEGER != 0 && ROWS <= 2 && fast && rounds > 0)
        do {
            add_chunks(k + k_lane, chunks, CHUNKS, false, true);
            k += CHUNKS * K_LANES;
        } while (--rounds > 0);
    for (; fast && k < chunks; k += CHUNKS * K_LANES)
        add_chunks(k + k_lane, chunks, CHUNKS, true, true);
    for (; k < chunks; k += K_LANES)
        add_chunks(k + k_lane, chunks, 1, true, false);
    if (!by_chunks)
        for (k = 0; k < depth; k += SINGLES * K_LANES)
            add_singles(few, Side(0, depth, 1, count), k + k_lane, depth);
    add_parts(c_lane, k_lane);
}
