#include "compress/block_fit.h"

#include <math.h>

enum {
    LANES = 8,  /* partial sums, so that compilers may use vectors */
    ROUNDS = 4, /* of refitting the best candidate */
};

/* Where candidates put the extreme element, on either side of 0. */
struct grid {
    float low, high;   /* the integers */
    float first, step; /* places */
    int places;
    bool both_signs; /* of the scale; the integers of q8 are symmetric */
};
static const struct grid q8_grid = {-127, 127, 122, 0.5f, 19, false};
static const struct grid q4_grid = {-8, 7, 6.5f, 0.25f, 13, true};

/* One block under fit. */
struct fit {
    float x[ITERA_BLOCK], v[ITERA_BLOCK], vx[ITERA_BLOCK];
};

/* What the integers of a trial scale explain of sum v x^2, at the best scale for them. */
struct explained {
    float gain;  /* (sum v x q)^2 / sum v q^2 */
    float scale; /* sum v x q / sum v q^2 */
};

static struct explained try_inverse(const struct fit *f, const struct grid *grid, float inverse)
{
    /* Adding and taking away 1.5 * 2^23 rounds to nearest even, as rintf, and in vectors. */
    const float magic = 12582912.0f;
    float vxq[LANES] = {0}, vqq[LANES] = {0};
    for (int i = 0; i < ITERA_BLOCK; i += LANES) {
        for (int k = 0; k < LANES; k++) {
            float r = f->x[i + k] * inverse;
            r = r < grid->low ? grid->low : r;
            r = r > grid->high ? grid->high : r;
            const float q = (r + magic) - magic;
            vxq[k] += f->vx[i + k] * q;
            vqq[k] += f->v[i + k] * q * q;
        }
    }
    float a = 0, b = 0;
    for (int k = 0; k < LANES; k++) {
        a += vxq[k];
        b += vqq[k];
    }
    return b > 0 ? (struct explained){a * a / b, a / b} : (struct explained){0, 0};
}

static float search(const struct fit *f, const struct grid *grid, float extreme)
{
    struct explained best = {-1, 0};
    for (int sign = -1; sign <= (grid->both_signs ? 1 : -1); sign += 2) {
        for (int i = 0; i < grid->places; i++) {
            float place = grid->first + (float)i * grid->step;
            struct explained e = try_inverse(f, grid, (float)sign * place / extreme);
            if (e.gain > best.gain)
                best = e;
        }
    }
    for (int round = 0; round < ROUNDS && best.scale != 0; round++) {
        struct explained e = try_inverse(f, grid, 1 / best.scale);
        if (!(e.gain > best.gain))
            break;
        best = e;
    }
    return best.scale;
}

/* Replaces the block by the one of this scale where that is nearer. */
static void consider(enum itera_dtype dtype, const float *x, const float *importance,
                     uint16_t scale, struct itera_blocks to)
{
    uint8_t bytes[ITERA_BLOCK];
    struct itera_blocks other = {bytes, &scale};
    if ((scale & 0x7c00u) == 0x7c00u)
        return; /* the reference's is cut to what f16 holds */
    itera_block_round_to(dtype, x, scale, bytes);
    if (itera_blocks_error(dtype, x, importance, ITERA_BLOCK, other) <
        itera_blocks_error(dtype, x, importance, ITERA_BLOCK, to)) {
        memcpy(to.bytes, bytes, (size_t)itera_block_bytes(dtype));
        *to.scales = scale;
    }
}

static void fit_block(enum itera_dtype dtype, const float *x, const float *importance,
                      struct itera_blocks to)
{
    itera_blocks_round(dtype, x, ITERA_BLOCK, to);
    struct fit f;
    float extreme = 0;
    for (int i = 0; i < ITERA_BLOCK; i++) {
        if (fabsf(x[i]) > fabsf(extreme))
            extreme = x[i];
        f.x[i] = x[i];
        f.v[i] = importance ? importance[i] : 1;
        f.vx[i] = f.v[i] * x[i];
    }
    if (!isfinite(1000 / extreme)) /* zeros, or too small for any scale */
        return;
    const uint16_t scale =
        itera_f32_to_f16(search(&f, dtype == ITERA_Q8 ? &q8_grid : &q4_grid, extreme));
    consider(dtype, x, importance, scale, to);
    /* Among f16's subnormals the nearest scale may be far off, and 0; the next one clips nothing. */
    if (!(scale & 0x7c00u))
        consider(dtype, x, importance, scale + 1, to);
    if (dtype == ITERA_Q8) {
        /* With q4's scale, to the nearest of more integers: what is exact in q4 is so in q8. */
        uint8_t bytes[ITERA_BLOCK];
        uint16_t narrow;
        fit_block(ITERA_Q4, x, importance, (struct itera_blocks){bytes, &narrow});
        consider(dtype, x, importance, narrow & 0x7fffu, to);
    }
}

void itera_blocks_fit(enum itera_dtype dtype, const float *from, const float *importance, int64_t n,
                      struct itera_blocks to)
{
    for (int64_t i = 0; i < n; i += ITERA_BLOCK) {
        struct itera_blocks block = {to.bytes + i / ITERA_BLOCK * itera_block_bytes(dtype),
                                     to.scales + i / ITERA_BLOCK};
        fit_block(dtype, from + i, importance ? importance + i : NULL, block);
    }
}

double itera_blocks_error(enum itera_dtype dtype, const float *from, const float *importance,
                          int64_t n, struct itera_blocks blocks)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i += ITERA_BLOCK) {
        struct itera_blocks block = {blocks.bytes + i / ITERA_BLOCK * itera_block_bytes(dtype),
                                     blocks.scales + i / ITERA_BLOCK};
        float value[ITERA_BLOCK];
        itera_blocks_expand(dtype, block, ITERA_BLOCK, value);
        for (int k = 0; k < ITERA_BLOCK; k++) {
            double e = (double)from[i + k] - (double)value[k];
            sum += (importance ? (double)importance[i + k] : 1) * e * e;
        }
    }
    return sum;
}
