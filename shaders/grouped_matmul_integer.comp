#version 450
#extension GL_GOOGLE_include_directive : require
#include "matmul_integer.glsl"
#include "grouped_matmul_integer_tiles.glsl"
