#include "backend/gpu/matrix_tile.h"

#include "args/matmul.clh"

enum { LINES = 32 /* of a tile, which leave it together: matmul_store.glsl */ };

/* 32-bit registers of a lane. Intel's come in files of 128 for a thread, one register as wide as its matrix
 * units; of drivers that are not known nothing is assumed. */
static uint32_t registers(const struct itera_gpu_traits *traits)
{
    switch (traits->vendor) {
    case ITERA_GPU_NVIDIA:
    case ITERA_GPU_AMD:
    case ITERA_GPU_SOFTWARE:
        return 256;
    case ITERA_GPU_INTEL:
        return 128 * traits->matrix.n / traits->matrix.subgroup;
    case ITERA_GPU_OTHER:
        break;
    }
    return 64;
}

/* What a lane may take for sums. Addresses, what is fetched for the next step and the matrices that are
 * multiplied need about as many registers on all devices: where there are few, they leave less. */
static uint32_t sums_budget(const struct itera_gpu_traits *traits)
{
    const uint32_t all = registers(traits);
    return all > 128 ? all / 4 : all / 8;
}

struct itera_matrix_tile itera_matrix_tile(const struct itera_gpu_traits *traits, uint32_t tile)
{
    const struct itera_gpu_matrix *matrix = &traits->matrix;
    struct itera_matrix_tile t = {
        .down = 2, .across = 2, .shared_bytes = 2 * tile * (COOP_DEPTH / 4 + 2) * 8};
    if (!matrix->m || !traits->half_math)
        return (struct itera_matrix_tile){0};
    const uint32_t most_down = LINES / matrix->m, most_across = tile / matrix->n;
    for (;;) {
        t.lanes = t.down * t.across * matrix->subgroup;
        if (tile * tile / t.lanes <= sums_budget(traits))
            break;
        if (t.across <= t.down && t.across < most_across)
            t.across *= 2;
        else if (t.down < most_down)
            t.down *= 2;
        else if (t.across < most_across)
            t.across *= 2;
        else
            return (struct itera_matrix_tile){0};
    }
    if (t.lanes > traits->max_local || t.shared_bytes > traits->shared_bytes)
        return (struct itera_matrix_tile){0};
    return t;
}
