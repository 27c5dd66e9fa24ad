#version 450
#extension GL_GOOGLE_include_directive : require
#include "matmul_tile.glsl"
#include "grouped_matmul_tiles.glsl"
