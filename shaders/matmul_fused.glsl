// Products of few rows with what comes before and after them, for shaders that include
// matmul_staged.glsl and one of these products, and define multiply_staged: the kernels of chains of ops
// (docs/kernels.md). kernels_cl/matmul_fused.clh holds the same.
//
// Each workgroup makes the rows of a as the product wants them for itself: copied, normalised, gated
// (STAGE), and with ROUND as int8 (see matmul_round.comp). One row is small beside its columns of b.
ARGS(fused_args)
#define ROW_OPERAND(slot, name)                                                                    \
    ITERA_OPERAND(slot, readonly, float, name)                                                     \
    ITERA_OPERAND(slot, readonly, vec4, name##_fours)
ROW_OPERAND(3, w)
ROW_OPERAND(4, shift)
IN(5, bias)
IN(6, residual)
OUT(7, y)
IN(8, taps)
IN(9, conv_bias)
INOUT(10, state)
OUT(11, conv)
INOUT_INT(12, index)
INOUT(13, share)
#include "matmul_finish.glsl"
#include "moe.glsl"
#define LANE_BUFFER GEMV_LANES
#include "reduce.glsl"

layout(constant_id = STAGE_ID) const uint STAGE = STAGE_COPY;
layout(constant_id = EXPERTS_ID) const uint EXPERTS = EXPERTS_NONE;
layout(constant_id = CONV_TAPS_ID) const uint CONV_TAPS = 0; // none

// Of the shader: the product of what is staged with columns `col`.. of matrix `expert` of b, left in
// parts.
void multiply_staged(uint expert, uint col);

// Elements at .. at + count - 1, then zeros.
#define FOUR_OF(four, name, at, count)                                                             \
    vec4 four = vec4(0.0);                                                                         \
    if (((at) & 3) == 0 && (count) >= 4) {                                                         \
        four = name##_fours.v[(at) >> 2];                                                          \
    } else {                                                                                       \
        four.x = name.v[at];                                                                       \
        if ((count) > 1)                                                                           \
            four.y = name.v[(at) + 1];                                                             \
        if ((count) > 2)                                                                           \
            four.z = name.v[(at) + 2];                                                             \
        if ((count) > 3)                                                                           \
            four.w = name.v[(at) + 3];                                                             \
    }

vec4 row_four(uint line, uint k)
{
    uint at = p.a_at + line * p.a_ld + k, count = p.depth - k;
    if ((at & 3) == 0 && count >= 4)
        return uintBitsToFloat(a_four.v[at >> 2]);
    uvec4 v = uvec4(a.v[at], 0, 0, 0);
    if (count > 1)
        v.y = a.v[at + 1];
    if (count > 2)
        v.z = a.v[at + 2];
    if (count > 3)
        v.w = a.v[at + 3];
    return uintBitsToFloat(v);
}

// What a row is normalised by.
struct Norm {
    float mean, scale;
};

Norm norm_of(uint line)
{
    Norm n = Norm(0.0, 1.0);
    if (STAGE != STAGE_RMS_NORM && STAGE != STAGE_LAYER_NORM)
        return n;
    vec4 sum = vec4(0.0);
    if (STAGE == STAGE_LAYER_NORM) {
        for (uint k = 4 * LANE; k < p.depth; k += 4 * GEMV_LANES)
            sum += row_four(line, k);
        n.mean = group_sum(sum.x + sum.y + sum.z + sum.w) / float(p.depth);
        sum = vec4(0.0);
    }
    for (uint k = 4 * LANE; k < p.depth; k += 4 * GEMV_LANES) {
        vec4 v = row_four(line, k) - n.mean;
        v = mix(vec4(0.0), v, lessThan(uvec4(0, 1, 2, 3), uvec4(p.depth - k)));
        sum += v * v;
    }
    float square = group_sum(sum.x + sum.y + sum.z + sum.w);
    n.scale = 1.0 / sqrt(square / float(p.depth) + p.eps);
    return n;
}

// Four elements of a row, the first number k, as the product wants them.
vec4 staged_four(uint line, uint k, Norm n)
{
    vec4 v = row_four(line, k);
    uint count = p.depth - k;
    if (STAGE == STAGE_RMS_NORM || STAGE == STAGE_LAYER_NORM) {
        FOUR_OF(weight, w, p.w_at + k, count)
        v = (v - n.mean) * n.scale * weight;
    }
    if (STAGE == STAGE_LAYER_NORM) {
        FOUR_OF(added, shift, p.shift_at + k, count)
        v += added;
    }
    if (STAGE == STAGE_SILU_MUL) {
        FOUR_OF(gate, w, p.w_at + line * p.w_ld + k, count)
        v *= vec4(silu_of(gate.x), silu_of(gate.y), silu_of(gate.z), silu_of(gate.w));
    }
    return mix(vec4(0.0), v, lessThan(uvec4(0, 1, 2, 3), uvec4(count)));
}

#ifdef ROUND
shared uint stage_peaks[GEMV_LANES];
shared int stage_totals[GEMV_LANES];

// Rounds a row as matmul_round does: an invocation takes half a block.
void stage_rounded(uint r, uint line, Norm n)
{
    for (uint first = 0; first < p.depth; first += 16 * GEMV_LANES) {
        uint k = first + 16 * LANE, peak = 0;
        bool inside = k < p.depth;
        vec4 x[4];
        [[unroll]] for (uint i = 0; i < 4; i++) {
            x[i] = vec4(0.0);
            if (inside)
                x[i] = staged_four(line, k + 4 * i, n);
            uvec4 size = floatBitsToUint(x[i]) & 0x7fffffff; // orders NaN above all
            peak = max(peak, max(max(size.x, size.y), max(size.z, size.w)));
        }
        stage_peaks[LANE] = peak;
        barrier();
        peak = max(peak, stage_peaks[LANE ^ 1]);
        bool finite = peak < 0x7f800000, none = peak < 0x0554ad2e; // 1e-35
        float factor = finite && !none ? 127.0 / uintBitsToFloat(peak) : 0.0;
        uvec4 words;
        int total = 0;
        [[unroll]] for (uint i = 0; i < 4; i++) {
            ivec4 q = finite && !none ? ivec4(roundEven(x[i] * factor)) : ivec4(0);
            words[i] = (q.x & 0xff) | (q.y & 0xff) << 8 | (q.z & 0xff) << 16 | q.w << 24;
            total += q.x + q.y + q.z + q.w;
        }
        stage_totals[LANE] = total;
        barrier();
        uint element = r * p.depth + k;
        uint scale = !finite ? 0x7fc00000
                     : none  ? 0
                             : floatBitsToUint(uintBitsToFloat(peak) / 127.0);
        if (inside)
            staged[element >> 4] = words;
        if (inside && LANE % 2 == 0)
            staged_sums[element >> 5] = uvec2(scale, uint(total + stage_totals[LANE + 1]));
    }
}
#endif

// Puts rows `first`.. of `lines` into shared memory. The rows after the last repeat it.
void stage_rows(uint first, uint lines)
{
    uint fours = (p.depth + 3) / 4;
    // Unrolled, eight rows would fill all registers.
    [[dont_unroll]] for (uint r = 0; r < ROWS; r++) {
        uint line = min(first + r, lines - 1);
        Norm n = norm_of(line);
#ifdef ROUND
        if (INTEGER != 0) {
            stage_rounded(r, line, n);
            continue;
        }
#endif
        for (uint i = LANE; i < fours; i += GEMV_LANES)
            staged[r * fours + i] = floatBitsToUint(staged_four(line, 4 * i, n));
    }
    barrier();
}

// One step of a causal convolution: channel c of row m, whose newest input is x.
void convolve(uint m, uint c, float x)
{
    uint before = p.state_at + (m * p.conv_cols + c) * p.state_ld, tap = p.taps_at + c * p.taps_ld;
    float sum = p.has_conv_bias != 0 ? conv_bias.v[p.conv_bias_at + c] : 0.0;
    [[unroll]] for (uint k = 0; k + 1 < CONV_TAPS; k++) {
        float v = p.has_state != 0 ? state.v[before + k] : 0.0;
        sum += taps.v[tap + k] * v;
        if (p.has_state != 0 && k > 0)
            state.v[before + k - 1] = v;
    }
    if (p.has_state != 0 && CONV_TAPS > 1)
        state.v[before + CONV_TAPS - 2] = x;
    sum += taps.v[tap + CONV_TAPS - 1] * x;
    conv.v[p.conv_at + m * p.conv_ld + c] = p.silu != 0 ? silu_of(sum) : sum;
}

const uint ROUTED = 1 + EXPERTS / EXPERTS_ROUTE * (ROUTED_EXPERTS - 1);
shared float route_value[ROUTED];
shared uint route_key[ROUTED], route_place[ROUTED];
shared float route_top;

// Chooses experts for a row, whose logits are in parts, as moe_route does.
void route(uint row, bool idle)
{
    for (uint i = LANE; i < p.experts; i += GEMV_LANES) {
        float x = output_sum(i) + bias_at(i);
        route_value[i] = x;
        route_key[i] = choice_key(x);
    }
    barrier();
    for (uint i = LANE; i < p.experts; i += GEMV_LANES) {
        uint own = route_key[i], before = 0;
        for (uint j = 0; j < p.experts; j++) {
            uint least = own + (j < i ? 0 : 1); // no key is the largest number
            before += route_key[j] >= least ? 1 : 0;
        }
        route_place[i] = before;
        if (before == 0)
            route_top = route_value[i];
    }
    barrier();
    for (uint i = LANE; i < p.experts; i += GEMV_LANES) {
        bool counts = p.over_all != 0 || route_place[i] < p.k;
        route_value[i] = counts ? exp(route_value[i] - route_top) : 0.0;
    }
    barrier();
    for (uint i = LANE; i < p.experts; i += GEMV_LANES) {
        uint place = route_place[i];
        if (idle || place >= p.k)
            continue;
        float sum = 0.0;
        for (uint j = 0; j < p.experts; j++)
            sum += route_value[j];
        index.v[p.index_at + row * p.index_ld + place] = int(i);
        share.v[p.share_at + row * p.share_ld + place] = route_value[i] / sum;
    }
}

// A workgroup computes C_LANES * COLS columns of ROWS rows of y, with experts of one row.
//   none  y = act(a.bT + bias) + residual
//   up    y[i] = act(a[i / k].b[e]T), e being expert i % k of row i / k of index
//   down  y[i] = sum over j < k of share[i][j] a[i k + j].b[e]T, + residual
//   route index and share of what y would be
// Of columns conv_first.. of y, conv_cols of them, there is only what the convolution makes.
void main()
{
    begin_blocks(p.b_at, p.scales);
    uint across = (p.cols + C_LANES * COLS - 1) / (C_LANES * COLS);
    uint group_row = GROUP / across, col = GROUP % across * C_LANES * COLS;
    bool idle = group_row * ROWS >= p.rows; // the grid may be larger
    uint row = idle ? 0 : group_row * ROWS, turns = EXPERTS == EXPERTS_DOWN ? p.k : 1;
    float total = 0.0;
    for (uint j = 0; j < turns; j++) {
        int expert = 0;
        uint line = row, lines = p.rows;
        if (EXPERTS == EXPERTS_UP) {
            expert = index.v[p.index_at + row / p.k * p.index_ld + row % p.k];
            line = row / p.k;
            lines = p.rows / p.k;
        } else if (EXPERTS == EXPERTS_DOWN) {
            expert = index.v[p.index_at + row * p.index_ld + j];
            line = row * p.k + j;
            lines = p.rows * p.k;
        }
        stage_rows(line, lines);
        multiply_staged(EXPERTS == EXPERTS_ROUTE ? 0 : clamp_index(expert, p.experts), col);
        if (EXPERTS == EXPERTS_DOWN) {
            if (LANE < OUTPUTS)
                total += share.v[p.share_at + row * p.share_ld + j] * output_sum(LANE);
            barrier();
        }
    }
    if (EXPERTS == EXPERTS_ROUTE) {
        route(row, idle);
        return;
    }
    for (uint i = LANE; i < OUTPUTS; i += GEMV_LANES) {
        uint m = row + i / (C_LANES * COLS), n = col + i % (C_LANES * COLS);
        if (idle || m >= p.rows || n >= p.cols)
            continue;
        float sum = EXPERTS == EXPERTS_DOWN ? total : output_sum(i) + bias_at(n);
        sum = activate(sum, p.act) + residual_at(m, n);
        if (CONV_TAPS > 0 && n - p.conv_first < p.conv_cols)
            convolve(m, n - p.conv_first, sum);
        else
            store(p.y_at + m * p.y_ld + n, sum);
    }
}
