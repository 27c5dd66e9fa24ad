// The tiled product: a workgroup computes TILE x TILE elements of op(a).op(b), each invocation
// TM x TN of them in registers. Steps of DEPTH along k pass through shared memory, where both tiles
// are kept with k as the slow index, so that every access there is a whole vec4.
#include "matmul.glsl"

layout(constant_id = TILE_ID) const uint TILE = 64; // 32, 64 or 128
const uint DEPTH = TILE_DEPTH;
const uint TM = TILE == 32 ? 4 : 8, TN = TILE == 128 ? 8 : 4;
const uint TX = TILE / TN, TY = TILE / TM; // invocations across and down: 64, 128 or 256 in all
const uint FOURS = TILE / 4;
const uint PITCH = FOURS + 1; // in vec4; lines that differ in k begin in different banks

const uint TILE_B = DEPTH * PITCH; // where b's tile begins
shared vec4 tiles[2 * DEPTH * PITCH];

// Element (4i + c, 4j + d) of the invocation's part is acc[(4 * i + c) * (TN / 4) + j][d].
vec4 acc[16];

// A step's tiles come in blocks of four lines at four k: each invocation fetches one, those of the
// first half from a, four elements at a time along whichever index is contiguous in memory, where
// neighbouring invocations are neighbours, too.
const uint A_BLOCKS = FOURS * (DEPTH / 4);

// The block that an invocation fetched for the next step, by rows: these are its lines if k is
// contiguous, else its places along k.
vec4 fetched[4];
// Where element k = 0 of its lines is. Lines beyond the last repeat it: what comes of them is not
// stored.
uint line_at[4];

// Fetches the block at k of a side; `whole`: all its lines are there. Zeros beyond k_end, where both
// sides must be zero lest 0 meets infinity.
#define FETCH_BLOCK(name, load, load_four)                                                         \
    void name(Side s, bool whole, uint k, uint k_end)                                              \
    {                                                                                              \
        bool contiguous_k = s.deep == 1;                                                           \
        if (k + 4 <= k_end && contiguous_k && by_fours(s.at, 1, s.along)) {                        \
            [[unroll]] for (uint i = 0; i < 4; i++)                                                \
                fetched[i] = load_four(line_at[i] + k);                                            \
        } else if (k + 4 <= k_end && whole && by_fours(s.at, s.along, s.deep)) {                   \
            [[unroll]] for (uint i = 0; i < 4; i++)                                                \
                fetched[i] = load_four(line_at[0] + (k + i) * s.deep);                             \
        } else {                                                                                   \
            [[unroll]] for (uint i = 0; i < 4; i++)                                                \
                [[unroll]] for (uint j = 0; j < 4; j++) {                                          \
                    uint line = contiguous_k ? line_at[i] : line_at[j];                            \
                    uint deep = k + (contiguous_k ? j : i);                                        \
                    fetched[i][j] = deep < k_end ? load(line + deep * s.deep) : 0.0;               \
                }                                                                                  \
        }                                                                                          \
    }
FETCH_BLOCK(fetch_a, load_a, load_a_four)
FETCH_BLOCK(fetch_b, load_b, load_b_four)

// Puts it where it begins in the tiles.
void put_block(uint at, bool contiguous_k)
{
    if (contiguous_k)
        [[unroll]] for (uint j = 0; j < 4; j++)
            tiles[at + j * PITCH] =
                vec4(fetched[0][j], fetched[1][j], fetched[2][j], fetched[3][j]);
    else
        [[unroll]] for (uint j = 0; j < 4; j++)
            tiles[at + j * PITCH] = fetched[j];
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
    bool of_a = LANE < A_BLOCKS, contiguous_k = (of_a ? left.deep : right.deep) == 1;
    uint number = LANE % A_BLOCKS;
    uint four = contiguous_k ? number / (DEPTH / 4) : number % FOURS;
    uint deep = 4 * (contiguous_k ? number % (DEPTH / 4) : number / FOURS);
    uint first = (of_a ? row : col) + 4 * four, put = (of_a ? 0 : TILE_B) + deep * PITCH + four;
    bool whole = first + 4 <= (of_a ? left.count : right.count);
    [[unroll]] for (uint i = 0; i < 4; i++)
        line_at[i] = of_a ? left.at + min(first + i, left.count - 1) * left.along
                          : right.at + min(first + i, right.count - 1) * right.along;
    [[unroll]] for (uint i = 0; i < 16; i++)
        acc[i] = vec4(0.0);
    if (of_a)
        fetch_a(left, whole, k_begin + deep, k_end);
    else
        fetch_b(right, whole, k_begin + deep, k_end);
    for (uint k = k_begin; k < k_end; k += DEPTH) {
        barrier(); // the tiles of the step before have been read
        put_block(put, contiguous_k);
        barrier();
        if (of_a)
            fetch_a(left, whole, k + DEPTH + deep, k_end);
        else
            fetch_b(right, whole, k + DEPTH + deep, k_end);
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
