#version 450
#extension GL_GOOGLE_include_directive : require
#include "itera.glsl"
#include "scan.glsl"
#include "scan_ssd.glsl"

ARGS(ssd_scan_bwd_parallel_args)
IN(1, dy)
IN(2, x)
IN(3, dt)
IN(4, A)
IN(5, B)
IN(6, C)
IN(7, D)
IN(8, starts)
OUT(9, flow)
OUT(10, gathered)
OUT(11, dx)
OUT(12, ddt)
OUT(13, dA_parts)
OUT(14, dB_parts)
OUT(15, dC_parts)
OUT(16, dD_parts)

shared float products[SSD_STEPS], bound[8], inflow[16 * SSD_STEPS];

#define SSD_ROUNDS 6 // log2(SSD_STEPS)

// A workgroup of 64 takes one head of a sequence, chunk by chunk from the last; its lanes take the
// steps of a chunk. For four states of a channel at a time, six rounds bring to each lane what
// earlier steps leave in the state and what later ones leave in its gradient, as in
// ssd_scan_parallel. flow (batch, channels, states) holds the gradient of the state after a chunk,
// gathered (batch, channels, 64) gB of a chunk. dB_parts and dC_parts (heads of a group, batch,
// time, columns of B), dA_parts and dD_parts (batch, heads).
void main()
{
    uint head = GROUP % p.heads, sequence = GROUP / p.heads, channels = p.heads * p.width;
    uint group_at = head / p.group_heads * p.states;
    uint columns = p.heads / p.group_heads * p.states;
    float rate = A.v[p.A_at + head], skip = p.has_skip != 0 ? D.v[p.D_at + head] : 0.0;
    float sum_a = 0.0, sum_d = 0.0;
    for (uint k = p.chunks; k-- > 0;) {
        uint row = sequence * p.time + SSD_FIRST(k) + LANE;
        bool valid = LANE < SSD_COUNT(k);
        float step = valid ? dt.v[p.dt_at + row * p.dt_ld + head] : 0.0;
        float e = exp(step * rate), product = e, q = 0.0;
        float decay[SSD_ROUNDS], back[SSD_ROUNDS];
        barrier();
        products[LANE] = e;
        barrier();
        float rest = LANE + 1 < SSD_STEPS ? products[LANE + 1] : 1.0;
        [[unroll]] for (uint i = 0; i < SSD_ROUNDS; i++) {
            bool has = LANE >= 1u << i;
            decay[i] = has ? product : 0.0;
            barrier();
            products[LANE] = product;
            barrier();
            product *= has ? products[LANE - (1u << i)] : 1.0;
        }
        [[unroll]] for (uint i = 0; i < SSD_ROUNDS; i++) {
            bool has = LANE + (1u << i) < SSD_STEPS;
            back[i] = has ? rest : 0.0;
            barrier();
            products[LANE] = rest;
            barrier();
            rest *= has ? products[LANE + (1u << i)] : 1.0;
        }
        for (uint n = 0; n < p.states; n += 4) {
            float b[4], c[4], sum_b[4], sum_c[4];
            [[unroll]] for (uint j = 0; j < 4; j++) {
                bool has = valid && n + j < p.states;
                b[j] = has ? B.v[p.B_at + row * p.B_ld + group_at + n + j] : 0.0;
                c[j] = has ? C.v[p.C_at + row * p.C_ld + group_at + n + j] : 0.0;
                sum_b[j] = sum_c[j] = 0.0;
            }
            for (uint channel = 0; channel < p.width; channel++) {
                uint col = head * p.width + channel;
                uint start_row = (sequence * p.chunks + k) * channels + col;
                uint flow_at = p.flow_at + (sequence * channels + col) * p.states + n;
                /* Of two slots the one that no lane reads any longer, whatever the width. */
                uint bound_at = (n / 4 * p.width + channel) % 2 * 4;
                float x_in = valid ? x.v[p.x_at + row * p.x_ld + col] : 0.0;
                float dy_in = valid ? dy.v[p.dy_at + row * p.dy_ld + col] : 0.0;
                float w[4], g[4], g_b = 0.0;
                [[unroll]] for (uint j = 0; j < 4; j++) {
                    w[j] = 0.0;
                    g[j] = dy_in * c[j];
                    if (LANE == 0) // who wrote it
                        bound[bound_at + j] =
                            n + j < p.states && k + 1 < p.chunks ? flow.v[flow_at + j] : 0.0;
                }
                [[unroll]] for (uint i = 0; i < SSD_ROUNDS; i++) {
                    uint now = i % 2 * 8 * SSD_STEPS + LANE;
                    [[unroll]] for (uint j = 0; j < 4; j++) {
                        inflow[now + j * SSD_STEPS] = w[j] + step * x_in * b[j];
                        inflow[now + (j + 4) * SSD_STEPS] = g[j];
                    }
                    barrier();
                    if (LANE >= 1u << i)
                        [[unroll]] for (uint j = 0; j < 4; j++)
                            w[j] += decay[i] * inflow[now + j * SSD_STEPS - (1u << i)];
                    if (LANE + (1u << i) < SSD_STEPS)
                        [[unroll]] for (uint j = 0; j < 4; j++)
                            g[j] += back[i] * inflow[now + (j + 4) * SSD_STEPS + (1u << i)];
                }
                [[unroll]] for (uint j = 0; j < 4; j++) {
                    bool has = n + j < p.states;
                    uint start_at = p.starts_at + start_row * p.start_ld + n + j;
                    w[j] += product * (has ? starts.v[start_at] : 0.0);
                    g[j] += rest * bound[bound_at + j];
                    sum_c[j] += dy_in * (w[j] + step * x_in * b[j]);
                    sum_b[j] += g[j] * step * x_in;
                    g_b += g[j] * b[j];
                    q += g[j] * w[j];
                    if (LANE == 0 && has)
                        flow.v[flow_at + j] = e * g[j];
                }
                uint gathered_at = p.gathered_at + (sequence * channels + col) * SSD_STEPS + LANE;
                gathered.v[gathered_at] = n == 0 ? g_b : gathered.v[gathered_at] + g_b;
            }
            uint part_at = (head % p.group_heads * p.batch * p.time + row) * columns + group_at + n;
            [[unroll]] for (uint j = 0; j < 4; j++)
                if (valid && n + j < p.states) {
                    dB_parts.v[p.dB_parts_at + part_at + j] = sum_b[j];
                    dC_parts.v[p.dC_parts_at + part_at + j] = sum_c[j];
                }
        }
        if (valid) {
            float from_x = 0.0;
            for (uint channel = 0; channel < p.width; channel++) {
                uint col = head * p.width + channel;
                float x_in = x.v[p.x_at + row * p.x_ld + col];
                float dy_in = dy.v[p.dy_at + row * p.dy_ld + col];
                float g_b =
                    gathered.v[p.gathered_at + (sequence * channels + col) * SSD_STEPS + LANE];
                dx.v[p.dx_at + row * p.dx_ld + col] = skip * dy_in + step * g_b;
                from_x += x_in * g_b;
                sum_d += dy_in * x_in;
            }
            ddt.v[p.ddt_at + row * p.ddt_ld + head] = rate * q + from_x;
            sum_a += step * q;
        }
    }
    barrier();
    inflow[LANE] = sum_a;
    inflow[SSD_STEPS + LANE] = sum_d;
    barrier();
    if (LANE == 0) {
        for (uint i = 1; i < SSD_STEPS; i++) {
            sum_a += inflow[i];
            sum_d += inflow[SSD_STEPS + i];
        }
        dA_parts.v[p.dA_parts_at + GROUP] = sum_a;
        if (p.has_skip != 0)
            dD_parts.v[p.dD_parts_at + GROUP] = sum_d;
    }
}
