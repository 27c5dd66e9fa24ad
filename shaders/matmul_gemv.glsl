// Products with few rows: a (few rows) is small and read again and again, b (many) streams by once.
// A workgroup computes ROWS rows of C_LANES * COLS columns. K_LANES invocations share a column's k,
// four at a time, and add up their parts in shared memory. Neighbouring invocations are neighbours
// in k where b is contiguous there, else neighbouring columns.
#include "matmul.glsl"

layout(constant_id = K_LANES_ID) const uint K_LANES = 32; // a power of two up to 128
layout(constant_id = COLS_ID) const uint COLS = 4;     // of an invocation, C_LANES apart
layout(constant_id = ROWS_ID) const uint ROWS = 1;     // COLS * ROWS <= MAX_OUTPUTS
const uint GEMV_LANES = ITERA_GPU_LOCAL;
const uint C_LANES = GEMV_LANES / K_LANES;
const uint OUTPUTS = C_LANES * COLS * ROWS;

// Sums in the making, K_LANES for each output; those of output (r, c) begin at output_slot(r, c).
shared float parts[GEMV_LANES * COLS * ROWS];

uint output_slot(uint r, uint c)
{
    return r * C_LANES * COLS + c;
}

// Elements k .. k + count - 1 of line i, then zeros.
vec4 read_a(Side s, bool fours, uint i, uint k, uint count)
{
    uint at = s.at + min(i, s.count - 1) * s.along + k * s.deep;
    if (fours && count >= 4)
        return load_a_four(at);
    vec4 v = vec4(load_a(at), 0.0, 0.0, 0.0);
    if (count > 1)
        v.y = load_a(at + s.deep);
    if (count > 2)
        v.z = load_a(at + 2 * s.deep);
    if (count > 3)
        v.w = load_a(at + 3 * s.deep);
    return v;
}

vec4 read_b(Side s, bool fours, uint i, uint k, uint count)
{
    uint at = s.at + min(i, s.count - 1) * s.along + k * s.deep;
    if (fours && count >= 4)
        return load_b_four(at);
    vec4 v = vec4(load_b(at), 0.0, 0.0, 0.0);
    if (count > 1)
        v.y = load_b(at + s.deep);
    if (count > 2)
        v.z = load_b(at + 2 * s.deep);
    if (count > 3)
        v.w = load_b(at + 3 * s.deep);
    return v;
}

// Adds up `sum`, ROWS * COLS of each invocation, over the invocations that share columns: the total
// of output (r, c) comes into parts[output_slot(r, c) * K_LANES]. Called by the whole workgroup.
void add_parts(float sum[16], uint c_lane, uint k_lane)
{
    [[unroll]] for (uint r = 0; r < ROWS; r++)
        [[unroll]] for (uint c = 0; c < COLS; c++)
            parts[output_slot(r, c * C_LANES + c_lane) * K_LANES + k_lane] = sum[r * COLS + c];
    barrier();
    for (uint half_lanes = K_LANES / 2; half_lanes > 0; half_lanes /= 2) {
        for (uint i = LANE; i < OUTPUTS * half_lanes; i += GEMV_LANES) {
            uint at = i / half_lanes * K_LANES + i % half_lanes;
            parts[at] += parts[at + half_lanes];
        }
        barrier();
    }
}

// Leaves the sums over k_begin .. k_end - 1 (k_begin a multiple of 4) for rows `row`.. of few and
// columns `col`.. of many in parts[output_slot(r, c) * K_LANES]. Called by the whole workgroup.
void multiply_lines(Side few, Side many, uint row, uint col, uint k_begin, uint k_end)
{
    bool a_fours = by_fours(few.at, few.deep, few.along);
    bool b_fours = by_fours(many.at, many.deep, many.along);
    uint c_lane = many.deep == 1 ? LANE / K_LANES : LANE % C_LANES;
    uint k_lane = many.deep == 1 ? LANE % K_LANES : LANE / C_LANES;
    float sum[16];
    [[unroll]] for (uint i = 0; i < 16; i++)
        sum[i] = 0.0;
    for (uint k = k_begin + 4 * k_lane; k < k_end; k += 4 * K_LANES) {
        vec4 w[16];
        [[unroll]] for (uint c = 0; c < COLS; c++)
            w[c] = read_b(many, b_fours, col + c * C_LANES + c_lane, k, k_end - k);
        [[unroll]] for (uint r = 0; r < ROWS; r++) {
            vec4 x = read_a(few, a_fours, row + r, k, k_end - k);
            [[unroll]] for (uint c = 0; c < COLS; c++)
                sum[r * COLS + c] += dot(x, w[c]);
        }
    }
    add_parts(sum, c_lane, k_lane);
}
