// What the shaders of selective_scan_bwd share.
//
// Here dy is what has passed the gate, dy silu(z), but for dz; e = exp(dt A), w = e h[t-1] and
// g = C dy + flow, where flow = e[t+1] g[t+1] is what flows back into a step. The states come in
// rounds of at most 32: `states` of all_states, from first_state on; later rounds add to dx, ddt
// and dz. What is a sum over channels (dB, dC) or over batch and time (dA, dD) is first summed
// within a workgroup and left in scratch: dB and dC as [block of channels][row][state], dA as
// [sequence and span][channel][state], dD as [sequence and span][channel]. selective_scan_bwd_sum
// adds these in order.
#ifndef ITERA_SCAN_SELECTIVE_BWD_GLSL
#define ITERA_SCAN_SELECTIVE_BWD_GLSL
#include "scan_selective.glsl"

// dy silu(z) of a tile, as LOAD_CHANNELS has it.
#define LOAD_GATED(tile, dy, dy_at, dy_ld, z, z_at, z_ld, gated, steps, cols)                      \
    for (uint k_ = LANE; k_ < STEPS * WIDE; k_ += SIZE) {                                          \
        uint step_ = k_ / WIDE, c_ = k_ % WIDE;                                                    \
        float value_ = 0.0;                                                                        \
        if (step_ < (steps) && c_ < (cols)) {                                                      \
            value_ = dy.v[(dy_at) + step_ * (dy_ld) + c_];                                         \
            if (gated)                                                                             \
                value_ *= silu_of(z.v[(z_at) + step_ * (z_ld) + c_]);                              \
        }                                                                                          \
        tile[k_] = value_;                                                                         \
    }

#endif
