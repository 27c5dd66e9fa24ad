/* How a workgroup shares a square tile of a product among its subgroups on matrix units. */
#ifndef ITERA_BACKEND_GPU_MATRIX_TILE_H
#define ITERA_BACKEND_GPU_MATRIX_TILE_H

#include "backend/gpu/traits.h"

struct itera_matrix_tile {
    uint32_t down, across; /* subgroups; 0 where the device cannot compute such a tile */
    uint32_t lanes, shared_bytes;
};

struct itera_matrix_tile itera_matrix_tile(const struct itera_gpu_traits *traits, uint32_t tile);

#endif
