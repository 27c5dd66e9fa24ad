// What the shaders of the normalisations include.
//
// A workgroup takes LANES / width slices, `width` lanes each; a slice is a row, or one group of
// channels of a row. A lane holds ITEMS elements of it, each `width` further, from the only reading
// on. In the gradients a slice goes through every blocks-th row, sums what belongs to the weights
// on the way, and leaves one row of sums; slices of more than USUAL_ITEMS a lane, which would not fit
// into registers, are read twice there, and sums kept where they are left (WIDE_SLICES).
#ifndef ITERA_NORM_GLSL
#define ITERA_NORM_GLSL
#include "itera.glsl"
#include "args/norm.clh"
#include "math.glsl"

layout(constant_id = ITEMS_ID) const uint ITEMS = USUAL_ITEMS;
layout(constant_id = GROUP_LANES_ID) const uint GROUP_LANES = ITERA_GPU_LOCAL;
#define LANE_BUFFER GROUP_LANES
#include "reduce.glsl"

#define SLICE     (GROUP * (LANES / p.width) + LANE / p.width)
#define COLUMN(k) (LANE % p.width + k * p.width)

const bool WIDE_SLICES = ITEMS > USUAL_ITEMS;

#endif
