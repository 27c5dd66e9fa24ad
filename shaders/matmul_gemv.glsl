// Products with few rows: a (few rows) is small and read again and again, b (many) streams by once.
// A workgroup computes ROWS rows of C_LANES * COLS columns. K_LANES invocations share a column's k,
// and add up their parts in shared memory. Neighbouring invocations are neighbours in k where b is
// contiguous there, else neighbouring columns.
//
// What hides memory's latency is loads that are under way together: an invocation reads WIDE elements
// of b at a time, 16 bytes, at DEEP places of each of its columns before it uses the first. Rounds of
// such reads know neither ends nor strides; one more, of places that may lie beyond the end, and
// single elements, where lines cannot be read so or do not end so, come after them.
#include "matmul.glsl"

layout(constant_id = K_LANES_ID) const uint K_LANES = 32; // a power of two up to 128
layout(constant_id = COLS_ID) const uint COLS = 4;     // of an invocation, C_LANES apart; up to 4
layout(constant_id = ROWS_ID) const uint ROWS = 1;     // up to 8; COLS * ROWS <= MAX_OUTPUTS
const uint GEMV_LANES = ITERA_GPU_LOCAL;
const uint C_LANES = GEMV_LANES / K_LANES;
const uint OUTPUTS = C_LANES * COLS * ROWS;
const uint WIDE = B_TYPE == 1 || B_TYPE == 2 ? 8 : 4;
const uint DEEP = COLS == 1 ? 4 : 2;
const uint SINGLES = 4; // places that are read together element by element

// Sums in the making, K_LANES for each output; those of output (r, c) begin at output_slot(r, c).
shared float parts[GEMV_LANES * COLS * ROWS];

uint output_slot(uint r, uint c)
{
    return r * C_LANES * COLS + c;
}

// An invocation's sums: of row r and its column c, sums[r * COLS + c].
float sums[MAX_OUTPUTS];

// Of each output's parts makes `left`, an eighth of what they were.
void fold_parts(uint left)
{
    for (uint i = LANE; i < OUTPUTS * left; i += GEMV_LANES) {
        uint at = i / left * K_LANES + i % left;
        float sum = parts[at];
        [[unroll]] for (uint j = 1; j < 8; j++)
            sum += parts[at + j * left];
        parts[at] = sum;
    }
    barrier();
}

// Adds up `sums` over the invocations that share columns, as far as output_sum wants it. Called by
// the whole workgroup.
void add_parts(uint c_lane, uint k_lane)
{
    [[unroll]] for (uint r = 0; r < ROWS; r++)
        [[unroll]] for (uint c = 0; c < COLS; c++)
            parts[output_slot(r, c * C_LANES + c_lane) * K_LANES + k_lane] = sums[r * COLS + c];
    barrier();
    if (K_LANES > 8)
        fold_parts(K_LANES / 8);
    if (K_LANES > 64)
        fold_parts(K_LANES / 64);
}

// The sum of output i (output_slot), after add_parts.
float output_sum(uint i)
{
    const uint left = K_LANES > 64 ? K_LANES / 64 : K_LANES > 8 ? K_LANES / 8 : K_LANES;
    float sum = parts[i * K_LANES];
    [[unroll]] for (uint j = 1; j < left; j++)
        sum += parts[i * K_LANES + j];
    return sum;
}

// Where an invocation reads: the first elements of its lines, and the same in fours of a and in places
// (WIDE elements) of b.
uint few_line[8], many_line[4], few_four[8], many_place[4];

// Four elements of row r of few: number `four` of its line; and element `at`.
#ifdef STAGED_ROWS
vec4 read_few(uint r, uint four)
{
    return uintBitsToFloat(staged[few_four[r] + four]);
}

float few_element(uint at)
{
    return uintBitsToFloat(staged[at / 4][at % 4]);
}
#else
vec4 read_few(uint r, uint four)
{
    return load_a_quad(few_four[r] + four);
}

float few_element(uint at)
{
    return load_a(at);
}
#endif

// Adds the products of the DEEP places from `place` on, K_LANES apart, to the sums; `checked`: of
// those before end.
void add_places(uint place, uint end, bool checked)
{
    uvec4 w[DEEP * COLS];
    [[unroll]] for (uint d = 0; d < DEEP; d++)
        [[unroll]] for (uint c = 0; c < COLS; c++) {
            uint at = place + d * K_LANES;
            w[d * COLS + c] = fetch_b(many_place[c] + (checked ? min(at, end - 1) : at));
        }
    [[unroll]] for (uint d = 0; d < DEEP; d++) {
        uint at = checked ? min(place + d * K_LANES, end - 1) : place + d * K_LANES;
        [[unroll]] for (uint r = 0; r < ROWS; r++) {
            vec4 x[WIDE / 4];
            [[unroll]] for (uint i = 0; i < WIDE / 4; i++)
                x[i] = read_few(r, at * (WIDE / 4) + i);
            [[unroll]] for (uint c = 0; c < COLS; c++) {
                float sum = sums[r * COLS + c];
                [[unroll]] for (uint i = 0; i < WIDE / 4; i++)
                    sum += dot(x[i], expand_b(w[d * COLS + c], i, many_place[c] + at));
                if (!checked || place + d * K_LANES < end)
                    sums[r * COLS + c] = sum;
            }
        }
    }
}

// The same of single elements SINGLES places from k on.
void add_singles(Side few, Side many, uint k, uint end)
{
    float w[SINGLES * 4];
    [[unroll]] for (uint d = 0; d < SINGLES; d++)
        [[unroll]] for (uint c = 0; c < COLS; c++)
            w[d * COLS + c] = load_b(many_line[c] + min(k + d * K_LANES, end - 1) * many.deep);
    [[unroll]] for (uint d = 0; d < SINGLES; d++)
        [[unroll]] for (uint r = 0; r < ROWS; r++) {
            float x = few_element(few_line[r] + min(k + d * K_LANES, end - 1) * few.deep);
            [[unroll]] for (uint c = 0; c < COLS; c++) {
                float sum = sums[r * COLS + c] + x * w[d * COLS + c];
                if (k + d * K_LANES < end)
                    sums[r * COLS + c] = sum;
            }
        }
}

// Makes the sums over k_begin .. k_end - 1 (k_begin a multiple of 8) for rows `row`.. of few and
// columns `col`.. of many: see output_sum. Called by the whole workgroup.
void multiply_lines(Side few, Side many, uint row, uint col, uint k_begin, uint k_end)
{
    bool wide = few.deep == 1 && many.deep == 1 && ((few.at | few.along) & 3) == 0 &&
                ((many.at | many.along) & (WIDE - 1)) == 0;
    uint c_lane = many.deep == 1 ? LANE / K_LANES : LANE % C_LANES;
    uint k_lane = many.deep == 1 ? LANE % K_LANES : LANE / C_LANES;
    [[unroll]] for (uint i = 0; i < ROWS * COLS; i++)
        sums[i] = 0.0;
    [[unroll]] for (uint r = 0; r < ROWS; r++) {
        few_line[r] = few.at + min(row + r, few.count - 1) * few.along;
        few_four[r] = few_line[r] / 4;
    }
    [[unroll]] for (uint c = 0; c < COLS; c++) {
        many_line[c] = many.at + min(col + c * C_LANES + c_lane, many.count - 1) * many.along;
        many_place[c] = many_line[c] / WIDE;
    }
    uint done = k_begin;
    if (wide) {
        uint place = k_begin / WIDE, end = k_end / WIDE;
        uint rounds = (max(end, place) - place) / (DEEP * K_LANES);
        if (rounds > 0)
            do {
                add_places(place + k_lane, end, false);
                place += DEEP * K_LANES;
            } while (--rounds > 0);
        if (place < end)
            add_places(place + k_lane, end, true);
        done = max(end * WIDE, k_begin);
    }
    for (; done < k_end; done += SINGLES * K_LANES)
        add_singles(few, many, done + k_lane, k_end);
    add_parts(c_lane, k_lane);
}
