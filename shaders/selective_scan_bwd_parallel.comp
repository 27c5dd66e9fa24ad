#version 450
#extension GL_GOOGLE_include_directive : require
#define SCAN_PARALLEL
#include "scan_selective_bwd.glsl"

ARGS(bwd_parallel_args)
IN(1, dy)
IN(2, x)
IN(3, dt)
IN(4, A)
IN(5, B)
IN(6, C)
IN(7, D)
IN(8, z)
IN(9, boundaries)
INOUT(10, dx)
INOUT(11, ddt)
INOUT(12, dz)
OUT(13, sum_a)
OUT(14, sum_b)
OUT(15, sum_c)
OUT(16, sum_d)

const uint QUART = SIZE / BUNCH; // lanes that keep the sums of dA of one state

shared float lanes[2 * BUNCH * SIZE];
shared float carry[CHANNELS * ROUND], grad_a[ROUND / BUNCH * SIZE];

// The gradients by associative scans over time. A workgroup takes CHANNELS channels of one sequence
// piece by piece, last piece first; a piece begins at a stored boundary and has at most ITEMS steps
// for each lane of a channel. For BUNCH states at a time a scan forward over the lanes gives the
// states before each lane's steps, and a scan backward what flows into them; the lane goes on from
// there. `carry` is what flows from one piece to the one before it.
void main()
{
    uint blocks = (p.channels + CHANNELS - 1) / CHANNELS, block = GROUP % blocks;
    uint i = GROUP / blocks, first = block * CHANNELS;
    uint channel = LANE % CHANNELS, c = first + channel;
    bool own = i < p.batch && c < p.channels, gated = (p.has & HAS_Z) != 0;
    bool add = p.first_state > 0;
    float skip = own && (p.has & HAS_D) != 0 && !add ? D.v[p.D_at + c] : 0.0, grad_d = 0.0;
    uint pieces = i < p.batch ? (p.time + p.piece - 1) / p.piece : 0;
    uint boundaries_ld = p.boundaries_ld != 0 ? p.boundaries_ld : p.all_states;

    for (uint k = LANE; k < CHANNELS * ROUND; k += SIZE)
        carry[k] = 0.0;
    for (uint k = LANE; k < ROUND / BUNCH * SIZE; k += SIZE)
        grad_a[k] = 0.0;
    for (uint piece = pieces; piece-- > 0;) {
        uint begin = piece * p.piece, end = min(begin + p.piece, p.time);
        uint t = begin + LANE / CHANNELS * ITEMS, row = i * p.time + t;
        uint boundary = (i * p.chunks + begin / p.chunk) * p.channels + c;
        float dt_of[ITEMS], x_of[ITEMS], dy_of[ITEMS];
        float sum_gb[ITEMS], sum_gw[ITEMS], sum_ch[ITEMS];
        [[unroll]] for (uint j = 0; j < ITEMS; j++) {
            bool live = own && t + j < end;
            dt_of[j] = live ? dt.v[p.dt_at + (row + j) * p.dt_ld + c] : 0.0;
            x_of[j] = live ? x.v[p.x_at + (row + j) * p.x_ld + c] : 0.0;
            dy_of[j] = live ? dy.v[p.dy_at + (row + j) * p.dy_ld + c] : 0.0;
            if (live && gated)
                dy_of[j] *= silu_of(z.v[p.z_at + (row + j) * p.z_ld + c]);
            sum_gb[j] = sum_gw[j] = sum_ch[j] = 0.0;
        }
        for (uint n0 = 0; n0 < p.states; n0 += BUNCH) {
            float a[BUNCH], b[BUNCH], h[BUNCH], flow[BUNCH], rate[BUNCH], lane_a[BUNCH];
            float decay[ITEMS][BUNCH], before[ITEMS][BUNCH];
            float b_of[ITEMS][BUNCH], c_of[ITEMS][BUNCH];
            [[unroll]] for (uint s = 0; s < BUNCH; s++) {
                uint n = p.first_state + n0 + s;
                bool live = own && n0 + s < p.states;
                rate[s] = live ? A.v[p.A_at + c * p.A_ld + n] * LOG2_E : 0.0;
                h[s] = live ? boundaries.v[p.boundaries_at + boundary * boundaries_ld + n] : 0.0;
                a[s] = 1.0;
                b[s] = lane_a[s] = 0.0;
                [[unroll]] for (uint j = 0; j < ITEMS; j++) {
                    bool there = live && t + j < end;
                    b_of[j][s] = there ? B.v[p.B_at + (row + j) * p.B_ld + n] : 0.0;
                    c_of[j][s] = there ? C.v[p.C_at + (row + j) * p.C_ld + n] : 0.0;
                    decay[j][s] = exp2(rate[s] * dt_of[j]);
                    a[s] *= decay[j][s];
                    b[s] = decay[j][s] * b[s] + dt_of[j] * x_of[j] * b_of[j][s];
                }
            }
            compose_lanes(a, b, false);
            [[unroll]] for (uint s = 0; s < BUNCH; s++) {
                h[s] = a[s] * h[s] + b[s];
                a[s] = 1.0;
                b[s] = 0.0;
                [[unroll]] for (uint j = 0; j < ITEMS; j++) {
                    before[j][s] = h[s];
                    a[s] *= decay[j][s];
                    h[s] = decay[j][s] * h[s] + dt_of[j] * x_of[j] * b_of[j][s];
                }
                [[unroll]] for (uint back = 1; back <= ITEMS; back++)
                    b[s] = decay[ITEMS - back][s] *
                           (c_of[ITEMS - back][s] * dy_of[ITEMS - back] + b[s]);
            }
            compose_lanes(a, b, true);
            [[unroll]] for (uint s = 0; s < BUNCH; s++)
                flow[s] = a[s] * carry[channel * ROUND + n0 + s] + b[s];
            [[unroll]] for (uint back = 1; back <= ITEMS; back++) {
                const uint j = ITEMS - back;
                float u = dt_of[j] * x_of[j];
                [[unroll]] for (uint s = 0; s < BUNCH; s++) {
                    float w = decay[j][s] * before[j][s], after = w + u * b_of[j][s];
                    float g = c_of[j][s] * dy_of[j] + flow[s];
                    lanes[s * SIZE + LANE] = g * u;
                    lanes[(BUNCH + s) * SIZE + LANE] = dy_of[j] * after;
                    lane_a[s] += g * dt_of[j] * w;
                    sum_gb[j] += g * b_of[j][s];
                    sum_gw[j] += g * rate[s] * w;
                    sum_ch[j] += c_of[j][s] * after;
                    flow[s] = decay[j][s] * g;
                }
                barrier();
                for (uint task = LANE; task < 2 * BUNCH * TIMES; task += SIZE) {
                    uint s = task % BUNCH, r = task / BUNCH % TIMES, of_c = task / BUNCH / TIMES;
                    uint n = n0 + s, t_r = begin + r * ITEMS + j;
                    float sum = 0.0;
                    for (uint w = 0; w < CHANNELS; w++)
                        sum += lanes[(of_c * BUNCH + s) * SIZE + r * CHANNELS +
                                     (w + 2 * s + r / 4) % CHANNELS];
                    uint at = (block * p.batch * p.time + i * p.time + t_r) * p.states + n;
                    if (t_r >= end || n >= p.states)
                        continue;
                    if (of_c != 0)
                        sum_c.v[p.sum_c_at + at] = sum;
                    else
                        sum_b.v[p.sum_b_at + at] = sum;
                }
                barrier();
            }
            [[unroll]] for (uint s = 0; s < BUNCH; s++) {
                lanes[s * SIZE + LANE] = lane_a[s];
                if (LANE < CHANNELS)
                    carry[channel * ROUND + n0 + s] = flow[s];
            }
            barrier();
            float sum = grad_a[n0 / BUNCH * SIZE + LANE];
            [[unroll]] for (uint m = 0; m < BUNCH; m++)
                sum += lanes[LANE / QUART * SIZE + m * QUART + LANE % QUART];
            grad_a[n0 / BUNCH * SIZE + LANE] = sum;
        }
        [[unroll]] for (uint j = 0; j < ITEMS; j++) {
            uint at_x = p.dx_at + (row + j) * p.dx_ld + c;
            uint at_dt = p.ddt_at + (row + j) * p.ddt_ld + c;
            uint at_z = p.dz_at + (row + j) * p.dz_ld + c;
            if (!own || t + j >= end)
                continue;
            float grad_x = dt_of[j] * sum_gb[j] + dy_of[j] * skip;
            float grad_dt = LN_2 * sum_gw[j] + x_of[j] * sum_gb[j];
            dx.v[at_x] = add ? dx.v[at_x] + grad_x : grad_x;
            ddt.v[at_dt] = add ? ddt.v[at_dt] + grad_dt : grad_dt;
            if ((p.has & HAS_DZ) != 0) {
                float grad_z = (sum_ch[j] + skip * x_of[j]) *
                               dy.v[p.dy_at + (row + j) * p.dy_ld + c] *
                               silu_slope(z.v[p.z_at + (row + j) * p.z_ld + c]);
                dz.v[at_z] = add ? dz.v[at_z] + grad_z : grad_z;
            }
            grad_d += dy_of[j] * x_of[j];
        }
    }
    barrier();
    lanes[LANE] = grad_d;
    barrier();
    for (uint k = LANE; k < CHANNELS * p.states; k += SIZE) {
        uint channel_k = k / p.states, n = k % p.states;
        float sum = 0.0;
        for (uint q = channel_k; q < QUART; q += CHANNELS)
            sum += grad_a[n / BUNCH * SIZE + n % BUNCH * QUART + q];
        if (i < p.batch && first + channel_k < p.channels)
            sum_a.v[p.sum_a_at + (i * p.channels + first + channel_k) * p.states + n] = sum;
    }
    if (own && LANE < CHANNELS && (p.has & HAS_D) != 0 && !add) {
        float sum = 0.0;
        for (uint q = channel; q < SIZE; q += CHANNELS)
            sum += lanes[q];
        sum_d.v[p.sum_d_at + i * p.channels + c] = sum;
    }
}
