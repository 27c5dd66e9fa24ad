// The tiled product of f16 operands on matrix units: a workgroup of 2 x ACROSS subgroups computes
// TILE x TILE elements of op(a).op(b), each subgroup its share of them as M x N blocks that it keeps
// in f32. Steps of DEPTH along k pass through shared memory, where the tiles lie as in the operands,
// so that four neighbours are always moved together.
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#include "matmul.glsl"

layout(constant_id = TILE_ID) const uint TILE = 128;        // 64 or 128
layout(constant_id = A_ALONG_ID) const uint A_ALONG = 0;       // op(a) is contiguous along its rows' index,
layout(constant_id = B_ALONG_ID) const uint B_ALONG = 0;       // op(b) along its columns'; else along k
layout(constant_id = INVOCATIONS_ID) const uint INVOCATIONS = 128; // of all subgroups
layout(constant_id = ACROSS_ID) const uint ACROSS = 2;
layout(constant_id = M_ID) const uint M = 16; // of the device's matrices: 8 or 16
layout(constant_id = N_ID) const uint N = 16;
layout(constant_id = K_ID) const uint K = 16;
const uint DEPTH = COOP_DEPTH;
const uint SHARE = TILE / ACROSS; // columns of a subgroup; it has TILE / 2 rows
const uint DOWN = TILE / 2 / M, BLOCKS = SHARE / N; // its blocks, down and across
const uint FETCHES = TILE * DEPTH / 4 / INVOCATIONS;
// Pitches in fours: loads of matrices want lines that begin at 16 bytes.
const uint ALONG_PITCH = TILE / 4 + 2, DEEP_PITCH = DEPTH / 4 + 2;

shared f16vec4 tile_a[TILE * DEEP_PITCH];
shared f16vec4 tile_b[TILE * DEEP_PITCH];
shared float staged[32 * TILE];

coopmat<float, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator> sums[DOWN * BLOCKS];

// Elements i .. i + count - 1 as they are stored, then zeros; four at most.
uvec2 words_a(uint i, uint count, bool fours)
{
    if (fours && count >= 4)
        return a_pair.v[i >> 2];
    uvec2 words = uvec2(0);
    [[unroll]] for (uint c = 0; c < 4; c++)
        if (c < count)
            words[c / 2] |= ((a.v[(i + c) >> 1] >> 16 * ((i + c) & 1)) & 0xffff) << 16 * (c & 1);
    return words;
}

uvec2 words_b(uint i, uint count, bool fours)
{
    if (fours && count >= 4)
        return b_pair.v[i >> 2];
    uvec2 words = uvec2(0);
    [[unroll]] for (uint c = 0; c < 4; c++)
        if (c < count)
            words[c / 2] |= ((b.v[(i + c) >> 1] >> 16 * ((i + c) & 1)) & 0xffff) << 16 * (c & 1);
    return words;
}

// Which four elements of a tile fetch number `fetch` takes: (index along rows or columns, k).
uvec2 fetch_place(uint fetch, uint along)
{
    uint i = fetch * INVOCATIONS + LANE;
    return along != 0 ? uvec2(4 * (i % (TILE / 4)), i / (TILE / 4))
                      : uvec2(i / (DEPTH / 4), 4 * (i % (DEPTH / 4)));
}

// How many of the four are inside: rows (or columns) end at s.count, k at k_end.
uint inside(Side s, uint along, uint i, uint k, uint k_end)
{
    if (i >= s.count || k >= k_end)
        return 0;
    return along != 0 ? s.count - i : k_end - k;
}

uvec2 fetch_a(Side s, bool fours, uint fetch, uint row, uint k, uint k_end)
{
    uvec2 place = fetch_place(fetch, A_ALONG) + uvec2(row, k);
    return words_a(s.at + place.x * s.along + place.y * s.deep,
                   inside(s, A_ALONG, place.x, place.y, k_end), fours);
}

uvec2 fetch_b(Side s, bool fours, uint fetch, uint col, uint k, uint k_end)
{
    uvec2 place = fetch_place(fetch, B_ALONG) + uvec2(col, k);
    return words_b(s.at + place.x * s.along + place.y * s.deep,
                   inside(s, B_ALONG, place.x, place.y, k_end), fours);
}

uint tile_place(uint fetch, uint along)
{
    uvec2 place = fetch_place(fetch, along);
    return along != 0 ? place.y * ALONG_PITCH + place.x / 4 : place.x * DEEP_PITCH + place.y / 4;
}

// Adds the product of what is in shared memory to sums.
void multiply_tiles()
{
    uint row = gl_SubgroupID / ACROSS * (TILE / 2), col = gl_SubgroupID % ACROSS * SHARE;
    [[unroll]] for (uint k = 0; k < DEPTH; k += K) {
        coopmat<float16_t, gl_ScopeSubgroup, M, K, gl_MatrixUseA> left[DOWN];
        [[unroll]] for (uint i = 0; i < DOWN; i++) {
            uint m = row + M * i;
            if (A_ALONG != 0)
                coopMatLoad(left[i], tile_a, k * ALONG_PITCH + m / 4, ALONG_PITCH,
                            gl_CooperativeMatrixLayoutColumnMajor);
            else
                coopMatLoad(left[i], tile_a, m * DEEP_PITCH + k / 4, DEEP_PITCH,
                            gl_CooperativeMatrixLayoutRowMajor);
        }
        [[unroll]] for (uint j = 0; j < BLOCKS; j++) {
            uint n = col + N * j;
            coopmat<float16_t, gl_ScopeSubgroup, K, N, gl_MatrixUseB> right;
            if (B_ALONG != 0)
                coopMatLoad(right, tile_b, k * ALONG_PITCH + n / 4, ALONG_PITCH,
                            gl_CooperativeMatrixLayoutRowMajor);
            else
                coopMatLoad(right, tile_b, n * DEEP_PITCH + k / 4, DEEP_PITCH,
                            gl_CooperativeMatrixLayoutColumnMajor);
            [[unroll]] for (uint i = 0; i < DOWN; i++)
                sums[i * BLOCKS + j] = coopMatMulAdd(left[i], right, sums[i * BLOCKS + j]);
        }
    }
}

// Sets sums to the products of rows `row`.. of op(a) and columns `col`.. of op(b) over k_begin ..
// k_end - 1. The next step is fetched into registers while this one is multiplied.
void multiply(Side left, Side right, uint row, uint col, uint k_begin, uint k_end)
{
    // Four neighbours are in aligned words when lines, and where the fours begin in them, are.
    uint a_odd = left.at | (A_ALONG != 0 ? left.deep | row : left.along | k_begin);
    uint b_odd = right.at | (B_ALONG != 0 ? right.deep | col : right.along | k_begin);
    bool a_fours = (a_odd & 3) == 0, b_fours = (b_odd & 3) == 0;
    [[unroll]] for (uint i = 0; i < DOWN * BLOCKS; i++)
        sums[i] = coopmat<float, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator>(0.0);
    uvec2 next_a[FETCHES], next_b[FETCHES];
    [[unroll]] for (uint f = 0; f < FETCHES; f++) {
        next_a[f] = fetch_a(left, a_fours, f, row, k_begin, k_end);
        next_b[f] = fetch_b(right, b_fours, f, col, k_begin, k_end);
    }
    for (uint k = k_begin; k < k_end; k += DEPTH) {
        barrier(); // the tiles of the step before have been read
        [[unroll]] for (uint f = 0; f < FETCHES; f++) {
            tile_a[tile_place(f, A_ALONG)] =
                f16vec4(unpackFloat2x16(next_a[f].x), unpackFloat2x16(next_a[f].y));
            tile_b[tile_place(f, B_ALONG)] =
                f16vec4(unpackFloat2x16(next_b[f].x), unpackFloat2x16(next_b[f].y));
        }
        barrier();
        [[unroll]] for (uint f = 0; f < FETCHES; f++) {
            next_a[f] = fetch_a(left, a_fours, f, row, k + DEPTH, k_end);
            next_b[f] = fetch_b(right, b_fours, f, col, k + DEPTH, k_end);
        }
        multiply_tiles();
    }
}

// A part is 16 rows of each subgroup.
const uint PARTS = TILE / 32;
#define STAGED(i)            staged[i]
#define SET_STAGED(i, value) staged[i] = value

void stage(uint part)
{
    uint row = gl_SubgroupID / ACROSS * 16, col = gl_SubgroupID % ACROSS * SHARE;
    barrier();
    [[unroll]] for (uint i = 0; i < 16 / M; i++)
        [[unroll]] for (uint j = 0; j < BLOCKS; j++)
            coopMatStore(sums[(part * (16 / M) + i) * BLOCKS + j], staged,
                         (row + M * i) * TILE + col + N * j, TILE,
                         gl_CooperativeMatrixLayoutRowMajor);
    barrier();
}

uint staged_row(uint part, uint line)
{
    return line / 16 * (TILE / 2) + 16 * part + line % 16;
}

#include "matmul_store.glsl"
