/* Counter-based random numbers: Philox4x32-10. The value at (seed, stream, counter) is a pure
 * function, so that any device and any thread draws the same numbers in any order.
 * Source: Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3". */
#ifndef ITERA_CORE_RNG_H
#define ITERA_CORE_RNG_H

#include <stdint.h>

struct itera_rng {
    uint64_t seed;
    uint64_t stream;
    uint64_t counter; /* the next 32-bit value to draw */
};

/* The four 32-bit values of one block. */
static inline void itera_philox(uint64_t seed, uint64_t stream, uint64_t block, uint32_t out[4])
{
    uint32_t c0 = (uint32_t)block, c1 = (uint32_t)(block >> 32);
    uint32_t c2 = (uint32_t)stream, c3 = (uint32_t)(stream >> 32);
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0;
        uint64_t p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        uint32_t n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* The 32-bit value at an index of a stream. */
static inline uint32_t itera_rng_at(uint64_t seed, uint64_t stream, uint64_t index)
{
    uint32_t v[4];
    itera_philox(seed, stream, index >> 2, v);
    return v[index & 3];
}

static inline uint32_t itera_rng_u32(struct itera_rng *rng)
{
    return itera_rng_at(rng->seed, rng->stream, rng->counter++);
}

/* Uniform in [0, n), n > 0. Multiply-shift: the bias is below n / 2^32. */
static inline uint32_t itera_rng_below(struct itera_rng *rng, uint32_t n)
{
    return (uint32_t)(((uint64_t)itera_rng_u32(rng) * n) >> 32);
}

/* Uniform in [0, 1) with 24 bits. */
static inline float itera_rng_uniform(struct itera_rng *rng)
{
    return (float)(itera_rng_u32(rng) >> 8) * 0x1p-24f;
}

/* Standard normal (Box-Muller; two draws a value, so that the counter stays simple). */
float itera_rng_normal(struct itera_rng *rng);

#endif
