// What the shaders of selective_scan and of its gradient share. Contracts: host/ops/scan.c.
//
// The usual division of work: a workgroup of 128 takes WIDE channels of one sequence; SPLIT
// neighbouring lanes share a channel, each with STATES of its states in registers, state
// s * SPLIT + lane in slot s. Slots beyond the last state and lanes beyond the last channel hold
// zeros. The steps come in tiles of STEPS, whose operands are loaded together, row by row.
#ifndef ITERA_SCAN_SELECTIVE_GLSL
#define ITERA_SCAN_SELECTIVE_GLSL
#include "itera.glsl"
#include "args/scan_selective.clh"
#include "math.glsl"

layout(constant_id = SPLIT_ID) const uint SPLIT = 4;
layout(constant_id = STATES_ID) const uint STATES = 4;
layout(constant_id = STEPS_ID) const uint STEPS = 8;
const uint SIZE = ITERA_GPU_LOCAL;
const uint WIDE = SIZE / SPLIT;    // channels of a workgroup
const uint SLOTS = SPLIT * STATES; // states of a channel, rounded up

// The parallel variants have lanes over time: CHANNELS neighbouring lanes take one channel each,
// and ITEMS steps of it; the next CHANNELS lanes the ITEMS steps after those. They go through the
// states BUNCH at a time.
layout(constant_id = CHANNELS_ID) const uint CHANNELS = PARALLEL_CHANNELS;
const uint TIMES = SIZE / CHANNELS;
const uint ITEMS = PARALLEL_ITEMS;
const uint BUNCH = 4;

const float LOG2_E = 1.442695041; // states decay by exp(dt A) = exp2(dt rate)
const float LN_2 = 0.6931471806;

// A tile of x: [step][channel] for STEPS steps from element `at`, of which `steps` rows and `cols`
// columns exist; zeros elsewhere. The lanes then meet at a barrier of the caller.
#define LOAD_CHANNELS(tile, x, at, ld, steps, cols)                                                \
    for (uint k_ = LANE; k_ < STEPS * WIDE; k_ += SIZE) {                                          \
        uint step_ = k_ / WIDE, c_ = k_ % WIDE;                                                    \
        tile[k_] = step_ < (steps) && c_ < (cols) ? x.v[(at) + step_ * (ld) + c_] : 0.0;           \
    }

// A tile of B or C: [step][state].
#define LOAD_STATES(tile, x, at, ld, steps, cols)                                                  \
    for (uint k_ = LANE; k_ < STEPS * SLOTS; k_ += SIZE) {                                         \
        uint step_ = k_ / SLOTS, n_ = k_ % SLOTS;                                                  \
        tile[k_] = step_ < (steps) && n_ < (cols) ? x.v[(at) + step_ * (ld) + n_] : 0.0;           \
    }

// sum = the sum over the SPLIT lanes of channel c, of lanes[base ..]. Each channel begins with
// another lane, so that the channels that neighbouring invocations add up come from different
// banks.
#define SUM_OF_CHANNEL(sum, lanes, base, c)                                                        \
    sum = 0.0;                                                                                     \
    for (uint i_ = 0; i_ < SPLIT; i_++)                                                            \
        sum += lanes[(base) + (c) * SPLIT + (i_ + (c) * SPLIT / 32) % SPLIT];

#ifdef SCAN_PARALLEL
shared float of_a[BUNCH * SIZE], of_b[BUNCH * SIZE];

// The maps h -> a h + b of the lanes of a channel become, in each lane, the one map that all lanes
// before it in time make together, or all after it when going backward. All lanes must call.
void compose_lanes(inout float a[BUNCH], inout float b[BUNCH], bool backward)
{
    uint next = backward ? LANE + CHANNELS : LANE - CHANNELS; // beyond SIZE where there is none
    for (uint far = CHANNELS;; far *= 2) {
        barrier();
        [[unroll]] for (uint s = 0; s < BUNCH; s++) {
            of_a[s * SIZE + LANE] = a[s];
            of_b[s * SIZE + LANE] = b[s];
        }
        barrier();
        if (far >= SIZE)
            break;
        uint other = backward ? LANE + far : LANE - far;
        [[unroll]] for (uint s = 0; s < BUNCH; s++) {
            if (other < SIZE) {
                b[s] += a[s] * of_b[s * SIZE + other];
                a[s] *= of_a[s * SIZE + other];
            }
        }
    }
    [[unroll]] for (uint s = 0; s < BUNCH; s++) {
        a[s] = next < SIZE ? of_a[s * SIZE + next] : 1.0;
        b[s] = next < SIZE ? of_b[s * SIZE + next] : 0.0;
    }
}
#endif

#endif
