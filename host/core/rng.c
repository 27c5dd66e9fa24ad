#include "core/rng.h"

#include <math.h>

float itera_rng_normal(struct itera_rng *rng)
{
    double u = ((double)itera_rng_u32(rng) + 1.0) * 0x1p-32; /* (0, 1]: log stays finite */
    double v = (double)itera_rng_u32(rng) * 0x1p-32;
    return (float)(sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v));
}
