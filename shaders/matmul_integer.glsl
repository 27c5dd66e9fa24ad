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
layout(constant_id = TILE_ID) const uint TILE = 64;  // 32, 64 or 128
const uint DEPTH = TILE_DEPTH;
const uint TM = TILE == 32 ? 4 : 8, TN = TILE == 128 ? 8 : 4;
const uint TX = TILE / TN, TY = TILE / TM; // invocations across and down: 2 * TILE in all
const uint FETCHES = 2;                    // uvec4 of each tile that an invocation fetches a step
const uint FOURS = TILE / 4;
const uint PITCH = FOURS + 1; // in uvec4; invocations that differ in k hit different banks

const uint TILE_B = DEPTH * PITCH; // where b's tile begins
shared uvec4 tiles[2 * DEPTH * PITCH];
shared float tile_scales[4 * TILE]; // two blocks of a row of a, and of a column of b

// Of each row of a: words of four int8, without padding; of each of its blocks the scale (a float)
// and the sum of its integers.
IN_UINT(1, a)
IN_UINT(2, b)
ITERA_OPERAND(3, readonly, uvec2, sums)

// Element (4i + c, 4j + d) of the invocation's part is acc[(4 * i + c) * (TN / 4) + j][d].
vec4 acc[16];

// Where a product reads. Column c is line first + c of b.
struct Integers {
    uint a_at, b_at, sums_at;
    uint rows, cols, depth, first, scales;
};

// Which four of a tile, and which word, fetch number `fetch` takes.
uvec2 fetch_place(uint fetch)
{
    uint i = fetch * TX * TY + LANE;
    return uvec2(i / DEPTH, i % DEPTH);
}

// Four rows of a from `row` on, at word k of a row; those beyond the last repeat it.
uvec4 fetch_words_a(Integers s, uint row, uint k, uint k_end)
{
    if (4 * k >= k_end)
        return uvec4(0);
    uvec4 at = s.a_at + min(row + uvec4(0, 1, 2, 3), uvec4(s.rows - 1)) * (s.depth / 4) + k;
    return uvec4(a.v[at.x], a.v[at.y], a.v[at.z], a.v[at.w]);
}

// Word k of a line of b.
uint load_word_b(Integers s, uint line, uint k)
{
    uint i = line * s.depth + 4 * k, word = b.v[s.b_at + word_of_block(B_TYPE, i)];
    if (B_TYPE == 4)
        return word;
    uint nibbles = word >> nibble_shift(i) & 0x0f0f0f0f;
    return ((nibbles | 0x80808080) - 0x08080808) ^ 0x80808080; // less 8, byte by byte
}

uvec4 fetch_words_b(Integers s, uint col, uint k, uint k_end)
{
    if (4 * k >= k_end)
        return uvec4(0);
    uvec4 line = s.first + min(col + uvec4(0, 1, 2, 3), uvec4(s.cols - 1));
    return uvec4(load_word_b(s, line.x, k), load_word_b(s, line.y, k), load_word_b(s, line.z, k),
                 load_word_b(s, line.w, k));
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
    for (uint block = 0; block < 2; block++) {
        ivec4 sum[16];
        [[unroll]] for (uint i = 0; i < 16; i++)
            sum[i] = ivec4(0);
        for (uint k = 8 * block; k < 8 * block + 8; k++) {
            uvec4 right[2];
            [[unroll]] for (uint j = 0; j < TN / 4; j++)
                right[j] = tiles[TILE_B + k * PITCH + j * TX + tx];
            [[unroll]] for (uint i = 0; i < TM / 4; i++) {
                uvec4 left = tiles[k * PITCH + i * TY + ty];
                [[unroll]] for (uint c = 0; c < 4; c++)
                    [[unroll]] for (uint j = 0; j < TN / 4; j++) {
                        uint at = (4 * i + c) * (TN / 4) + j;
                        sum[at] = dot_fours(sum[at], left[c], right[j]);
                    }
            }
        }
        [[unroll]] for (uint i = 0; i < TM; i++) {
            float row = tile_scales[block * TILE + 4 * (i / 4 * TY + ty) + i % 4];
            [[unroll]] for (uint j = 0; j < TN / 4; j++) {
                uint col = (2 + block) * TILE + 4 * (j * TX + tx);
                vec4 scale = row * vec4(tile_scales[col], tile_scales[col + 1],
                                        tile_scales[col + 2], tile_scales[col + 3]);
                acc[i * (TN / 4) + j] += scale * vec4(sum[i * (TN / 4) + j]);
            }
        }
    }
}

// Sets acc to the products of rows `row`.. of a and columns `col`.. over k_begin .. k_end - 1,
// multiples of 32.
void multiply(Integers s, uint row, uint col, uint k_begin, uint k_end)
{
    uint blocks = s.depth / 32, lane_block = LANE / TILE;
    uint scale_row = (s.sums_at >> 1) + min(row + LANE % TILE, s.rows - 1) * blocks;
    uint scale_col =
        2 * s.b_at + s.scales + (s.first + min(col + LANE % TILE, s.cols - 1)) * blocks;
    [[unroll]] for (uint i = 0; i < 16; i++)
        acc[i] = vec4(0.0);
    for (uint k = k_begin; k < k_end; k += 4 * DEPTH) {
        uvec4 next_a[FETCHES], next_b[FETCHES];
        [[unroll]] for (uint f = 0; f < FETCHES; f++) {
            uvec2 place = fetch_place(f);
            next_a[f] = fetch_words_a(s, row + 4 * place.x, k / 4 + place.y, k_end);
            next_b[f] = fetch_words_b(s, col + 4 * place.x, k / 4 + place.y, k_end);
        }
        uint block = k / 32 + lane_block;
        vec2 next_scale = vec2(0.0);
        if (32 * block < k_end)
            next_scale = vec2(uintBitsToFloat(sums.v[scale_row + block].x),
                              half_of(1, b.v[(scale_col + block) >> 1], scale_col + block));
        barrier(); // the tiles of the step before have been read
        [[unroll]] for (uint f = 0; f < FETCHES; f++) {
            uvec2 place = fetch_place(f);
            tiles[place.y * PITCH + place.x] = next_a[f];
            tiles[TILE_B + place.y * PITCH + place.x] = next_b[f];
        }
        tile_scales[LANE] = next_scale.x;
        tile_scales[2 * TILE + LANE] = next_scale.y;
        barrier();
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
        [[unroll]] for (uint j = 0; j < TN / 4; j++)
            tiles[(ty * PART_ROWS + i) * FOURS + j * TX + tx] =
                floatBitsToUint(acc[(part * PART_ROWS + i) * (TN / 4) + j]);
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
