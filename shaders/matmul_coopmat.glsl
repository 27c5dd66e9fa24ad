// The tiled product on matrix units: a workgroup of DOWN x ACROSS subgroups computes TILE x TILE
// elements of op(a).op(b), each subgroup its share of them as M x N blocks that it keeps in f32. Steps of DEPTH
// along k pass through shared memory as f16, whatever the operands are stored in. There k is the fast
// index of both tiles: of an operand that lies the other way, squares of four by four are turned as
// they are stored, since matrices are loaded by words only along k.
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#include "matmul.glsl"

layout(constant_id = TILE_ID) const uint TILE = 128;        // 64 or 128
layout(constant_id = A_ALONG_ID) const uint A_ALONG = 0;       // op(a) is contiguous along its rows' index,
layout(constant_id = B_ALONG_ID) const uint B_ALONG = 0;       // op(b) along its columns'; else along k
layout(constant_id = INVOCATIONS_ID) const uint INVOCATIONS = 128; // of all subgroups
layout(constant_id = DOWN_ID) const uint DOWN = 2;
layout(constant_id = ACROSS_ID) const uint ACROSS = 2;
layout(constant_id = M_ID) const uint M = 16; // of the device's matrices: 8 or 16
layout(constant_id = N_ID) const uint N = 16;
layout(constant_id = K_ID) const uint K = 16;
const uint DEPTH = COOP_DEPTH;
const uint ROWS = TILE / DOWN, COLS = TILE / ACROSS; // of a subgroup
const uint M_BLOCKS = ROWS / M, N_BLOCKS = COLS / N;
const uint FOURS = DEPTH / 4;
const uint SQUARES = TILE / 4 * FOURS; // of a tile
// Where there are invocations enough, half of them fetch op(a) and half op(b); else each some of both.
const bool APART = INVOCATIONS >= 2 * SQUARES;
const uint FETCHES = (SQUARES + INVOCATIONS - 1) / INVOCATIONS; // of an invocation, of each tile
const uint PITCH = FOURS + 2; // in fours: loads of matrices want lines that begin at 16 bytes
const uint TILE_B = TILE * PITCH; // where b's tile begins

// Fours of f16; what is staged of the finished tile, f32, takes less and comes after.
shared uvec2 tiles[2 * TILE * PITCH];

coopmat<float, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator> sums[M_BLOCKS * N_BLOCKS];

// Elements i .. i + count - 1 as they are stored (f32 in four words, 16 bits in two), then zeros; four
// at most.
#define WORDS_OF(name, TYPE)                                                                       \
    uvec4 words_##name(uint i, uint count, bool fours)                                             \
    {                                                                                              \
        if (fours && count >= 4)                                                                   \
            return TYPE == 0 ? name##_four.v[i >> 2] : uvec4(name##_pair.v[i >> 2], 0, 0);         \
        uvec4 words = uvec4(0);                                                                    \
        [[unroll]] for (uint c = 0; c < 4; c++)                                                    \
            if (c < count && TYPE == 0)                                                            \
                words[c] = name.v[i + c];                                                          \
            else if (c < count)                                                                    \
                words[c / 2] |= ((name.v[(i + c) >> 1] >> 16 * ((i + c) & 1)) & 0xffff)            \
                                << 16 * (c & 1);                                                   \
        return words;                                                                              \
    }
WORDS_OF(a, A_TYPE)
WORDS_OF(b, B_TYPE)

// Of four elements in a block: their word, and the scale's bits; zeros without them.
uvec4 words_of_block(uint i, uint count)
{
    if (count == 0)
        return uvec4(0);
    uint at = block_scales + (i >> 5), word = block_word(i);
    return uvec4(B_TYPE == 5 ? word >> nibble_shift(i) : word, b.v[at >> 1] >> 16 * (at & 1), 0, 0);
}

// Which square of its tile fetch number `fetch` takes: its first (index along rows or columns, k).
// Neighbouring invocations are neighbours along k, so that they write to different banks.
uvec2 square_place(uint fetch)
{
    uint i = fetch * INVOCATIONS + (APART ? LANE % SQUARES : LANE);
    return uvec2(4 * (i / FOURS), 4 * (i % FOURS));
}

bool takes_a(uint fetch)
{
    return APART ? LANE < SQUARES : fetch * INVOCATIONS + LANE < SQUARES;
}

bool takes_b(uint fetch)
{
    return APART ? LANE >= SQUARES && LANE < 2 * SQUARES : takes_a(fetch);
}

// Line j of the square at (i, k): where it begins, and how many of its four elements are inside, where
// rows (or columns) end at s.count and k at k_end.
uvec2 square_line(Side s, uint along, uvec2 place, uint first, uint k, uint k_end, uint j)
{
    uint i = first + place.x, deep = k + place.y;
    if (along != 0)
        deep += j;
    else
        i += j;
    uint count = along != 0 ? s.count - i : k_end - deep;
    return uvec2(s.at + i * s.along + deep * s.deep, i < s.count && deep < k_end ? count : 0);
}

// 65504 is the largest of f16. What is larger but finite stays finite; infinity and NaN stay, too.
const uint LARGEST = 0x477fe000u, INFINITE = 0x7f800000u;

vec4 bounded(vec4 value)
{
    uvec4 bits = floatBitsToUint(value), size = bits & 0x7fffffffu;
    [[unroll]] for (uint c = 0; c < 4; c++)
        if (size[c] > LARGEST && size[c] < INFINITE)
            bits[c] = bits[c] & 0x80000000u | LARGEST;
    return uintBitsToFloat(bits);
}

// Four elements out of their words, and the bits of a size that none of them is above.
vec4 decoded(uint type, uvec4 words, out uint most)
{
    if (type >= 4) {
        float scale = unpackHalf2x16(words.y).x;
        most = floatBitsToUint(abs(128.0 * scale));
        return scale * (type == 4 ? vec4(ivec4(words.xxxx << uvec4(24, 16, 8, 0)) >> 24)
                                  : vec4(words.xxxx >> uvec4(0, 8, 16, 24) & 15) - 8.0);
    }
    vec4 value = type == 0 ? uintBitsToFloat(words) : halves_of(type, words.xy);
    uvec4 size = floatBitsToUint(value) & 0x7fffffffu;
    most = max(max(size.x, size.y), max(size.z, size.w));
    return value;
}

// Turns a square of f16: element j of line i becomes element i of line j.
void turn(inout uvec2 line[4])
{
    uvec2 low[2], high[2]; // elements 0 and 2, 1 and 3, of pairs of lines
    [[unroll]] for (uint i = 0; i < 2; i++) {
        low[i] = line[2 * i] & 0xffffu | line[2 * i + 1] << 16;
        high[i] = line[2 * i] >> 16 | line[2 * i + 1] & 0xffff0000u;
    }
    line[0] = uvec2(low[0].x, low[1].x);
    line[1] = uvec2(high[0].x, high[1].x);
    line[2] = uvec2(low[0].y, low[1].y);
    line[3] = uvec2(high[0].y, high[1].y);
}

// What the next step takes, as it is stored.
const uint NEXT_B = APART ? 0 : 4 * FETCHES;
uvec4 next[NEXT_B + 4 * FETCHES];

// Rounds the square that begins at next[from] to f16, and puts it into the tile that begins at `tile`.
void put_square(uint tile, uint type, uint along, uint fetch, uint from)
{
    uvec2 line[4]; // of four f16
    if (type == 1) {
        [[unroll]] for (uint j = 0; j < 4; j++)
            line[j] = next[from + j].xy;
    } else {
        vec4 value[4];
        uint most = 0, size;
        [[unroll]] for (uint j = 0; j < 4; j++) {
            value[j] = decoded(type, next[from + j], size);
            most = max(most, size);
        }
        if (most > LARGEST)
            [[unroll]] for (uint j = 0; j < 4; j++)
                value[j] = bounded(value[j]);
        [[unroll]] for (uint j = 0; j < 4; j++)
            line[j] = uvec2(packFloat2x16(f16vec2(value[j].xy)), packFloat2x16(f16vec2(value[j].zw)));
    }
    uvec2 place = square_place(fetch);
    if (along != 0)
        turn(line);
    [[unroll]] for (uint j = 0; j < 4; j++)
        tiles[tile + (place.x + j) * PITCH + place.y / 4] = line[j];
}

// Adds the product of what is in shared memory to sums.
void multiply_tiles()
{
    uint row = gl_SubgroupID / ACROSS * ROWS, col = gl_SubgroupID % ACROSS * COLS;
    [[unroll]] for (uint k = 0; k < DEPTH; k += K) {
        coopmat<float16_t, gl_ScopeSubgroup, K, N, gl_MatrixUseB> right[N_BLOCKS];
        [[unroll]] for (uint j = 0; j < N_BLOCKS; j++)
            coopMatLoad(right[j], tiles, TILE_B + (col + N * j) * PITCH + k / 4, PITCH,
                        gl_CooperativeMatrixLayoutColumnMajor);
        [[unroll]] for (uint i = 0; i < M_BLOCKS; i++) {
            coopmat<float16_t, gl_ScopeSubgroup, M, K, gl_MatrixUseA> left;
            coopMatLoad(left, tiles, (row + M * i) * PITCH + k / 4, PITCH,
                        gl_CooperativeMatrixLayoutRowMajor);
            [[unroll]] for (uint j = 0; j < N_BLOCKS; j++)
                sums[i * N_BLOCKS + j] = coopMatMulAdd(left, right[j], sums[i * N_BLOCKS + j]);
        }
    }
}

// One side of a step, as far as it is the same for all steps. Of whole squares, whose fours are in aligned
// words, fetching is no more than loads.
struct Fetcher {
    Side side;
    uint first;   // row of op(a) or column of op(b) where the tile begins
    bool fours;   // four neighbours are in aligned words
    bool inside;  // all of the tile's rows, or columns, are
};

Fetcher fetcher(Side s, uint along, uint first, uint k_begin)
{
    // Lines, and where the fours begin in them.
    uint odd = s.at | (along != 0 ? s.deep | first : s.along | k_begin);
    return Fetcher(s, first, (odd & 3) == 0, first + TILE <= s.count);
}

void fetch_a(Fetcher from, uint fetch, uint to, uint k, uint k_end)
{
    uvec2 place = square_place(fetch);
    Side s = from.side;
    if (from.fours && from.inside && k + DEPTH <= k_end) {
        uint i = s.at + (from.first + place.x) * s.along + (k + place.y) * s.deep;
        [[unroll]] for (uint j = 0; j < 4; j++)
            next[to + j] = words_a(i + j * (A_ALONG != 0 ? s.deep : s.along), 4, true);
        return;
    }
    [[unroll]] for (uint j = 0; j < 4; j++) {
        uvec2 line = square_line(s, A_ALONG, place, from.first, k, k_end, j);
        next[to + j] = words_a(line.x, line.y, from.fours);
    }
}

void fetch_b(Fetcher from, uint fetch, uint to, uint k, uint k_end)
{
    uvec2 place = square_place(fetch);
    Side s = from.side;
    if ((B_TYPE >= 4 || from.fours) && from.inside && k + DEPTH <= k_end) {
        uint i = s.at + (from.first + place.x) * s.along + (k + place.y) * s.deep;
        [[unroll]] for (uint j = 0; j < 4; j++) {
            uint at = i + j * (B_ALONG != 0 ? s.deep : s.along);
            next[to + j] = B_TYPE >= 4 ? words_of_block(at, 4) : words_b(at, 4, true);
        }
        return;
    }
    [[unroll]] for (uint j = 0; j < 4; j++) {
        uvec2 line = square_line(s, B_ALONG, place, from.first, k, k_end, j);
        next[to + j] = B_TYPE >= 4 ? words_of_block(line.x, line.y)
                                   : words_b(line.x, line.y, from.fours);
    }
}

void fetch_tiles(Fetcher a_from, Fetcher b_from, uint k, uint k_end)
{
    [[unroll]] for (uint f = 0; f < FETCHES; f++) {
        if (takes_a(f))
            fetch_a(a_from, f, 4 * f, k, k_end);
        if (takes_b(f))
            fetch_b(b_from, f, NEXT_B + 4 * f, k, k_end);
    }
}

// Sets sums to the products of rows `row`.. of op(a) and columns `col`.. of op(b) over k_begin ..
// k_end - 1. The next step is fetched into registers while this one is multiplied.
void multiply(Side left, Side right, uint row, uint col, uint k_begin, uint k_end)
{
    Fetcher a_from = fetcher(left, A_ALONG, row, k_begin);
    Fetcher b_from = fetcher(right, B_ALONG, col, k_begin);
    [[unroll]] for (uint i = 0; i < M_BLOCKS * N_BLOCKS; i++)
        sums[i] = coopmat<float, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator>(0.0);
    fetch_tiles(a_from, b_from, k_begin, k_end);
    for (uint k = k_begin; k < k_end; k += DEPTH) {
        barrier(); // the tiles of the step before have been read
        [[unroll]] for (uint f = 0; f < FETCHES; f++) {
            if (takes_a(f))
                put_square(0, A_TYPE, A_ALONG, f, 4 * f);
            if (takes_b(f))
                put_square(TILE_B, B_TYPE, B_ALONG, f, NEXT_B + 4 * f);
        }
        barrier();
        fetch_tiles(a_from, b_from, k + DEPTH, k_end);
        multiply_tiles();
    }
}

// A part is PART_ROWS rows of each subgroup.
const uint PARTS = TILE / 32, PART_ROWS = 32 / DOWN;
#define STAGED(i)            uintBitsToFloat(tiles[(i) >> 1][(i)&1])
#define SET_STAGED(i, value) tiles[(i) >> 1][(i)&1] = floatBitsToUint(value)

void stage(uint part)
{
    uint row = gl_SubgroupID / ACROSS * PART_ROWS, col = gl_SubgroupID % ACROSS * COLS;
    barrier();
    [[unroll]] for (uint i = 0; i < PART_ROWS / M; i++)
        [[unroll]] for (uint j = 0; j < N_BLOCKS; j++)
            coopMatStore(sums[(part * (PART_ROWS / M) + i) * N_BLOCKS + j], tiles,
                         ((row + M * i) * TILE + col + N * j) / 2, TILE / 2,
                         gl_CooperativeMatrixLayoutRowMajor);
    barrier();
}

uint staged_row(uint part, uint line)
{
    return line / PART_ROWS * ROWS + PART_ROWS * part + line % PART_ROWS;
}

#include "matmul_store.glsl"
