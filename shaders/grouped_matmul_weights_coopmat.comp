#version 450
#extension GL_GOOGLE_include_directive : require
#include "matmul_coopmat.glsl"
#include "grouped_matmul_weights.glsl"
