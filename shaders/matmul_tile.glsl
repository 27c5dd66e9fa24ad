// The tiled product: a workgroup computes TILE x TILE elements of op(a).op(b), each invocation
// TM x TN of them in registers. Steps of DEPTH along k pass through shared memory, where both tiles
// are kept with k as the slow index, so that every access there is a whole vec4.
#include "matmul.glsl"

layout(constant_id = TILE_ID) const uint TILE = 64; // 32, 64 or 128
const uint DEPTH = TILE_DEPTH;
const uint TM = TILE == 32 ? 4 : 8, TN = TILE == 128 ? 8 : 4;
const uint TX = TILE / TN, TY = TILE / TM; // invocations across and down: 64, 128 or 256 in all
const uint FETCHES = 2;                    // vec4 of each tile that an invocation fetches in a step
const uint FOURS = TILE / 4;
const uint PITCH = FOURS + 1; // in vec4; invocations that differ in k hit different banks

const uint TILE_B = DEPTH * PITCH; // where b's tile begins
shared vec4 tiles[2 * DEPTH * PITCH];

// Element (4i + c, 4j + d) of the invocation's part is acc[(4 * i + c) * (TN / 4) + j][d].
vec4 acc[16];

// Which four of a tile, and at which k, fetch number `fetch` takes: neighbouring invocations along
// whichever index is contiguous in memory.
uvec2 fetch_place(uint fetch, bool contiguous_along)
{
    uint i = fetch * TX * TY + LANE;
    return contiguous_along ? uvec2(i % FOURS, i / FOURS) : uvec2(i / DEPTH, i % DEPTH);
}

// The same for b. Of blocks, which lie along k, a fetch takes four neighbours there.
uvec2 fetch_place_b(uint fetch, bool contiguous_along)
{
    uint i = fetch * TX * TY + LANE;
    if (B_TYPE >= 4)
        return uvec2(i / (DEPTH / 4), i % (DEPTH / 4) * 4);
    return fetch_place(fetch, contiguous_along);
}

// Four rows of op(a) from `row` on, at k. Those beyond the last row repeat it: what comes of them
// is not stored. Zeros beyond k_end, where both sides must be zero lest 0 meets infinity.
vec4 fetch_a(Side s, bool fours, uint row, uint k, uint k_end)
{
    if (k >= k_end)
        return vec4(0.0);
    uint i = s.at + k * s.deep;
    if (fours && row + 4 <= s.count)
        return load_a_four(i + row);
    uvec4 at = i + min(row + uvec4(0, 1, 2, 3), uvec4(s.count - 1)) * s.along;
    return vec4(load_a(at.x), load_a(at.y), load_a(at.z), load_a(at.w));
}

vec4 fetch_b(Side s, bool fours, uint col, uint k, uvec2 place, uint k_end)
{
    k += place.y;
    if (k >= k_end)
        return vec4(0.0);
    if (B_TYPE >= 4)
        return load_b_four(s.at + min(col + place.x, s.count - 1) * s.along + k);
    col += 4 * place.x;
    uint i = s.at + k * s.deep;
    if (fours && col + 4 <= s.count)
        return load_b_four(i + col);
    uvec4 at = i + min(col + uvec4(0, 1, 2, 3), uvec4(s.count - 1)) * s.along;
    return vec4(load_b(at.x), load_b(at.y), load_b(at.z), load_b(at.w));
}

// Puts what was fetched of b into its tile.
void put_b(uvec2 place, vec4 value)
{
    if (B_TYPE >= 4) {
        [[unroll]] for (uint i = 0; i < 4; i++)
            tiles[TILE_B + (place.y + i) * PITCH + place.x / 4][place.x % 4] = value[i];
        return;
    }
    tiles[TILE_B + place.y * PITCH + place.x] = value;
}

// Adds the product of what is in shared memory to acc.
void multiply_tiles()
{
    uint tx = LANE % TX, ty = LANE / TX;
    for (uint k = 0; k < DEPTH; k++) {
        vec4 right[2];
        [[unroll]] for (uint j = 0; j < TN / 4; j++)
            right[j] = tiles[TILE_B + k * PITCH + j * TX + tx];
        [[unroll]] for (uint i = 0; i < TM / 4; i++) {
            vec4 left = tiles[k * PITCH + i * TY + ty];
            [[unroll]] for (uint j = 0; j < TN / 4; j++) {
                acc[(4 * i + 0) * (TN / 4) + j] += left.x * right[j];
                acc[(4 * i + 1) * (TN / 4) + j] += left.y * right[j];
                acc[(4 * i + 2) * (TN / 4) + j] += left.z * right[j];
                acc[(4 * i + 3) * (TN / 4) + j] += left.w * right[j];
            }
        }
    }
}

// Sets acc to the products of rows `row`.. of op(a) and columns `col`.. of op(b) over k_begin ..
// k_end - 1. The next step is fetched into registers while this one is multiplied.
void multiply(Side left, Side right, uint row, uint col, uint k_begin, uint k_end)
{
    bool a_along = left.along == 1, b_along = right.along == 1;
    bool a_fours = by_fours(left.at, left.along, left.deep);
    bool b_fours = by_fours(right.at, right.along, right.deep);
    [[unroll]] for (uint i = 0; i < 16; i++)
        acc[i] = vec4(0.0);
    uvec2 a_place[FETCHES], b_place[FETCHES];
    vec4 next_a[FETCHES], next_b[FETCHES];
    [[unroll]] for (uint f = 0; f < FETCHES; f++) {
        a_place[f] = fetch_place(f, a_along);
        b_place[f] = fetch_place_b(f, b_along);
        next_a[f] = fetch_a(left, a_fours, row + 4 * a_place[f].x, k_begin + a_place[f].y, k_end);
        next_b[f] = fetch_b(right, b_fours, col, k_begin, b_place[f], k_end);
    }
    for (uint k = k_begin; k < k_end; k += DEPTH) {
        barrier(); // the tiles of the step before have been read
        [[unroll]] for (uint f = 0; f < FETCHES; f++) {
            tiles[a_place[f].y * PITCH + a_place[f].x] = next_a[f];
            put_b(b_place[f], next_b[f]);
        }
        barrier();
        [[unroll]] for (uint f = 0; f < FETCHES; f++) {
            uint next = k + DEPTH;
            next_a[f] = fetch_a(left, a_fours, row + 4 * a_place[f].x, next + a_place[f].y, k_end);
            next_b[f] = fetch_b(right, b_fours, col, next, b_place[f], k_end);
        }
        multiply_tiles();
    }
}

// A finished tile leaves through shared memory, part by part, so that neighbouring invocations
// write neighbouring elements.
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
                acc[(part * PART_ROWS + i) * (TN / 4) + j];
    barrier();
}

// The row in the tile of line `line` of what is staged.
uint staged_row(uint part, uint line)
{
    uint i = part * PART_ROWS + line % PART_ROWS;
    return 4 * (i / 4 * TY + line / PART_ROWS) + i % 4;
}

#define INVOCATIONS          (TX * TY)
#define STAGED(i)            tiles[(i) >> 2][(i)&3]
#define SET_STAGED(i, value) STAGED(i) = value
#include "matmul_store.glsl"
