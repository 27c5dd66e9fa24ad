/* Quantised weights. A block is 32 consecutive elements of a row that share one f16 scale:
 *
 *   q8   x[i] = scale * q[i],        q[i] an int8
 *   q4   x[i] = scale * (q[i] - 8),  q[i] a nibble: element i is the low half of byte i for i < 16,
 *                                    element 16 + i the high half of byte i
 *
 * In files a block is its scale followed by its 32 or 16 bytes, as GGUF's Q8_0 and Q4_0. In memory,
 * on every device, a tensor of n elements (a multiple of 32; rows of a multiple of 32) is two
 * planes: the bytes of all blocks in order, n or n/2 of them, and behind them the n/32 scales. So
 * bytes are aligned for wide loads, and element i is found in both planes without regard to rows.
 * Block tensors are contiguous and are seen whole: they have no column views. */
#ifndef ITERA_TENSOR_BLOCKS_H
#define ITERA_TENSOR_BLOCKS_H

#include "tensor/half.h"
#include "tensor/tensor.h"

enum { ITERA_BLOCK = 32 };

static inline bool itera_dtype_is_blocks(enum itera_dtype dtype)
{
    return dtype == ITERA_Q8 || dtype == ITERA_Q4;
}

/* The planes of a tensor of `elements` at data, beginning with element `first` (a multiple of 32).
 */
struct itera_blocks {
    uint8_t *bytes; /* int8_t for q8 */
    uint16_t *scales;
};

static inline int64_t
itera_block_bytes(enum itera_dtype dtype) /* of one block, without its scale */
{
    return dtype == ITERA_Q8 ? 32 : 16;
}

static inline struct itera_blocks itera_blocks_at(enum itera_dtype dtype, void *data,
                                                  int64_t elements, int64_t first)
{
    const int64_t block = itera_block_bytes(dtype);
    uint8_t *bytes = data;
    uint16_t *scales = (uint16_t *)(void *)(bytes + elements / ITERA_BLOCK * block);
    return (struct itera_blocks){bytes + first / ITERA_BLOCK * block, scales + first / ITERA_BLOCK};
}

/* Element i, as f32. */
static inline float itera_blocks_get(enum itera_dtype dtype, struct itera_blocks b, int64_t i)
{
    float scale = itera_f16_to_f32(b.scales[i / ITERA_BLOCK]);
    if (dtype == ITERA_Q8)
        return scale * (float)(int8_t)b.bytes[i];
    uint8_t pair = b.bytes[i / ITERA_BLOCK * 16 + i % 16];
    return scale * (float)((i % ITERA_BLOCK < 16 ? pair & 15 : pair >> 4) - 8);
}

/* n elements (a multiple of 32) as f32. */
void itera_blocks_expand(enum itera_dtype dtype, struct itera_blocks from, int64_t n, float *to);

/* n finite elements (a multiple of 32), each block rounded by itself: q8 to scale = max |x| / 127;
 * q4 to scale = x / -8 for the x of the largest magnitude, which is then met exactly but for the
 * rounding of the scale (as GGUF's reference does). A scale beyond f16 is cut to its largest. */
void itera_blocks_round(enum itera_dtype dtype, const float *from, int64_t n,
                        struct itera_blocks to);

/* One block with a given scale, to nearest: the values that come closest to x / scale. */
void itera_block_round_to(enum itera_dtype dtype, const float *x, uint16_t scale, uint8_t *bytes);

/* Between planes and the blocks of files: `count` blocks. */
void itera_blocks_from_file(enum itera_dtype dtype, const uint8_t *file, int64_t count,
                            struct itera_blocks to);
void itera_blocks_to_file(enum itera_dtype dtype, struct itera_blocks from, int64_t count,
                          uint8_t *file);

#endif
