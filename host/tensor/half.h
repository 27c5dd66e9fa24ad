/* f16 and bf16 as bit patterns: scalar conversions, exact to f32, round to nearest even back. */
#ifndef ITERA_TENSOR_HALF_H
#define ITERA_TENSOR_HALF_H

#include <stdint.h>
#include <string.h>

static inline uint32_t itera_f32_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float itera_f32_from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* IEEE 754 binary16 to binary32; exact, NaN payloads kept (a signalling NaN becomes quiet, as the
 * hardware instructions do). */
static inline float itera_f16_to_f32(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
    uint32_t exponent = (half >> 10) & 0x1fu;
    uint32_t mantissa = half & 0x3ffu;
    if (exponent == 0x1fu)
        return itera_f32_from_bits(sign | 0x7f800000u | (mantissa ? 0x400000u : 0u) |
                                   mantissa << 13);
    if (exponent == 0) {
        /* Subnormal: mantissa * 2^-24, exact in f32. */
        float magnitude = (float)mantissa * 0x1p-24f;
        return itera_f32_from_bits(sign | itera_f32_bits(magnitude));
    }
    return itera_f32_from_bits(sign | (exponent + 112u) << 23 | mantissa << 13);
}

/* binary32 to binary16, round to nearest even; beyond 65519.99 becomes infinity. */
static inline uint16_t itera_f32_to_f16(float value)
{
    uint32_t bits = itera_f32_bits(value);
    uint32_t sign = (bits >> 16) & 0x8000u;
    bits &= 0x7fffffffu;
    if (bits > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u | ((bits >> 13) & 0x1ffu));
    if (bits >= 0x47800000u)
        return (uint16_t)(sign | 0x7c00u);
    if (bits < 0x38800000u) {
        /* Below 2^-14: adding 0.5 leaves mantissa * 2^-24, rounded to even by the adder, in the
         * low bits of the sum (a value below 2^-14 can round up to the smallest normal). */
        float sum = itera_f32_from_bits(bits) + 0.5f;
        return (uint16_t)(sign | (itera_f32_bits(sum) - 0x3f000000u));
    }
    bits += 0xfffu + ((bits >> 13) & 1u);
    return (uint16_t)(sign | ((bits - 0x38000000u) >> 13));
}

/* bfloat16 is the upper half of binary32. */
static inline float itera_bf16_to_f32(uint16_t bfloat)
{
    return itera_f32_from_bits((uint32_t)bfloat << 16);
}

static inline uint16_t itera_f32_to_bf16(float value)
{
    uint32_t bits = itera_f32_bits(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(bits >> 16 |
                          0x40u); /* stay a NaN when the payload sits in the low half */
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

#endif
