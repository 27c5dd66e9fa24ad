// What the shaders of the causal convolution include.
//
// A workgroup takes 1 << shift channels, `across` of them lie side by side; its lanes above each
// other take STEPS steps each, or a run of them, of one sequence. The window lies in registers.
#ifndef ITERA_CONV_GLSL
#define ITERA_CONV_GLSL
#include "itera.glsl"
#include "args/conv.clh"
#include "math.glsl"

layout(constant_id = TAPS_ID) const uint TAPS = 4;
#define HISTORY     (TAPS - 1)
#define GROUP_LANES ITERA_GPU_LOCAL

#define CHANNEL ((GROUP % p.across << p.shift) + (LANE & ((1u << p.shift) - 1)))
#define ITEM    (GROUP / p.across * (LANES >> p.shift) + (LANE >> p.shift))

#endif
