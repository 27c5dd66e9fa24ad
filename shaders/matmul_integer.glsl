// Tiles of integers: as the tiled product of matmul_tile.glsl, of rows as matmul_round leaves them
// and weights in blocks that lie along k, with words of four int8 where that has floats. A
// workgroup computes TILE x TILE elements. A step is DEPTH words, two blocks; what these add up to
// goes into acc with their scales. kernels_cl/matmul_blocks.clh holds the same.
#include "dot.glsl"
#include "itera.glsl"
#include "args/matmul.clh"
#include "math.glsl"
#include "weight.glsl"

layout(constant_id = B_TYPE_ID) const uint B_TYPE = 4; // 4, q8, or 5, q4
layout(constant_id = TILE_ID) const uint TILE = 64;  // 32 or 64
const uint DEPTH = TILE_DEPTH;
const uint TM = TILE == 32 ? 4 : 8, TN = 4;
const uint TX = TILE / TN, TY = TILE / TM; // invocations across and down: 2 * TILE in all
const uint FOURS = TILE / 4;
const uint PITCH = FOURS + 1; // in uvec4; lines that differ in k begin in different banks

const uint TILE_B = DEPTH * PITCH; // where b's tile begins
shared uvec4 tiles[2 * DEPTH * PITCH];
shared float tile_scales[4 * TILE]; // two blocks of a row of a, and of a column of b

// Of each row of a: words of four int8, without padding; of each of its blocks the scale (a float)
// and the sum of its integers.
ITERA_OPERAND(1, readonly, uvec4, a_four)
IN_UINT(2, b)
ITERA_OPERAND(2, readonly, uvec4, b_four)
ITERA_OPERAND(3, readonly, uvec2, sums)

// Element (4i + c, d) of the invocation's part is acc[4 * i + c][d].
vec4 acc[TM];

// Where a product reads. Column c is line first + c of b.
struct Integers {
    uint a_at, b_at, sums_at;
    uint rows, cols, depth, first, scales;
};

// A step's tiles come in blocks of four lines with four words each: an invocation fetches one, those of
// the first half from a.
const uint A_BLOCKS = FOURS * (DEPTH / 4);

uvec4 fetched[4]; // the lines of its block, for the next step
uint line_at[4];  // where they begin, in words; those beyond the last line repeat it

// Four words of b from number i on.
uvec4 load_words_b(uint i)
{
    if ((i & 3) == 0)
        return b_four.v[i >> 2];
    return uvec4(b.v[i], b.v[i + 1], b.v[i + 2], b.v[i + 3]);
}

// Fetches words k .. k + 3 of its lines, k a multiple of 4; zeros beyond k_end.
void fetch_words(bool of_a, uint k, uint k_end)
{
    if (4 * k >= k_end) {
        [[unroll]] for (uint i = 0; i < 4; i++)
            fetched[i] = uvec4(0);
    } else if (of_a) {
        [[unroll]] for (uint i = 0; i < 4; i++)
            fetched[i] = a_four.v[(line_at[i] + k) >> 2];
    } else {
        // The words of a block of q4 have elements 0 to 15 in their lower nibbles, then the others.
        [[unroll]] for (uint i = 0; i < 4; i++)
            fetched[i] = load_words_b(line_at[i] + (B_TYPE == 4 ? k : k / 8 * 4));
    }
}

// Puts what was fetched of words k .. k + 3 where it begins in the tiles.
void put_words(bool of_a, uint k, uint at)
{
    if (B_TYPE == 5 && !of_a)
        [[unroll]] for (uint i = 0; i < 4; i++) {
            uvec4 nibbles = fetched[i] >> (k & 4) & 0x0f0f0f0f;
            fetched[i] = ((nibbles | 0x80808080) - 0x08080808) ^ 0x80808080; // less 8, by bytes
        }
    [[unroll]] for (uint j = 0; j < 4; j++)
        tiles[at + j * PITCH] = uvec4(fetched[0][j], fetched[1][j], fetched[2][j], fetched[3][j]);
}

ivec4 dot_fours(ivec4 sum, uint x, uvec4 y)
{
    return ivec4(dot_four(sum.x, x, y.x), dot_four(sum.y, x, y.y), dot_four(sum.z, x, y.z),
                 dot_four(sum.w, x, y.w));
}

// Adds the product of what is in shared memory to acc.
void multiply_words()
{
    uint tx = LANE % TX, ty = LANE / TX;
    [[dont_unroll]] for (uint block = 0; block < 2; block++) {
        ivec4 sum[TM];
        [[unroll]] for (uint i = 0; i < TM; i++)
            sum[i] = ivec4(0);
        for (uint k = 8 * block; k < 8 * block + 8; k++) {
            uvec4 right = tiles[TILE_B + k * PITCH + tx];
            [[unroll]] for (uint i = 0; i < TM / 4; i++) {
                uvec4 left = tiles[k * PITCH + i * TY + ty];
                [[unroll]] for (uint c = 0; c < 4; c++)
                    sum[4 * i + c] = dot_fours(sum[4 * i + c], left[c], right);
            }
        }
        uint col = (2 + block) * TILE + 4 * tx;
        vec4 cols = vec4(tile_scales[col], tile_scales[col + 1], tile_scales[col + 2],
                         tile_scales[col + 3]);
        [[unroll]] for (uint i = 0; i < TM; i++) {
            float row = tile_scales[block * TILE + 4 * (i / 4 * TY + ty) + i % 4];
            acc[i] += row * cols * vec4(sum[i]);
        }
    }
}

// The scales of a step from element k on that an invocation fetches: of one of its blocks, in a row and
// in a column.
vec2 fetch_scales(uint k, uint k_end, uint scale_row, uint scale_col)
{
    uint i = k / 32 + LANE / TILE;
    if (32 * i >= k_end)
        return vec2(0.0);
    return vec2(uintBitsToFloat(sums.v[scale_row + i].x),
                half_of(1, b.v[(scale_col + i) >> 1], scale_col + i));
}

// Sets acc to the products of rows `row`.. of a and columns `col`.. over k_begin .. k_end - 1,
// multiples of 32. The next step is fetched into registers while this one is multiplied.
void multiply(Integers s, uint row, uint col, uint k_begin, uint k_end)
{
    uint blocks = s.depth / 32;
    uint scale_row = (s.sums_at >> 1) + min(row + LANE % TILE, s.rows - 1) * blocks;
    uint scale_col =
        2 * s.b_at + s.scales + (s.first + min(col + LANE % TILE, s.cols - 1)) * blocks;
    bool of_a = LANE < A_BLOCKS;
    uint four = LANE % A_BLOCKS / (DEPTH / 4), word = 4 * (LANE % (DEPTH / 4));
    uint put = (of_a ? 0 : TILE_B) + word * PITCH + four;
    [[unroll]] for (uint i = 0; i < 4; i++) {
        uint line = 4 * four + i;
        line_at[i] = of_a ? s.a_at + min(row + line, s.rows - 1) * (s.depth / 4)
                          : s.b_at + (s.first + min(col + line, s.cols - 1)) *
                                         (B_TYPE == 4 ? s.depth / 4 : s.depth / 8);
    }
    [[unroll]] for (uint i = 0; i < TM; i++)
        acc[i] = vec4(0.0);
    fetch_words(of_a, k_begin / 4 + word, k_end);
    vec2 next_scale = fetch_scales(k_begin, k_end, scale_row, scale_col);
    for (uint k = k_begin; k < k_end; k += 4 * DEPTH) {
        barrier(); // the tiles of the step before have been read
        put_words(of_a, k / 4 + word, put);
        tile_scales[LANE] = next_scale.x;
        tile_scales[2 * TILE + LANE] = next_scale.y;
        barrier();
        fetch_words(of_a, k / 4 + DEPTH + word, k_end);
        next_scale = fetch_scales(k + 4 * DEPTH, k_end, scale_row, scale_col);
        multiply_words();
    }
}

// A finished tile leaves as that of matmul_tile.glsl does.
const uint PARTS = TILE / 32;
const uint PART_ROWS = TM / PARTS; // of an invocation

// Puts part `part` of the tile where the operands were.
void stage(uint part)
{
    uint tx = LANE % TX, ty = LANE / TX;
    barrier();
    [[unroll]] for (uint i = 0; i < PART_ROWS; i++)
        tiles[(ty * PART_ROWS + i) * FOURS + tx] = floatBitsToUint(acc[part * PART_ROWS + i]);
    barrier();
}

// The row in the tile of line `line` of what is staged.
uint staged_row(uint part, uint line)
{
    uint i = part * PART_ROWS + line % PART_ROWS;
    return 4 * (i / 4 * TY + line / PART_ROWS) + i % 4;
}

#define INVOCATIONS          (TX * TY)
#define STAGED(i)            uintBitsToFloat(tiles[(i) >> 2][(i)&3])
#define SET_STAGED(i, value) tiles[(i) >> 2][(i)&3] = floatBitsToUint(value)
#include "matmul_store.glsl"
