#version 450
#extension GL_GOOGLE_include_directive : require
#include "scan_selective_bwd.glsl"

ARGS(bwd_args)
IN(1, dy)
IN(2, x)
IN(3, dt)
IN(4, A)
IN(5, B)
IN(6, C)
IN(7, D)
IN(8, z)
IN(9, boundaries)
IN(10, flows)
INOUT(11, kept)
INOUT(12, dx)
INOUT(13, ddt)
INOUT(14, dz)
OUT(15, sum_a)
OUT(16, sum_b)
OUT(17, sum_c)
OUT(18, sum_d)

const uint SUMS = 2 * STATES + 3; // values of a lane and step that are summed over lanes
const uint STRIDE = SIZE + 16; // of one of them: two in a row of banks do not collide
const uint GATHER = SIZE / (2 * STATES); // lanes that sum one of the first 2 STATES
const uint PARTS = GATHER / SPLIT; // sums of one state, each over SIZE / GATHER channels

shared float tile_x[STEPS * WIDE], tile_dt[STEPS * WIDE], tile_dy[STEPS * WIDE];
shared float tile_b[STEPS * SLOTS], tile_c[STEPS * SLOTS];
shared float lanes[SUMS * STRIDE], parts[STEPS * SIZE];

// The gradients of one span of a sequence (all of its steps in the sequential variant, with nothing
// flowing in). A workgroup takes its channels through it piece by piece, last piece first. A piece
// begins at a stored boundary; its states are computed from there twice: once to keep those before
// each tile of STEPS steps (in `kept`, each lane its own), once in each tile, in registers, before
// the gradients are taken from its last step to its first. Scratch: `kept` is of a piece, not of T;
// sum_b and sum_c together have 2 states / WIDE times the elements of x, sum_a one state of every
// span.
void main()
{
    float h[STATES], flow[STATES], rate[STATES], grad_a[STATES], grad_d = 0.0;
    uint blocks = (p.channels + WIDE - 1) / WIDE, block = GROUP % blocks;
    uint span = GROUP / blocks % p.spans, i = GROUP / blocks / p.spans;
    uint first = block * WIDE, channel = LANE / SPLIT, lane = LANE % SPLIT;
    uint c = first + channel, cols = p.channels - first;
    bool own = i < p.batch && c < p.channels, gated = (p.has & HAS_Z) != 0;
    bool add = p.first_state > 0, skip = (p.has & HAS_D) != 0 && !add;
    uint t0 = span * p.span, t1 = i < p.batch ? min(t0 + p.span, p.time) : 0;
    uint pieces = t1 > t0 ? (t1 - t0 + p.piece - 1) / p.piece : 0;
    uint span_row = (i * p.spans + span) * p.channels + c;
    uint boundaries_ld = p.boundaries_ld != 0 ? p.boundaries_ld : p.all_states;

    [[unroll]] for (uint s = 0; s < STATES; s++) {
        uint n = s * SPLIT + lane;
        bool live = own && n < p.states;
        grad_a[s] = 0.0;
        rate[s] = live ? A.v[p.A_at + c * p.A_ld + p.first_state + n] * LOG2_E : 0.0;
        flow[s] = 0.0;
        if (live && (p.has & HAS_FLOW) != 0)
            flow[s] = flows.v[p.flows_at + span_row * p.states + n];
    }
    for (uint k = pieces; k-- > 0;) {
        uint begin = t0 + k * p.piece, end = min(begin + p.piece, t1);
        uint tiles = (end - begin + STEPS - 1) / STEPS;
        uint boundary = (i * p.chunks + begin / p.chunk) * p.channels + c;
        uint from = p.boundaries_at + boundary * boundaries_ld + p.first_state + lane;
        [[unroll]] for (uint s = 0; s < STATES; s++)
            h[s] = own && s * SPLIT + lane < p.states ? boundaries.v[from + s * SPLIT] : 0.0;
        for (uint tile = 0; tile < tiles; tile++) {
            uint to = p.kept_at + (GROUP * p.tiles + tile) * STATES * SIZE + LANE;
            [[unroll]] for (uint s = 0; s < STATES; s++)
                kept.v[to + s * SIZE] = h[s];
            if (tile + 1 == tiles)
                break;
            uint row = i * p.time + begin + tile * STEPS;
            barrier();
            LOAD_CHANNELS(tile_x, x, p.x_at + row * p.x_ld + first, p.x_ld, STEPS, cols)
            LOAD_CHANNELS(tile_dt, dt, p.dt_at + row * p.dt_ld + first, p.dt_ld, STEPS, cols)
            LOAD_STATES(tile_b, B, p.B_at + row * p.B_ld + p.first_state, p.B_ld, STEPS, p.states)
            barrier();
            for (uint j = 0; j < STEPS; j++) {
                float dt_j = tile_dt[j * WIDE + channel], u = dt_j * tile_x[j * WIDE + channel];
                [[unroll]] for (uint s = 0; s < STATES; s++)
                    h[s] = exp2(dt_j * rate[s]) * h[s] + u * tile_b[j * SLOTS + s * SPLIT + lane];
            }
        }
        for (uint tile = tiles; tile-- > 0;) {
            uint t = begin + tile * STEPS, row = i * p.time + t, steps = min(STEPS, end - t);
            uint to = p.kept_at + (GROUP * p.tiles + tile) * STATES * SIZE + LANE;
            float before[STEPS][STATES], decay[STEPS][STATES];
            barrier();
            LOAD_CHANNELS(tile_x, x, p.x_at + row * p.x_ld + first, p.x_ld, steps, cols)
            LOAD_CHANNELS(tile_dt, dt, p.dt_at + row * p.dt_ld + first, p.dt_ld, steps, cols)
            LOAD_GATED(tile_dy, dy, p.dy_at + row * p.dy_ld + first, p.dy_ld, z,
                       p.z_at + row * p.z_ld + first, p.z_ld, gated, steps, cols)
            LOAD_STATES(tile_b, B, p.B_at + row * p.B_ld + p.first_state, p.B_ld, steps, p.states)
            LOAD_STATES(tile_c, C, p.C_at + row * p.C_ld + p.first_state, p.C_ld, steps, p.states)
            barrier();
            [[unroll]] for (uint s = 0; s < STATES; s++)
                h[s] = kept.v[to + s * SIZE];
            [[unroll]] for (uint j = 0; j < STEPS; j++) {
                float dt_j = tile_dt[j * WIDE + channel], u = dt_j * tile_x[j * WIDE + channel];
                [[unroll]] for (uint s = 0; s < STATES; s++) {
                    before[j][s] = h[s];
                    decay[j][s] = exp2(dt_j * rate[s]);
                    h[s] = decay[j][s] * h[s] + u * tile_b[j * SLOTS + s * SPLIT + lane];
                }
            }
            [[unroll]] for (uint back = 1; back <= STEPS; back++) {
                const uint j = STEPS - back;
                float dt_j = tile_dt[j * WIDE + channel], u = dt_j * tile_x[j * WIDE + channel];
                float dy_j = tile_dy[j * WIDE + channel];
                float sum_gb = 0.0, sum_gw = 0.0, sum_ch = 0.0;
                [[unroll]] for (uint s = 0; s < STATES; s++) {
                    float b = tile_b[j * SLOTS + s * SPLIT + lane];
                    float c_n = tile_c[j * SLOTS + s * SPLIT + lane];
                    float w = decay[j][s] * before[j][s], after = w + u * b;
                    float g = c_n * dy_j + flow[s];
                    lanes[2 * s * STRIDE + LANE] = g * u;
                    lanes[(2 * s + 1) * STRIDE + LANE] = dy_j * after;
                    grad_a[s] += g * dt_j * w;
                    sum_gb += g * b;
                    sum_gw += g * rate[s] * w;
                    sum_ch += c_n * after;
                    flow[s] = decay[j][s] * g;
                }
                lanes[2 * STATES * STRIDE + LANE] = sum_gb;
                lanes[(2 * STATES + 1) * STRIDE + LANE] = sum_gw;
                lanes[(2 * STATES + 2) * STRIDE + LANE] = sum_ch;
                barrier();
                float sum = 0.0;
                [[unroll]] for (uint m = 0; m < 2 * STATES; m++)
                    sum += lanes[LANE / GATHER * STRIDE + m * GATHER + LANE % GATHER];
                parts[j * SIZE + LANE] = sum;
                for (uint task = LANE; task < 3 * WIDE; task += SIZE) {
                    uint channel_k = task % WIDE, c_k = first + channel_k;
                    float x_k = tile_x[j * WIDE + channel_k], dy_k = tile_dy[j * WIDE + channel_k];
                    float skip_k = skip && channel_k < cols ? D.v[p.D_at + c_k] : 0.0;
                    if (channel_k >= cols || j >= steps)
                        continue;
                    if (task < WIDE) {
                        float value;
                        SUM_OF_CHANNEL(value, lanes, 2 * STATES * STRIDE, channel_k)
                        uint at = p.dx_at + (row + j) * p.dx_ld + c_k;
                        value = tile_dt[j * WIDE + channel_k] * value + dy_k * skip_k;
                        dx.v[at] = add ? dx.v[at] + value : value;
                        grad_d += dy_k * x_k;
                    } else if (task < 2 * WIDE) {
                        float value;
                        SUM_OF_CHANNEL(value, lanes, 2 * STATES * STRIDE, channel_k)
                        value *= x_k;
                        uint at = p.ddt_at + (row + j) * p.ddt_ld + c_k;
                        float of_w;
                        SUM_OF_CHANNEL(of_w, lanes, (2 * STATES + 1) * STRIDE, channel_k)
                        value += LN_2 * of_w;
                        ddt.v[at] = add ? ddt.v[at] + value : value;
                    } else if ((p.has & HAS_DZ) != 0) {
                        float value;
                        SUM_OF_CHANNEL(value, lanes, (2 * STATES + 2) * STRIDE, channel_k)
                        uint at = p.dz_at + (row + j) * p.dz_ld + c_k;
                        value = (value + skip_k * x_k) * dy.v[p.dy_at + (row + j) * p.dy_ld + c_k] *
                                silu_slope(z.v[p.z_at + (row + j) * p.z_ld + c_k]);
                        dz.v[at] = add ? dz.v[at] + value : value;
                    }
                }
                barrier();
            }
            for (uint task = LANE; task < 2 * steps * SLOTS; task += SIZE) {
                uint n = task % SLOTS, j = task / SLOTS % steps, of_c = task / SLOTS / steps;
                uint part = j * SIZE + (2 * (n / SPLIT) + of_c) * GATHER + n % SPLIT;
                float sum = 0.0;
                for (uint q = 0; q < PARTS; q++)
                    sum += parts[part + q * SPLIT];
                uint at = (block * p.batch * p.time + row + j) * p.states + n;
                if (n < p.states && of_c != 0)
                    sum_c.v[p.sum_c_at + at] = sum;
                else if (n < p.states)
                    sum_b.v[p.sum_b_at + at] = sum;
            }
        }
    }
    [[unroll]] for (uint s = 0; s < STATES; s++)
        if (own && s * SPLIT + lane < p.states)
            sum_a.v[p.sum_a_at + span_row * p.states + s * SPLIT + lane] = grad_a[s];
    if (skip && i < p.batch && LANE < WIDE && LANE < cols)
        sum_d.v[p.sum_d_at + (i * p.spans + span) * p.channels + first + LANE] = grad_d;
}
