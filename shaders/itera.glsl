// What every shader includes. See docs/kernels.md.
#ifndef ITERA_GLSL
#define ITERA_GLSL
#extension GL_EXT_control_flow_attributes : require
#include "args/words.clh"

layout(local_size_x_id = 0, local_size_y_id = 1, local_size_z_id = 2) in;

// All words of a shader, a struct of kernels_cl/args/, in one block:  ARGS(unary_args)  makes them p.
#define ARGS(type)                                                                                 \
    layout(set = 0, binding = 0) uniform Args                                                      \
    {                                                                                              \
        type p;                                                                                    \
    };

// Operands, in the order of the dispatch; their elements are x.v[i]. Each shader is compiled twice:
// operands as descriptors, and (ITERA_ADDRESS) as addresses, for those larger than the device lets
// a descriptor be.
#ifdef ITERA_ADDRESS
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
layout(set = 0, binding = 1) uniform Addresses { uvec4 at[ITERA_GPU_MAX_BINDINGS]; } operand_address;
#define ITERA_OPERAND(slot, access, type, name)                                                    \
    layout(buffer_reference, std430, buffer_reference_align = 4) access buffer Operand##name       \
    {                                                                                              \
        type v[];                                                                                  \
    };                                                                                             \
    Operand##name name = Operand##name(operand_address.at[slot - 1].xy);
#else
#define ITERA_OPERAND(slot, access, type, name)                                                    \
    layout(set = 0, binding = slot, std430) access buffer Operand##name                            \
    {                                                                                              \
        type v[];                                                                                  \
    }                                                                                              \
    name;
#endif
#define IN(slot, name)        ITERA_OPERAND(slot, readonly, float, name)
#define OUT(slot, name)       ITERA_OPERAND(slot, , float, name)
#define INOUT(slot, name)     ITERA_OPERAND(slot, , float, name)
#define IN_UINT(slot, name)   ITERA_OPERAND(slot, readonly, uint, name)
#define OUT_UINT(slot, name)  ITERA_OPERAND(slot, , uint, name)
#define IN_INT(slot, name)    ITERA_OPERAND(slot, readonly, int, name)
#define OUT_INT(slot, name)   ITERA_OPERAND(slot, , int, name)
#define INOUT_INT(slot, name) ITERA_OPERAND(slot, , int, name)

// The group's number in a grid that was cut at 65535 groups in x (itera_gpu_groups).
#define GROUP  (gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x)
#define LANES  gl_WorkGroupSize.x
// itera check --lanes upsets their order (1 reversed, 2 rotated, so that lanes of one subgroup are in
// two): what a missing barrier leaves open comes out otherwise.
layout(constant_id = LANE_ORDER_ID) const uint LANE_ORDER = 0;
#define LANE                                                                                       \
    (LANE_ORDER == 0   ? gl_LocalInvocationID.x                                                    \
     : LANE_ORDER == 1 ? LANES - 1 - gl_LocalInvocationID.x                                        \
                       : (gl_LocalInvocationID.x + LANES / 2 + 1) % LANES)
// This invocation's number in such a grid.
#define THREAD (GROUP * LANES + LANE)

#endif
