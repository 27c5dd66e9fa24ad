#version 450
#extension GL_GOOGLE_include_directive : require
#include "itera.glsl"
#include "scan.glsl"
#include "scan_ssd.glsl"

ARGS(ssd_scan_bwd_bc_args)
IN(1, v)
IN(2, dt)
IN(3, A)
IN(4, other)
IN(5, products)
IN(6, state)
OUT(7, grad)

// dC = Z B + f (dy S), with v = dy, other = B and state = S; or (is_b) dB = Z^T C + l dt (x G),
// with v = x, other = C and state = G. grad (slices, batch, time, columns of B) is summed over the
// heads of a slice of a group. A workgroup takes 64 states of a slice in one chunk.
void main()
{
    uint first_n = GROUP % p.column_tiles * SSD_STEPS, slice_piece = GROUP / p.column_tiles;
    uint slice = slice_piece % p.slices, groups = p.heads / p.group_heads;
    uint group = slice_piece / p.slices % groups, piece = slice_piece / (p.slices * groups);
    uint k = piece % p.chunks, count = SSD_COUNT(k);
    uint row = piece / p.chunks * p.time + SSD_FIRST(k), col = group * p.states + first_n;
    uint products_at = p.products_at + slice_piece * p.chunk_steps * p.chunk_steps;
    uint end_head = min((slice + 1) * p.slice_heads, p.group_heads);
    ssd_tile acc;
    ssd_clear(acc);
    for (uint first = 0; first < count; first += SSD_DEPTH) {
        for (uint i = LANE; i < SSD_STEPS * SSD_DEPTH; i += SCAN_LANES) {
            uint r = first + i / SSD_STEPS, c = i % SSD_STEPS, t = i / SSD_DEPTH;
            uint s = first + i % SSD_DEPTH;
            bool valid = r < count && first_n + c < p.states;
            SSD_RIGHT(i / SSD_STEPS, c) =
                valid ? other.v[p.other_at + (row + r) * p.other_ld + col + c] : 0.0;
            if (p.is_b != 0) {
                valid = r < count && c < count;
                SSD_LEFT(c, i / SSD_STEPS) =
                    valid ? products.v[products_at + r * p.chunk_steps + c] : 0.0;
            } else {
                valid = t < count && s < count;
                SSD_LEFT(t, i % SSD_DEPTH) =
                    valid ? products.v[products_at + t * p.chunk_steps + s] : 0.0;
            }
        }
        barrier();
        ssd_multiply(acc);
        barrier();
    }
    for (uint h = slice * p.slice_heads; h < end_head; h++) {
        uint head = group * p.group_heads + h, state_row = (piece * p.heads + head) * p.width;
        ssd_cumulate(LANE < count ? dt.v[p.dt_at + (row + LANE) * p.dt_ld + head] : 0.0,
                     A.v[p.A_at + head]);
        for (uint first = 0; first < p.width; first += SSD_DEPTH) {
            for (uint i = LANE; i < SSD_STEPS * SSD_DEPTH; i += SCAN_LANES) {
                uint a = first + i % SSD_DEPTH, t = i / SSD_DEPTH;
                float l = 0.0;
                if (a < p.width && t < count) {
                    float weight = p.is_b != 0 ? steps[t] * ssd_decay(cum[SSD_STEPS - 1], cum[t])
                                               : exp(cum[t].x + cum[t].y);
                    l = weight * v.v[p.v_at + (row + t) * p.v_ld + head * p.width + a];
                }
                SSD_LEFT(t, i % SSD_DEPTH) = l;
                uint b = first + i / SSD_STEPS, c = i % SSD_STEPS;
                bool valid = b < p.width && first_n + c < p.states;
                SSD_RIGHT(i / SSD_STEPS, c) =
                    valid ? state.v[p.state_at + (state_row + b) * p.state_row_ld + first_n + c]
                          : 0.0;
            }
            barrier();
            ssd_multiply(acc);
            barrier();
        }
    }
    uint grad_row = slice * p.batch * p.time + row;
    [[unroll]] for (uint i = 0; i < 8; i++)
        [[unroll]] for (uint j = 0; j < 4; j++) {
            uint t = SSD_ROW + i, c = SSD_COLUMN(j);
            if (t < count && first_n + c < p.states)
                grad.v[p.grad_at + (grad_row + t) * p.grad_row_ld + col + c] = ssd_get(acc, i, j);
        }
}
