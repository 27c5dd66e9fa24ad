#version 450
#extension GL_GOOGLE_include_directive : require
#define BINARY (u * silu_slope(v))
#include "elementwise.glsl"
