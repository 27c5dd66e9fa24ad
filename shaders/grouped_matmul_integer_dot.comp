#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_spirv_intrinsics : require
#define DOT
#include "matmul_integer.glsl"
#include "grouped_matmul_integer_tiles.glsl"
