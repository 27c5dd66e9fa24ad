#version 450
#extension GL_GOOGLE_include_directive : require
#define SCAN_COLUMNS 2
#include "itera.glsl"
#include "scan.glsl"
#include "scan_ssd.glsl"

layout(constant_id = STATE_SLICES_ID) const uint STATE_SLICES = 4;

ARGS(ssd_scan_bwd_sequential_args)
IN(1, dy)
IN(2, x)
IN(3, dt)
IN(4, A)
IN(5, B)
IN(6, C)
IN(7, D)
IN(8, boundaries)
OUT(9, kept)
OUT(10, flow)
OUT(11, dx)
OUT(12, ddt_parts)
OUT(13, dA_parts)
OUT(14, dB_parts)
OUT(15, dC_parts)
OUT(16, dD_parts)

// Steps of chunks [first_chunk, end_chunk), `span` of them, from the last to the first. As in
// ssd_scan_sequential a row of the state is in registers of `lanes` neighbouring lanes. A workgroup
// takes 128 / lanes rows of a head: it goes through a chunk forwards and keeps the state before
// every fourth step in kept, then backwards, four steps at a time. flow carries e[t+1] g[t+1] from
// call to call. A workgroup's sums over rows and steps are parts, of a number of its own (or `part`
// and on).
void main()
{
    uint tile = GROUP % p.tiles, head = GROUP / p.tiles % p.heads;
    uint sequence = GROUP / (p.tiles * p.heads), rows = SCAN_LANES / p.lanes;
    uint lane = LANE % p.lanes, head_channel = tile * rows + LANE / p.lanes;
    uint channel = head * p.width + head_channel, channels = p.heads * p.width;
    uint group_at = head / p.group_heads * p.states;
    uint columns = p.heads / p.group_heads * p.states;
    uint part_row = (head % p.group_heads * p.tiles + tile) * p.batch * p.span + sequence * p.span;
    uint flow_at = p.flow_at + (sequence * channels + channel) * p.states;
    bool live = head_channel < p.width;
    float rate = A.v[p.A_at + head], skip = p.has_skip != 0 ? D.v[p.D_at + head] : 0.0;
    float later[STATE_SLICES], h[STATE_SLICES], sum_a = 0.0, sum_d = 0.0;
    [[unroll]] for (uint j = 0; j < STATE_SLICES; j++) {
        uint n = lane + j * p.lanes;
        later[j] = live && n < p.states && p.end_chunk < p.chunks ? flow.v[flow_at + n] : 0.0;
    }
    for (uint k = p.end_chunk; k-- > p.first_chunk;) {
        uint first = k * p.chunk, end = min(first + p.chunk, p.time);
        uint row = sequence * p.time;
        uint start_row = (sequence * p.chunks + k) * channels + channel;
        [[unroll]] for (uint j = 0; j < STATE_SLICES; j++) {
            uint n = lane + j * p.lanes;
            bool has = live && n < p.states;
            h[j] = has ? boundaries.v[p.boundaries_at + start_row * p.boundaries_ld + n] : 0.0;
        }
        for (uint t = first; t < end; t++) {
            uint quarter = (t - first) / SCAN_STEPS;
            uint kept_at =
                p.kept_at + ((quarter * p.batch + sequence) * channels + channel) * p.states;
            float step = dt.v[p.dt_at + (row + t) * p.dt_ld + head], e = exp(step * rate);
            float drive = live ? step * x.v[p.x_at + (row + t) * p.x_ld + channel] : 0.0;
            [[unroll]] for (uint j = 0; j < STATE_SLICES; j++) {
                uint n = lane + j * p.lanes;
                if (live && n < p.states) {
                    if ((t - first) % SCAN_STEPS == 0)
                        kept.v[kept_at + n] = h[j];
                    h[j] = e * h[j] + drive * B.v[p.B_at + (row + t) * p.B_ld + group_at + n];
                }
            }
        }
        for (uint quarter = (end - first + SCAN_STEPS - 1) / SCAN_STEPS; quarter-- > 0;) {
            uint t0 = first + quarter * SCAN_STEPS;
            uint kept_at =
                p.kept_at + ((quarter * p.batch + sequence) * channels + channel) * p.states;
            float step[SCAN_STEPS], e[SCAN_STEPS], x_in[SCAN_STEPS], dy_in[SCAN_STEPS];
            float g_b[SCAN_STEPS], q[SCAN_STEPS];
            [[unroll]] for (uint i = 0; i < SCAN_STEPS; i++) {
                bool valid = live && t0 + i < end;
                uint at = row + t0 + i;
                step[i] = valid ? dt.v[p.dt_at + at * p.dt_ld + head] : 0.0;
                x_in[i] = valid ? x.v[p.x_at + at * p.x_ld + channel] : 0.0;
                dy_in[i] = valid ? dy.v[p.dy_at + at * p.dy_ld + channel] : 0.0;
                e[i] = exp(step[i] * rate);
                g_b[i] = q[i] = 0.0;
            }
            [[unroll]] for (uint j = 0; j < STATE_SLICES; j++) {
                uint n = lane + j * p.lanes;
                bool has = live && n < p.states;
                float b[SCAN_STEPS], before[SCAN_STEPS + 1];
                before[0] = has ? kept.v[kept_at + n] : 0.0;
                [[unroll]] for (uint i = 0; i < SCAN_STEPS; i++) {
                    bool valid = has && t0 + i < end;
                    b[i] = valid ? B.v[p.B_at + (row + t0 + i) * p.B_ld + group_at + n] : 0.0;
                    before[i + 1] = e[i] * before[i] + step[i] * x_in[i] * b[i];
                }
                for (uint i = SCAN_STEPS; i-- > 0;) {
                    bool valid = has && t0 + i < end;
                    float c = valid ? C.v[p.C_at + (row + t0 + i) * p.C_ld + group_at + n] : 0.0;
                    float g = c * dy_in[i] + later[j];
                    g_b[i] += g * b[i];
                    q[i] += g * e[i] * before[i];
                    sums[SCAN_SUMS + i * SCAN_LANES + LANE] = dy_in[i] * before[i + 1];
                    sums[i * SCAN_LANES + LANE] = g * step[i] * x_in[i];
                    later[j] = e[i] * g;
                }
                barrier();
                for (uint o = LANE; o < SCAN_STEPS * p.lanes; o += SCAN_LANES) {
                    uint i = o / p.lanes, state_n = o % p.lanes + j * p.lanes;
                    uint at = i * SCAN_LANES + o % p.lanes;
                    float sum_b = 0.0, sum_c = 0.0;
                    for (uint r = 0; r < rows; r++) {
                        sum_b += sums[at + r * p.lanes];
                        sum_c += sums[SCAN_SUMS + at + r * p.lanes];
                    }
                    if (t0 + i < end && state_n < p.states) {
                        uint part_at =
                            (part_row + t0 + i - p.first_chunk * p.chunk) * columns + group_at;
                        dB_parts.v[p.dB_parts_at + part_at + state_n] = sum_b;
                        dC_parts.v[p.dC_parts_at + part_at + state_n] = sum_c;
                    }
                }
                barrier();
            }
            [[unroll]] for (uint i = 0; i < SCAN_STEPS; i++) {
                sums[i * SCAN_LANES + LANE] = g_b[i];
                sums[SCAN_SUMS + i * SCAN_LANES + LANE] = q[i];
            }
            scan_sum_columns(p.lanes, 0);
            scan_sum_columns(p.lanes, SCAN_SUMS);
            if (live && lane == 0)
                [[unroll]] for (uint i = 0; i < SCAN_STEPS; i++)
                    if (t0 + i < end) {
                        float v = sums[i * SCAN_LANES + LANE];
                        dx.v[p.dx_at + (row + t0 + i) * p.dx_ld + channel] =
                            skip * dy_in[i] + step[i] * v;
                        sum_d += dy_in[i] * x_in[i];
                        sums[i * SCAN_LANES + LANE] =
                            rate * sums[SCAN_SUMS + i * SCAN_LANES + LANE] + x_in[i] * v;
                    }
            barrier();
            if (LANE < SCAN_STEPS && t0 + LANE < end) {
                uint at = row + t0 + LANE;
                float sum_dt = 0.0, sum_q = 0.0;
                for (uint r = 0; r < rows; r++) {
                    sum_dt += sums[LANE * SCAN_LANES + r * p.lanes];
                    sum_q += sums[SCAN_SUMS + LANE * SCAN_LANES + r * p.lanes];
                }
                ddt_parts.v[p.ddt_parts_at + (tile * p.batch * p.time + at) * p.heads + head] =
                    sum_dt;
                sum_a += dt.v[p.dt_at + at * p.dt_ld + head] * sum_q;
            }
            barrier();
        }
    }
    [[unroll]] for (uint j = 0; j < STATE_SLICES; j++) {
        uint n = lane + j * p.lanes;
        if (live && n < p.states)
            flow.v[flow_at + n] = later[j];
    }
    sum_a = scan_sum_rows(sum_a, 1);
    sum_d = scan_sum_rows(sum_d, 1);
    if (LANE == 0) {
        uint at = (p.part + sequence * p.tiles + tile) * p.heads + head;
        dA_parts.v[p.dA_parts_at + at] = sum_a;
        if (p.has_skip != 0)
            dD_parts.v[p.dD_parts_at + at] = sum_d;
    }
}
