#include "tensor/blocks.h"

#include <math.h>

static const float F16_MAX = 65504.0f;

void itera_blocks_expand(enum itera_dtype dtype, struct itera_blocks from, int64_t n, float *to)
{
    for (int64_t block = 0; block < n / ITERA_BLOCK; block++, to += ITERA_BLOCK) {
        const float scale = itera_f16_to_f32(from.scales[block]);
        const uint8_t *q = from.bytes + block * itera_block_bytes(dtype);
        if (dtype == ITERA_Q8) {
            for (int i = 0; i < ITERA_BLOCK; i++)
                to[i] = scale * (float)(int8_t)q[i];
            continue;
        }
        for (int i = 0; i < ITERA_BLOCK / 2; i++) {
            to[i] = scale * (float)((q[i] & 15) - 8);
            to[i + ITERA_BLOCK / 2] = scale * (float)((q[i] >> 4) - 8);
        }
    }
}

static int nearest(float x, int low, int high)
{
    float r = rintf(x);
    return r <= (float)low ? low : r >= (float)high ? high : (int)r;
}

void itera_block_round_to(enum itera_dtype dtype, const float *x, uint16_t scale, uint8_t *bytes)
{
    const float s = itera_f16_to_f32(scale), inverse = s != 0 ? 1 / s : 0;
    if (dtype == ITERA_Q8) {
        for (int i = 0; i < ITERA_BLOCK; i++)
            bytes[i] = (uint8_t)(int8_t)nearest(x[i] * inverse, -127, 127);
        return;
    }
    for (int i = 0; i < ITERA_BLOCK / 2; i++) {
        int low = 8 + nearest(x[i] * inverse, -8, 7);
        int high = 8 + nearest(x[i + ITERA_BLOCK / 2] * inverse, -8, 7);
        bytes[i] = (uint8_t)(low | high << 4);
    }
}

static float clamp_to_half(float x)
{
    return x > F16_MAX ? F16_MAX : x < -F16_MAX ? -F16_MAX : x;
}

void itera_blocks_round(enum itera_dtype dtype, const float *from, int64_t n,
                        struct itera_blocks to)
{
    for (int64_t block = 0; block < n / ITERA_BLOCK; block++, from += ITERA_BLOCK) {
        float extreme = 0;
        for (int i = 0; i < ITERA_BLOCK; i++)
            if (fabsf(from[i]) > fabsf(extreme))
                extreme = from[i];
        float scale = dtype == ITERA_Q8 ? fabsf(extreme) / 127 : extreme / -8;
        to.scales[block] = itera_f32_to_f16(clamp_to_half(scale));
        itera_block_round_to(dtype, from, to.scales[block],
                             to.bytes + block * itera_block_bytes(dtype));
    }
}

void itera_blocks_from_file(enum itera_dtype dtype, const uint8_t *file, int64_t count,
                            struct itera_blocks to)
{
    const size_t bytes = (size_t)itera_block_bytes(dtype);
    for (int64_t i = 0; i < count; i++, file += 2 + bytes) {
        memcpy(&to.scales[i], file, 2);
        memcpy(to.bytes + (size_t)i * bytes, file + 2, bytes);
    }
}

void itera_blocks_to_file(enum itera_dtype dtype, struct itera_blocks from, int64_t count,
                          uint8_t *file)
{
    const size_t bytes = (size_t)itera_block_bytes(dtype);
    for (int64_t i = 0; i < count; i++, file += 2 + bytes) {
        memcpy(file, &from.scales[i], 2);
        memcpy(file + 2, from.bytes + (size_t)i * bytes, bytes);
    }
}
