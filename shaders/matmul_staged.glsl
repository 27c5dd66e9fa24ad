// Rows of a in shared memory, for shaders that make them there (matmul_fused.glsl): read_a takes them
// from it. To be included before the products of few rows.
#include "itera.glsl"
#include "args/matmul.clh"

#define STAGED_ROWS
layout(constant_id = STAGED_ID) const uint STAGED = 1;
// ROWS rows, the end of each filled with zeros to a multiple of four floats; with INTEGER words of
// four int8 each.
shared uvec4 staged[STAGED];
