/* The decays of a chunk of ssd_scan in matrix form, which the scan and its gradient share. */
#ifndef ITERA_SIMD_SCAN_SSD_H
#define ITERA_SIMD_SCAN_SSD_H

#include "cpu_fallback/simd/small_gemm.h"
#include "ops/scan.h"

#define SSD_STEPS  64                         /* of a chunk in matrix form */
#define SSD_PADDED (SSD_STEPS + GEMM_COLUMNS) /* the same, padded to tiles either way */

/* cum[t], the sum of dt A from the chunk's first step to t, in units of log2, is kept as the sum of
 * two floats: the difference of two large sums that lie close must come out exact. */
struct ssd_decay {
    float high[SSD_PADDED], low[SSD_PADDED];
    float dt[SSD_PADDED];         /* 0 beyond the steps */
    float from_start[SSD_PADDED]; /* exp(cum[t]) */
    float left[SSD_PADDED];       /* exp(cum[last] - cum[s]) */
    float to_end[SSD_PADDED];     /* the same times dt[s] */
    float total;                  /* exp(cum[last]) */
};

static inline void ssd_decays(struct ssd_decay *d, const float *dt, int64_t ld_dt, float A,
                              int64_t steps)
{
    double cum = 0.0, rate = (double)A * 1.4426950408889634;
    float last_high, last_low;

    for (int64_t t = 0; t < SSD_PADDED; t++) {
        d->dt[t] = t < steps ? dt[t * ld_dt] : 0.0f;
        if (t < steps)
            cum += (double)d->dt[t] * rate;
        d->high[t] = (float)cum;
        d->low[t] = (float)(cum - (double)d->high[t]);
    }
    last_high = d->high[steps - 1];
    last_low = d->low[steps - 1];
    for (int64_t t = 0; t < SSD_PADDED; t += VF_N) {
        vf high = vf_load(d->high + t), low = vf_load(d->low + t);
        vf left =
            vf_exp2_decay(vf_add(vf_sub(vf_set(last_high), high), vf_sub(vf_set(last_low), low)));
        vf_store(d->from_start + t, vf_exp2_decay(vf_add(high, low)));
        vf_store(d->left + t, left);
        vf_store(d->to_end + t, vf_mul(left, vf_load(d->dt + t)));
    }
    d->total = d->from_start[steps - 1];
}

/* exp(cum[t] - cum[u]) for u to u + VF_N - 1; meaningless where u is after t. */
ITERA_INLINE vf ssd_decay_between(const struct ssd_decay *d, int64_t t, int64_t u)
{
    vf high = vf_sub(vf_set(d->high[t]), vf_load(d->high + u));
    vf low = vf_sub(vf_set(d->low[t]), vf_load(d->low + u));

    return vf_exp2_decay(vf_add(high, low));
}

/* The mask of lanes u + lane < end. */
ITERA_INLINE vm ssd_before(int64_t u, int64_t end)
{
    static const float count[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

    return vf_lt(vf_load(count), vf_set((float)(end - u)));
}

#endif
