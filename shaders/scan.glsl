// What the scans share: a workgroup of 128 as a tile of columns and time.
//
// `width` neighbouring lanes (a power of two) take neighbouring columns, 128 / width rows of them
// take neighbouring stretches of time. h[t] = a[t] h[t-1] + b[t] is an affine map of h; maps
// compose, (a, b) after (a', b') is (a a', a b' + b), so that lanes find the map of their own steps
// first, then that of all earlier lanes in log2(128 / width) rounds. kernels_cl/scan.clh is its
// twin.
#ifndef ITERA_SCAN_GLSL
#define ITERA_SCAN_GLSL
#include "args/scan.clh"

#define SCAN_LANES ITERA_GPU_LOCAL
#define SCAN_SUMS  (SCAN_STEPS * SCAN_LANES)

struct scan_map {
    float a, b;
};

scan_map scan_after(scan_map later, scan_map earlier)
{
    return scan_map(later.a * earlier.a, later.a * earlier.b + later.b);
}

shared float tile_a[SCAN_LANES], tile_b[SCAN_LANES];

// From the map of a lane's own steps to that of all earlier lanes of its column; `total` is the map
// of the whole tile. Called by all lanes; a barrier is due before the next call.
scan_map scan_lanes(scan_map own, uint width, out scan_map total)
{
    tile_a[LANE] = own.a;
    tile_b[LANE] = own.b;
    barrier();
    for (uint distance = width; distance < SCAN_LANES; distance *= 2) {
        scan_map earlier = scan_map(1.0, 0.0);
        if (LANE >= distance)
            earlier = scan_map(tile_a[LANE - distance], tile_b[LANE - distance]);
        barrier();
        own = scan_after(own, earlier);
        tile_a[LANE] = own.a;
        tile_b[LANE] = own.b;
        barrier();
    }
    uint last = SCAN_LANES - width + LANE % width;
    total = scan_map(tile_a[last], tile_b[last]);
    return LANE >= width ? scan_map(tile_a[LANE - width], tile_b[LANE - width])
                         : scan_map(1.0, 0.0);
}

// The sum of v over the rows of a column of the tile, for every lane of it.
float scan_sum_rows(float v, uint width)
{
    barrier();
    tile_a[LANE] = v;
    barrier();
    for (uint distance = SCAN_LANES / 2; distance >= width; distance /= 2) {
        if (LANE < distance)
            tile_a[LANE] += tile_a[LANE + distance];
        barrier();
    }
    return tile_a[LANE % width];
}

#ifdef SCAN_COLUMNS // how many sets of sums
shared float sums[SCAN_COLUMNS * SCAN_SUMS];

// The sums of sums[set + i * 128 + lane] over the columns of a row of the tile, for i below
// SCAN_STEPS; they end in the row's first lane. Called after the lanes have written them.
void scan_sum_columns(uint width, uint set)
{
    barrier();
    for (uint distance = width / 2; distance > 0; distance /= 2) {
        if (LANE % width < distance)
            [[unroll]] for (uint i = 0; i < SCAN_STEPS; i++)
                sums[set + i * SCAN_LANES + LANE] += sums[set + i * SCAN_LANES + LANE + distance];
        barrier();
    }
}
#endif

#endif
