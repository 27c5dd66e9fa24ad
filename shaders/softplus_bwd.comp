#version 450
#extension GL_GOOGLE_include_directive : require
#define BINARY (u * softplus_slope_of_y(v))
#include "elementwise.glsl"
