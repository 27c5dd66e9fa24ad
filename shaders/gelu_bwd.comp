#version 450
#extension GL_GOOGLE_include_directive : require
#define BINARY (u * gelu_slope(v))
#include "elementwise.glsl"
