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

#if defined ITERA_SUBGROUPS && defined SCAN_SUBGROUPS
#extension GL_KHR_shader_subgroup_shuffle_relative : require
// Lanes in the order of their subgroups, which are whole: then the lanes of a channel within a subgroup
// stand CHANNELS apart.
#define BY_SUBGROUPS                                                                               \
    (LANE_ORDER == 0 && gl_SubgroupSize >= CHANNELS && gl_NumSubgroups * gl_SubgroupSize == SIZE)
#undef LANE
#define LANE                                                                                       \
    (BY_SUBGROUPS      ? gl_SubgroupID * gl_SubgroupSize + gl_SubgroupInvocationID                 \
     : LANE_ORDER == 0 ? gl_LocalInvocationID.x                                                    \
     : LANE_ORDER == 1 ? LANES - 1 - gl_LocalInvocationID.x                                        \
                       : (gl_LocalInvocationID.x + LANES / 2 + 1) % LANES)

// compose_lanes with two barriers: by shuffles within subgroups, then over the subgroups before (or
// after) this one, one after the other.
void compose_subgroups(inout float a[BUNCH], inout float b[BUNCH], bool backward)
{
    const uint lane = gl_SubgroupInvocationID, size = gl_SubgroupSize;
    const uint at = backward ? size - 1 - lane : lane; // lanes of the subgroup before this one in time
    for (uint far = CHANNELS; far < size; far *= 2)
        [[unroll]] for (uint s = 0; s < BUNCH; s++) {
            float other_a = backward ? subgroupShuffleDown(a[s], far) : subgroupShuffleUp(a[s], far);
            float other_b = backward ? subgroupShuffleDown(b[s], far) : subgroupShuffleUp(b[s], far);
            b[s] = at >= far ? b[s] + a[s] * other_b : b[s];
            a[s] = at >= far ? a[s] * other_a : a[s];
        }
    barrier();
    if (at >= size - CHANNELS)
        [[unroll]] for (uint s = 0; s < BUNCH; s++) {
            of_a[(s * gl_NumSubgroups + gl_SubgroupID) * CHANNELS + lane % CHANNELS] = a[s];
            of_b[(s * gl_NumSubgroups + gl_SubgroupID) * CHANNELS + lane % CHANNELS] = b[s];
        }
    barrier();
    const uint earlier = backward ? gl_NumSubgroups - 1 - gl_SubgroupID : gl_SubgroupID;
    [[unroll]] for (uint s = 0; s < BUNCH; s++) {
        float before_a = backward ? subgroupShuffleDown(a[s], CHANNELS)
                                  : subgroupShuffleUp(a[s], CHANNELS);
        float before_b = backward ? subgroupShuffleDown(b[s], CHANNELS)
                                  : subgroupShuffleUp(b[s], CHANNELS);
        float start_a = 1.0, start_b = 0.0;
        for (uint k = 0; k < earlier; k++) {
            uint of = (s * gl_NumSubgroups + (backward ? gl_NumSubgroups - 1 - k : k)) * CHANNELS +
                      lane % CHANNELS;
            start_b = of_a[of] * start_b + of_b[of];
            start_a *= of_a[of];
        }
        a[s] = at >= CHANNELS ? before_a * start_a : start_a;
        b[s] = at >= CHANNELS ? before_a * start_b + before_b : start_b;
    }
}
#endif

// The maps h -> a h + b of the lanes of a channel become, in each lane, the one map that all lanes
// before it in time make together, or all after it when going backward. All lanes must call.
void compose_lanes(inout float a[BUNCH], inout float b[BUNCH], bool backward)
{
#ifdef BY_SUBGROUPS
    if (BY_SUBGROUPS) {
        compose_subgroups(a, b, backward);
        return;
    }
#endif
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
