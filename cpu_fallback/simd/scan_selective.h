/* What selective_scan and its gradient share: blocks of VF_N channels are worked on with one
 * channel a lane, so that rows of N states in memory become [n][lane] in scratch. */
#ifndef ITERA_SIMD_SCAN_SELECTIVE_H
#define ITERA_SIMD_SCAN_SELECTIVE_H

#include "cpu_fallback/simd/scan.h"
#include "ops/scan.h"

/* to[n][lane] = scale * from[lane][n]; lanes beyond `lanes` are 0. */
static inline void states_to_lanes(float *to, const float *from, int64_t ld, int64_t states,
                                   int64_t lanes, float scale)
{
    if (lanes < VF_N)
        for (int64_t n = 0; n < states; n++)
            vf_store(to + n * VF_N, vf_zero());
    for (int64_t lane = 0; lane < lanes; lane++)
        for (int64_t n = 0; n < states; n++)
            to[n * VF_N + lane] = scale * from[lane * ld + n];
}

static inline void lanes_to_states(float *to, int64_t ld, const float *from, int64_t states,
                                   int64_t lanes)
{
    for (int64_t lane = 0; lane < lanes; lane++)
        for (int64_t n = 0; n < states; n++)
            to[lane * ld + n] = from[n * VF_N + lane];
}

#endif
