#version 450
#extension GL_GOOGLE_include_directive : require
#include "matmul_tile.glsl"
#include "matmul_tiles.glsl"
